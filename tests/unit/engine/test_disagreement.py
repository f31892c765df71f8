"""Tokens that are refused, and keys that are replaced or do not fit together: what a token is fetched for, and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squidex_operator.api import reasons
from squidex_operator.engine import disagreement, inventory, servers
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

Reason = reasons.Reason
NS = cluster.NAMESPACE


def test_a_new_token_that_is_refused_replaces_nothing(ready: World) -> None:
    old = ready.token()
    ready.put_credentials("changed")
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])]
    ready.run()
    assert ready.token() == old
    assert ready.condition("RefreshFailing") == ("True", Reason.NEW_TOKEN_REFUSED)


def test_a_new_token_that_is_refused_is_asked_about_again_whatever_keys_are_published(ready: World) -> None:
    ready.squidex.published = ["another"]  # and yet it signs with key-1
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])] * 9
    ready.put_credentials("changed")
    ready.run()
    for _ in range(9):
        ready.clock.advance(minutes=5)
        ready.run()
    # One, one more because its key may just have been replaced, and that one is kept.
    assert len(ready.squidex.granted) == 3
    ready.squidex.refused.clear()
    ready.clock.advance(minutes=10)
    ready.run()
    assert ready.token() == ready.squidex.granted[2]
    assert len(ready.squidex.granted) == 3


def test_a_refused_token_whose_key_is_gone_is_not_waited_for_where_nobody_has_a_token(ready: World) -> None:
    # Its replicas disagree, so one list of keys is no proof; but here nobody has anything that could be better than a new one.
    disagreement.doubt(ready.tools, ready.inventory.records[inventory.Key(NS, "shop")])
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])]
    ready.delete_secret()
    ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.NEW_TOKEN_REFUSED)
    ready.squidex.key = "key-2"
    ready.clock.advance(seconds=1)
    ready.queue.wake(servers.ServerKey(cluster.URL))
    ready.run()
    ready.clock.advance(seconds=20)
    ready.run()
    assert ready.token() == ready.squidex.granted[2]


def test_where_the_old_token_is_refused_too_a_quarter_of_an_hour_of_lists_is_proof_enough(ready: World) -> None:
    squidex, key = ready.squidex, inventory.Key(NS, "shop")
    disagreement.doubt(ready.tools, ready.inventory.records[key])
    squidex.after["token"] = [lambda: squidex.refused.add(squidex.granted[-1])]
    squidex.refused.add(ready.token())
    ready.clock.advance(hours=1)
    ready.queue.wake(key)
    ready.run()
    assert len(squidex.granted) == 2
    squidex.key = "key-2"
    for minute in range(25):
        assert len(squidex.granted) == 2 or minute >= 8
        ready.clock.advance(minutes=1)
        ready.run()
    assert ready.token() == squidex.granted[2]


def test_where_all_new_tokens_are_refused_and_no_key_is_published_the_lists_are_proof_once(ready: World) -> None:
    squidex, key = ready.squidex, inventory.Key(NS, "shop")
    disagreement.doubt(ready.tools, ready.inventory.records[key])
    squidex.after["token"] = [lambda: squidex.refused.add(squidex.granted[-1])] * 99
    squidex.refused.add(ready.token())
    squidex.published = ["another"]
    for _ in range(24 * 12):
        ready.clock.advance(minutes=5)
        ready.run()
    assert 20 <= len(squidex.granted) <= 48  # two an hour, at most


def test_a_key_that_is_replaced_during_a_doubt_is_believed_after_a_quarter_of_an_hour(ready: World) -> None:
    for _ in range(4):
        disagreement.doubt(ready.tools, ready.inventory.records[inventory.Key(NS, "shop")])  # half an hour to wait
    ready.squidex.key = "key-2"
    ready.squidex.refused.add(ready.token())
    for _ in range(16):
        ready.clock.advance(minutes=1)
        ready.run()
    assert len(ready.squidex.granted) == 2
    assert ready.token() == ready.squidex.granted[1]


def test_one_refused_token_makes_the_keys_be_asked_for(ready: World) -> None:
    ready.squidex.refused.add(ready.token())
    ready.clock.advance(hours=2)
    ready.queue.wake(inventory.Key(NS, "shop"))
    ready.run()
    assert ready.squidex.count("keys") >= 1
    assert ready.token() == ready.squidex.granted[1]


def test_a_replaced_key_renews_every_token_of_the_server(world: World) -> None:
    for name in ("one", "two", "three"):
        world.put_client(name, target={"name": f"{name}-token"})
    world.run()
    world.squidex.key = "key-2"
    world.clock.advance(minutes=6)
    world.run()
    world.run()
    assert len(world.squidex.granted) == 6
    for name in ("one", "two", "three"):
        assert world.status(name)["keyID"] == "key-2"
        assert world.status(name)["lastRefreshReason"] == reasons.Cause.KEY_REPLACED


def test_replicas_that_disagree_do_not_make_a_flood(world: World) -> None:
    world.put_client(probe={"mode": "Off"})
    world.run()
    world.squidex.published = ["another"]  # and yet it signs with key-1
    for _ in range(60):
        world.clock.advance(minutes=1)
        world.run()
    assert len(world.squidex.granted) <= 8


def test_a_list_of_keys_that_is_cached_costs_one_token_and_is_told(world: World) -> None:
    world.put_client()
    world.run()
    world.squidex.published = ["key-1"]  # for a day, whatever it signs with
    world.squidex.key = "key-2"
    world.squidex.refused.add(world.token())
    for _ in range(24 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert len(world.squidex.granted) == 2
    assert world.condition("TokenAccepted") == ("Unknown", "KeysDisagree")
    assert world.condition("Ready") == ("True", "TokenValid")
    world.squidex.published = None
    for _ in range(3 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert world.condition("TokenAccepted") == ("True", "Accepted")
    # A key that is really replaced is answered as ever.
    world.squidex.key = "key-3"
    world.clock.advance(minutes=6)
    world.run()
    world.run()
    assert len(world.squidex.granted) == 3
    assert world.status("shop")["keyID"] == "key-3"


def test_where_the_keys_do_not_fit_and_nothing_can_be_asked_a_token_is_fetched_now_and_then(world: World) -> None:
    world.put_client()
    world.run()
    world.squidex.published = ["another"]
    world.squidex.probe_status = 503
    for _ in range(4 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert 4 <= len(world.squidex.granted) <= 12
