"""Lists against the watch: what was missed is found, and a watch that is dead is told from one that is quiet."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.engine import inventory, watch
from squidex_operator.kube import errors as kube_errors
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

NS = cluster.NAMESPACE
KEY = inventory.Key(NS, "shop")


@pytest.fixture
def world() -> World:
    """One SquidexClient with its token; the watch has told everything."""
    world = cluster.World(interval=dt.timedelta(milliseconds=1))
    world.put_client()
    world.run()
    tell_all(world)
    return world


def tell_all(world: World) -> None:
    """The watch tells what there is, as Kopf does at its start."""
    for body in world.cluster.clients.values():
        world.watch.client_event(None, copy.deepcopy(body))
    for body in world.cluster.secrets.values():
        world.watch.secret_event(None, copy.deepcopy(body))


def rounds(world: World, count: int = 1) -> None:
    """So many lists of the periodic kind."""

    async def main() -> None:
        task = asyncio.create_task(world.watch.run())
        async with asyncio.timeout(10):
            while world.cluster.count("list_clients") < count + 1 and not task.done():  # noqa: ASYNC110 - the watch tells nobody
                await asyncio.sleep(0)
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    world.cluster.calls.clear()
    asyncio.run(main())


def change(world: World) -> dict[str, Any]:
    """Somebody edits the SquidexClient, and the watch does not tell."""
    body = world.cluster.clients[NS, "shop"]
    body["metadata"]["generation"] += 1
    return world.cluster.stamp(body)


def test_a_quiet_watch_is_fine(world: World) -> None:
    before = world.watch.heard_at
    world.clock.advance(hours=1)
    rounds(world, 3)
    assert world.watch.heard_at > before
    assert world.tools.metrics.missed_events._value.get() == 0


def test_a_missed_change_is_taken_in_and_the_key_woken(world: World) -> None:
    change(world)
    assert asyncio.run(world.watch.relist()) == {
        (watch.CLIENT, KEY): world.cluster.clients[NS, "shop"]["metadata"]["resourceVersion"]
    }
    assert KEY in world.queue._due
    assert world.inventory.records[KEY].client.generation == 2


def test_missed_deletes_are_found(world: World) -> None:
    world.delete_secret(told=False)
    rounds(world)
    assert KEY not in world.inventory.targets
    assert KEY in world.queue._due
    world.queue._due.clear()
    del world.cluster.clients[NS, "shop"]
    world.queue.wake(KEY)
    rounds(world)
    assert world.inventory.records == {}
    assert KEY not in world.queue._due


def test_a_watch_that_does_not_tell_a_change_is_dead(world: World) -> None:
    change(world)
    with pytest.raises(watch.SilentWatchError, match="the watch missed 1 changes, the first of client"):
        rounds(world)
    assert world.tools.metrics.missed_events._value.get() == 1


def test_a_watch_that_tells_late_is_alive(world: World) -> None:
    body = change(world)
    world.cluster.after["list_clients"] = [lambda: world.watch.client_event("MODIFIED", body)]
    rounds(world)


def test_a_watch_that_tells_something_newer_is_alive(world: World) -> None:
    change(world)

    def newer() -> None:
        world.watch.client_event("MODIFIED", change(world))

    world.cluster.after["list_clients"] = [newer]
    rounds(world)


def test_what_came_and_went_in_between_is_no_alarm(world: World) -> None:
    def come() -> None:
        body = {"metadata": {"namespace": NS, "name": "brief", "generation": 1}, "spec": {}}
        world.cluster.clients[NS, "brief"] = body
        world.cluster.stamp(body, new=True)

    def go() -> None:
        world.delete_client("brief")  # Kopf has put both into one event

    world.cluster.before["list_clients"] = [come]
    world.cluster.after["list_clients"] = [go]
    rounds(world)
    assert inventory.Key(NS, "brief") not in world.inventory.records


def test_what_went_while_the_list_was_under_way_stays_gone(world: World) -> None:
    world.cluster.after["list_clients"] = [world.delete_client]
    world.cluster.after["list_secrets"] = [world.delete_secret]
    asyncio.run(world.watch.relist())
    assert world.inventory.records == {}
    assert KEY not in world.inventory.targets
    assert KEY not in world.queue._due


def test_what_came_while_the_list_was_under_way_stays(world: World) -> None:
    world.cluster.after["list_clients"] = [lambda: world.put_client("new")]
    world.cluster.after["list_secrets"] = [lambda: world.put_credentials(name="other")]
    asyncio.run(world.watch.relist())
    assert inventory.Key(NS, "new") in world.inventory.records
    assert world.inventory.known_secret(inventory.Key(NS, "other")) is not None


def test_our_own_writes_are_no_alarm(world: World) -> None:
    world.put_credentials("changed")
    world.run()  # writes the Secret and the status; the watch tells nothing of it
    rounds(world, 2)


def test_a_version_that_the_watch_has_told_before_is_no_alarm(world: World) -> None:
    # Nothing else would tell what is known from what is listed: a Secret of a role that we do not know is not kept.
    record = world.inventory.records[KEY]
    world.inventory.forget_client(KEY)
    world.inventory.records.clear()
    rounds(world)
    assert record.client.uid


def test_a_list_that_fails_is_tried_again_and_says_that_nothing_is_known(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.cluster.before["list_secrets"] = [kube_errors.UnavailableError("HTTP 503.")]

    async def main() -> None:
        task = asyncio.create_task(world.watch.run())
        async with asyncio.timeout(10):
            while not world.watch.failing:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            while world.watch.failing:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert "list failed message='HTTP 503.'" in caplog.text


@pytest.mark.parametrize("which", ["clients", "secrets"])
def test_a_store_that_was_restored_from_a_backup_ends_the_process(world: World, which: str) -> None:
    body = getattr(world.cluster, which)[NS, "shop"]
    body["metadata"]["resourceVersion"] = "3"
    with pytest.raises(watch.RestoredError, match="restored from a backup"):
        rounds(world)


def test_the_first_list_lets_decisions_begin(world: World) -> None:
    fresh = cluster.World()
    fresh.cluster = world.cluster
    fresh.tools = cluster.dataclasses.replace(fresh.tools, gateway=world.cluster)  # type: ignore[arg-type]
    first = watch.Watch(fresh.tools, namespaces=[], relist_interval=dt.timedelta(minutes=1))
    assert not first.listed
    asyncio.run(first.first_list())
    assert first.listed
    assert KEY in fresh.inventory.records
    assert KEY in fresh.inventory.targets


def test_only_the_namespaces_that_are_served_are_listed(world: World) -> None:
    scoped = watch.Watch(world.tools, namespaces=["a", "b"], relist_interval=dt.timedelta(minutes=1))
    world.cluster.calls.clear()
    asyncio.run(scoped.relist())
    assert world.cluster.calls == ["list_secrets", "list_secrets", "list_clients", "list_clients"]


def test_what_has_been_heard_of_does_not_grow_with_what_has_gone(world: World) -> None:
    for n in range(50):
        world.put_client(f"brief-{n}")
        world.delete_client(f"brief-{n}")
    rounds(world)
    assert len(world.watch._heard) <= 5


def test_a_deleted_squidexclient_leaves_nothing_behind(world: World) -> None:
    world.tools.hosts.turn(cluster.URL, KEY)
    world.queue.wake(KEY)
    world.delete_client()
    assert KEY not in world.queue._due
    assert world.tools.hosts._hosts[cluster.URL].reserved == {}


def test_the_delete_of_a_predecessor_says_nothing_of_its_successor(world: World) -> None:
    old = copy.deepcopy(world.cluster.clients.pop((NS, "shop")))
    world.put_client()
    world.watch.client_event("DELETED", old)
    assert KEY in world.inventory.records
