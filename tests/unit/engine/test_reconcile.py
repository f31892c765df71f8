"""One reconcile after the other: failures, turns, due times, and what is told."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.api import reasons
from squidex_operator.engine import hosts, inventory, servers
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import decide, observed
from squidex_operator.squidex import errors as squidex_errors
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

Reason = reasons.Reason
NS = cluster.NAMESPACE


def unavailable() -> Exception:
    return kube_errors.UnavailableError("The API server answered HTTP 503.")


def timed_out() -> Exception:
    return squidex_errors.UnavailableError(Reason.TIMEOUT, "It did not answer.")


def test_a_token_is_fetched_once_and_written(ready: World) -> None:
    assert ready.token() == ready.squidex.granted[0]
    assert len(ready.squidex.granted) == 1
    ready.clock.advance(seconds=1)
    ready.queue.wake(inventory.Key(NS, "shop"))
    ready.run()
    assert ready.cluster.calls == []
    assert ready.squidex.calls == []


def test_a_status_that_could_not_be_written_is_written_later(world: World) -> None:
    key = world.put_client()
    world.cluster.before["patch_status"] = [unavailable()]
    world.run()
    assert world.status() == {}
    due = world.due(key)
    assert due is not None
    assert 0 < due <= 10
    world.clock.advance(seconds=due)
    world.run()
    status = world.status()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert status["lastRefreshReason"] == reasons.Cause.FIRST_TOKEN
    assert len(world.squidex.granted) == 1


def test_a_conflict_on_the_status_is_tried_again(world: World) -> None:
    key = world.put_client()
    world.cluster.before["patch_status"] = [kube_errors.StaleError("It changed meanwhile.")]
    world.run()
    assert world.due(key) is not None
    world.clock.advance(minutes=1)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_an_answer_to_a_status_write_does_not_bring_a_deleted_squidexclient_back(world: World) -> None:
    world.put_client()
    world.squidex.before["token"] = [timed_out()]
    world.cluster.after["patch_status"] = [world.delete_client]
    world.run()
    assert world.inventory.records == {}
    assert world.cluster.events == []
    assert inventory.Key(NS, "shop") not in world.queue._due


def test_who_is_blocked_does_not_become_a_hot_loop_when_its_credentials_change(world: World) -> None:
    theirs = {"metadata": {"namespace": NS, "name": "shop"}, "data": {}}
    world.cluster.secrets[NS, "shop"] = theirs
    world.cluster.stamp(theirs, new=True)
    key = world.put_client()
    world.run()
    world.inventory.records[key].credentials = observed.UNKNOWN
    world.inventory.records[key].credentials_due = world.clock.now()
    world.queue.wake(key)
    world.run()  # `settle` raises where it never ends
    due = world.due(key)
    assert due is not None
    assert due > 0


@pytest.mark.parametrize("method", ["get_secret", "get_config_map"])
def test_an_api_server_that_fails_a_look_is_not_asked_without_end(world: World, method: str) -> None:
    key = world.put_client(tls={"caRef": {"kind": "ConfigMap", "name": "ca"}})
    world.cluster.before[method] = [unavailable() for _ in range(1000)]
    world.run()
    assert world.cluster.count(method) <= 3
    due = world.due(key)
    assert due is not None
    assert due > 0
    assert world.squidex.granted == []


def test_a_look_at_credentials_that_is_due_and_fails_waits(ready: World) -> None:
    ready.put_credentials("changed")
    ready.cluster.before["get_secret"] = [unavailable() for _ in range(1000)]
    ready.run()
    assert ready.cluster.count("get_secret") == 1
    due = ready.due(inventory.Key(NS, "shop"))
    assert due is not None
    assert due > 0
    ready.cluster.before.clear()
    ready.clock.advance(seconds=due)
    ready.run()
    assert ready.token() == ready.squidex.granted[1]


def test_nothing_is_fetched_where_the_namespace_goes(ready: World) -> None:
    ready.cluster.terminating.add(NS)
    ready.delete_secret()
    ready.run()
    assert len(ready.squidex.granted) == 1
    assert ready.condition("Ready") == ("False", Reason.TERMINATING)


def test_two_causes_at_once_lead_to_one_fetch(ready: World) -> None:
    ready.delete_secret()
    ready.put_credentials("changed")
    ready.put_client(scope="squidex-api openid")
    ready.run()
    assert len(ready.squidex.granted) == 2
    assert ready.token() == ready.squidex.granted[1]


def test_an_error_that_nobody_foresaw_is_in_the_status_and_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.put_client()
    world.squidex.before["token"] = [RuntimeError("a bug")]
    world.run()
    assert world.condition("Ready")[0] == "False"
    due = world.due(key)
    assert due is not None
    assert due > 0
    assert "unforeseen" in caplog.text


def test_an_event_that_cannot_be_posted_is_no_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.squidex.before["token"] = [timed_out()]
    world.cluster.before["create_event"] = [kube_errors.RefusedError("No.") for _ in range(9)]
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("False", Reason.TIMEOUT)
    assert "event not posted" in caplog.text


def test_workers_that_start_together_do_not_pass_a_servers_limit_together() -> None:
    world = cluster.World(host_limits=hosts.HostLimits(concurrency=2))
    keys = [world.put_client(f"shop-{n}") for n in range(10)]
    most, now = 0, 0

    original = world.squidex.send

    async def send(*args: Any, **options: Any) -> Any:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0)
            return await original(*args, **options)
        finally:
            now -= 1

    world.squidex.send = send  # type: ignore[method-assign]

    async def together() -> None:
        for _ in range(20):
            due = [key for key, at in world.queue._due.items() if at <= world.clock.now()]
            for key in due:
                world.queue._due.pop(key)
            await asyncio.gather(*(world.reconciler.work(key) for key in due))

    asyncio.run(together())
    assert most <= 2
    assert len(world.squidex.granted) == len(keys)
    assert all(world.condition("Ready", key.name)[0] == "True" for key in keys)


def test_who_waits_for_its_turn_costs_nothing_and_comes_back_for_it() -> None:
    world = cluster.World(host_limits=hosts.HostLimits(rate=0.1, burst=1))
    keys = [world.put_client(f"shop-{n}") for n in range(4)]
    world.run()
    assert len(world.squidex.granted) == 1
    waiting = [key for key in keys if (NS, key.name) not in world.cluster.secrets]
    assert sorted(world.due(key) or 0 for key in waiting) == [10, 20, 30]
    world.cluster.calls.clear()
    for key in waiting:
        world.queue.wake(key)  # by an event before its time
    world.run()
    assert [call for call in world.cluster.calls if "patch_status" not in call] == []
    for granted in (2, 3, 4):
        world.clock.advance(seconds=10)
        world.run()
        assert len(world.squidex.granted) == granted


def test_two_rules_that_disagree_make_no_hot_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.put_client()
    always = decide.Look(decide.Subject.TARGET)
    monkeypatch.setattr(decide, "decide", lambda *_: always)
    world.run()
    assert world.due(key) == 60
    assert "undecided key=shop/shop decision=Look" in caplog.text
    assert world.cluster.count("get_secret") <= 16


def test_a_server_that_hangs_is_asked_by_one_at_a_time() -> None:
    world = cluster.World()
    for n in range(5):
        world.put_client(f"shop-{n}")
    world.squidex.before["token"] = [timed_out() for _ in range(100)]
    world.run()
    state = world.tools.hosts._hosts[cluster.URL]
    assert state.trouble_until is not None
    assert state.in_flight == 0


def test_keys_are_asked_for_with_the_ca_of_whoever_has_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(3):
        world.put_client(f"broken-{n}", tls={"caRef": {"kind": "ConfigMap", "name": "none"}})
    world.put_client("good")
    world.run()
    server = servers.ServerKey(cluster.URL)
    # Another one comes while the first CA is looked for.
    world.cluster.before["get_config_map"] = [lambda: world.put_client("late")]
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(server))
    assert world.squidex.calls == ["keys"]
    assert world.queue._due[server] > world.clock.now()


def test_keys_are_not_asked_for_without_any_ca(world: World) -> None:
    world.put_client(tls={"caRef": {"kind": "Secret", "name": "none"}})
    world.run()
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(servers.ServerKey(cluster.URL)))
    assert world.squidex.calls == []


def test_keys_wait_their_turn_at_a_server_in_trouble(world: World) -> None:
    world.put_client()
    world.run()
    server = servers.ServerKey(cluster.URL)
    state = world.tools.hosts._host(cluster.URL)
    state.in_flight, state.trouble_until = 1, world.clock.now() + dt.timedelta(hours=1)
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(server))
    assert world.squidex.calls == []
    assert server in state.parked


def test_probes_wait_their_turn_at_a_server_in_trouble(ready: World) -> None:
    key = inventory.Key(NS, "shop")
    ready.clock.advance(hours=2)
    ready.queue._due.pop(servers.ServerKey(cluster.URL), None)
    state = ready.tools.hosts._host(cluster.URL)
    state.in_flight, state.trouble_until = 1, ready.clock.now() + dt.timedelta(hours=1)
    ready.run()
    assert "probe" not in ready.squidex.calls
    assert ready.cluster.count("get_secret") == 0  # nor is the target read for nothing, each minute
    assert key in state.parked
    state.in_flight = 0
    ready.clock.advance(minutes=1)
    ready.run()
    assert "probe" in ready.squidex.calls


def test_a_token_left_to_die_by_a_dead_server_ends_as_expired_and_comes_back(world: World) -> None:
    world.squidex.lifetime = 6 * 3600
    key = world.put_client()
    world.run()
    world.squidex.before["token"] = [timed_out() for _ in range(1000)]
    end = world.clock.now() + dt.timedelta(hours=7)

    async def live() -> None:
        while world.clock.now() < end:
            world.clock.at = max(min(world.queue._due.values()), world.clock.now())
            await world.settle()

    asyncio.run(live())
    assert world.condition("Ready") == ("False", Reason.TOKEN_EXPIRED)
    assert len(world.squidex.before["token"]) > 900
    world.squidex.before.clear()
    wait = world.due(key)
    assert wait is not None
    assert wait <= 600
    world.clock.advance(seconds=wait)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_a_key_is_never_without_a_due_time_while_there_is_something_to_wait_for(world: World) -> None:
    """Whatever fails, the key comes back by itself: nobody has to restart anything."""
    errors = [unavailable(), kube_errors.RefusedError("No."), kube_errors.StaleError("Old.")]
    for method in ("get_secret", "create_secret", "patch_status"):
        for error in errors:
            world = cluster.World()
            key = world.put_client()
            world.cluster.before[method] = [error]
            world.run()
            for _ in range(20):
                due = world.due(key)
                assert due is not None, (method, error)
                if world.condition("Ready") == ("True", Reason.TOKEN_VALID) if world.status() else False:
                    break
                world.clock.advance(seconds=due)
                world.run()
            assert world.condition("Ready") == ("True", Reason.TOKEN_VALID), (method, error)
            assert len(world.squidex.granted) == 1, (method, error)


def test_an_invalid_spec_waits_for_the_next_edit(world: World) -> None:
    key = world.put_client(probe={"interval": "often"})
    world.run()
    assert world.condition("Ready") == ("False", Reason.INVALID_SPEC)
    assert world.due(key) is None
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_credentials_that_nobody_watches_are_looked_at_again(world: World) -> None:
    world.put_credentials(name="plain", labelled=False)
    world.put_client(credentialsSecretRef={"name": "plain"}, probe={"interval": "10m"})
    world.run()
    world.put_credentials("changed", name="plain", labelled=False)
    for _ in range(12):
        world.clock.advance(minutes=1)
        world.run()
    assert world.token() == world.squidex.granted[1]


def test_no_reconcile_of_a_key_that_nobody_knows(world: World) -> None:
    asyncio.run(world.reconciler.work(inventory.Key(NS, "nobody")))
    assert world.cluster.calls == []


@pytest.mark.parametrize("what", ["a foreign Secret", "credentials that are made anew"])
def test_what_is_in_the_way_for_a_moment_does_not_end_the_wait_after_a_wrong_secret(ready: World, what: str) -> None:
    wrong = squidex_errors.RejectedError(Reason.INVALID_CLIENT, "invalid_client")
    ready.squidex.before["token"] = [wrong] * 99
    ready.clock.advance(days=21)
    ready.run()
    for _ in range(10):
        ready.clock.advance(minutes=1)
        if what == "a foreign Secret":
            mine = ready.target()
            ready.delete_secret()
            theirs: dict[str, Any] = {"metadata": {"namespace": NS, "name": "shop"}, "data": {}}
            ready.cluster.secrets[NS, "shop"] = theirs
            ready.cluster.stamp(theirs, new=True)
            ready.run()
            ready.cluster.secrets[NS, "shop"] = mine
            ready.tell_secret(ready.cluster.stamp(mine, new=True))
        else:
            ready.delete_secret("credentials")
            ready.run()
            assert ready.condition("CredentialsAvailable") == ("False", Reason.CREDENTIALS_MISSING)
            ready.put_credentials()
        ready.run()
    assert ready.squidex.count("token") == 1
    ready.put_credentials("another")
    ready.run()
    assert ready.squidex.count("token") == 2


def test_a_foreign_secret_is_looked_at_again_soon_after_the_clock_was_set_back(world: World) -> None:
    theirs: dict[str, Any] = {"metadata": {"namespace": NS, "name": "shop"}, "data": {}}
    world.cluster.secrets[NS, "shop"] = theirs
    world.cluster.stamp(theirs, new=True)
    key = world.put_client()
    world.run()
    world.clock.advance(days=-365)
    for each in world.inventory.clock_set_back():
        world.queue.wake(each)
    world.run()
    due = world.due(key)
    assert due is not None
    assert 0 < due <= 120


def test_a_repair_that_fails_is_told_where_no_token_is_needed(ready: World) -> None:
    # The server refused the token once; no other could be had, and it is accepted again.
    ready.squidex.refused = {ready.token()}
    ready.squidex.before["token"] = [squidex_errors.RejectedError(Reason.INVALID_CLIENT, "invalid_client")] * 9
    ready.clock.advance(hours=1, minutes=5)
    ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.INVALID_CLIENT)
    ready.squidex.refused.clear()
    ready.damage_target()
    ready.cluster.before["apply_secret"] = [kube_errors.RefusedError("No.")] * 99
    for _ in range(90):
        ready.clock.advance(minutes=1)
        ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.TARGET_REFUSED)
