"""What is looked at: races between an answer and the watch, and what others are told of what one of them saw."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

import pytest

from squidex_operator.api import reasons
from squidex_operator.engine import inventory
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

NS = cluster.NAMESPACE
Reason = reasons.Reason


def secrets_sent(world: World) -> list[str]:
    """The client secrets of all token requests."""
    return [form["client_secret"] for _, form in world.squidex.asked if "client_secret" in form]


def test_credentials_that_change_while_their_old_version_is_being_read_are_used(world: World) -> None:
    world.put_client()
    # The target's GET; then the credentials', whose answer is under way when the watch tells the change.
    world.cluster.after["get_secret"] = [lambda: None, lambda: world.put_credentials("changed")]
    world.run()
    assert secrets_sent(world)[-1] == "changed"
    assert world.token() == world.squidex.granted[-1]


def test_what_one_reads_before_the_watch_tells_it_concerns_all_who_share_it(world: World) -> None:
    for name in ("one", "two"):
        world.put_client(name)
    world.run()
    body = world.cluster.secrets[NS, "credentials"]
    body["data"]["clientSecret"] = cluster.encode("changed")
    told = world.cluster.stamp(body)
    world.delete_secret("one")  # so that `one` reads the credentials, before the watch tells of them
    asyncio.run(world.settle())
    world.watch.secret_event("MODIFIED", copy.deepcopy(told))
    world.run()
    assert secrets_sent(world)[2:] == ["changed"] * 2
    assert {world.token("one"), world.token("two")} == set(world.squidex.granted[2:])


def test_credentials_that_lost_their_label_make_no_hot_loop(ready: World) -> None:
    body = ready.cluster.secrets[NS, "credentials"]
    body["metadata"]["labels"] = {}
    body["data"]["clientSecret"] = cluster.encode("changed")
    lost = ready.cluster.stamp(body)
    ready.delete_secret()  # a reason to read them; the watch has not told of the label yet
    ready.run()
    assert ready.cluster.count("get_secret") <= 4
    assert ready.token() == ready.squidex.granted[1]
    ready.watch.secret_event("DELETED", lost)
    ready.run()
    assert ready.token() == ready.squidex.granted[1]
    due = ready.due(inventory.Key(NS, "shop"))
    assert due is not None
    assert 0 < due <= 3600  # they are looked at like all that are not watched


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("days", [0, 21], ids=["a first token", "a renewal"])
def test_no_credentials_are_sent_to_the_url_of_another_spec(labelled: bool, days: int) -> None:
    world = cluster.World()
    del world.cluster.secrets[NS, "credentials"]
    world = fresh(world)
    world.put_credentials("A", labelled=labelled)
    world.put_credentials("B", name="others", labelled=labelled)
    world.put_client()
    if days:
        world.run()
        world.clock.advance(days=days)
    world.cluster.after["get_secret"] = [
        *([] if days else [lambda: None]),
        lambda: world.put_client(url="https://b.test", credentialsSecretRef={"name": "others"}),
    ]
    world.run()
    sent = {(url.partition("/identity")[0], form.get("client_secret")) for url, form in world.squidex.asked}
    assert ("https://b.test", "A") not in sent
    assert ("https://b.test", "B") in sent


@pytest.mark.parametrize("what", ["missing", "incomplete"])
def test_credentials_that_come_while_their_absence_is_being_read_are_used_at_once(what: str) -> None:
    world = cluster.World()
    del world.cluster.secrets[NS, "credentials"]
    world = fresh(world)
    if what == "incomplete":
        world.put_credentials()
        del world.cluster.secrets[NS, "credentials"]["data"]["clientSecret"]
        world.tell_secret(world.cluster.stamp(world.cluster.secrets[NS, "credentials"]))
    world.put_client()
    world.cluster.after["get_secret"] = [lambda: None, world.put_credentials]
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert world.cluster.events == []


def test_credentials_that_were_made_anew_without_a_label_make_no_hot_loop(ready: World) -> None:
    # The watch has told neither that the old ones went, nor anything of the new ones.
    del ready.cluster.secrets[NS, "credentials"]
    ready.put_credentials("changed", labelled=False)
    ready.delete_secret()
    ready.run()
    assert ready.cluster.count("get_secret") <= 4
    assert secrets_sent(ready)[-1] == "changed"
    assert ready.token() == ready.squidex.granted[1]


def fresh(world: World) -> World:
    """The same cluster, and an operator that was just started."""
    anew = cluster.World(clock=world.clock, host_limits=world.host_limits)
    anew.cluster.secrets, anew.cluster.clients, anew.cluster.version = (
        world.cluster.secrets,
        world.cluster.clients,
        world.cluster.version,
    )
    anew.inventory.forget_secret(inventory.Key(NS, "credentials"))
    asyncio.run(anew.watch.relist())
    return anew
