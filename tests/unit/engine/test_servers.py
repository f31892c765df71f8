"""The signing keys of each server."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

import pytest

from squidex_operator.engine import inventory, servers
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

URL = cluster.URL


@pytest.fixture
def world() -> World:
    """Three tokens of one key; the second one expires first."""
    world = cluster.World()
    for name, lifetime in (("one", 30), ("two", 10), ("three", 20)):
        world.squidex.lifetime = lifetime * 24 * 3600
        world.put_client(name)
        world.run()
    world.clock.advance(minutes=1)
    return world


def check(world: World, ids: set[str] | None) -> tuple[list[str], bool]:
    async def fetch(_url: str) -> frozenset[str] | None:
        return None if ids is None else frozenset(ids)

    keys, told = asyncio.run(world.tools.servers.check(URL, world.clock.now(), fetch))
    return [key.name for key in keys], told


def test_while_the_key_is_published_nothing_is_due(world: World) -> None:
    assert check(world, {"key-1"}) == ([], True)
    assert check(world, {"key-1", "key-2"}) == ([], True)


def test_when_the_key_has_vanished_all_are_due_and_the_one_that_expires_first_is_first(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert check(world, {"key-2"}) == (["two", "three", "one"], True)
    assert check(world, {"key-2"}) == (["two", "three", "one"], True)
    assert caplog.text.count("signing keys replaced") == 1
    assert "tokens=3" in caplog.text


def test_hundreds_of_keys_make_no_log_line_of_kilobytes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert check(world, {f"key-{number}" for number in range(2, 500)})[0] == ["two", "three", "one"]
    line = next(row for row in caplog.messages if "signing keys replaced" in row)
    assert "… (498)" in line
    assert len(line) < 250


def test_an_answer_that_does_not_say_changes_nothing(world: World) -> None:
    check(world, {"key-1"})
    assert check(world, None) == ([], False)
    assert world.tools.servers.publishes(URL, "key-1") is True
    assert world.tools.servers.publishes(URL, "key-2") is False
    assert world.tools.servers.publishes("https://other.test", "key-1") is None


def test_what_was_published_before_a_token_was_issued_says_nothing_about_it(world: World) -> None:
    check(world, {"key-0"})
    key = inventory.Key(cluster.NAMESPACE, "one")
    record, seen = world.inventory.records[key], world.inventory.targets[key]
    assert world.tools.servers.key_vanished(record, seen, world.clock.now())
    world.clock.advance(days=21)
    world.run()
    seen = world.inventory.targets[key]
    assert seen.issued_at is not None
    assert seen.issued_at > cluster.START + dt.timedelta(days=15)
    assert not servers.Servers(world.inventory, interval=dt.timedelta(minutes=5)).key_vanished(
        record, seen, world.clock.now()
    )


def test_a_token_that_was_issued_before_the_clock_was_set_back_is_held_against_what_is_published_since(
    world: World,
) -> None:
    key = inventory.Key(cluster.NAMESPACE, "one")
    record, seen = world.inventory.records[key], world.inventory.targets[key]
    world.clock.advance(hours=-2)
    world.tools.servers.clock_set_back()
    assert not world.tools.servers.key_vanished(record, seen, world.clock.now())
    check(world, {"key-2"})
    assert world.tools.servers.key_vanished(record, seen, world.clock.now())


def test_only_three_periods_without_a_key_are_sure_to_be_no_other_replicas(world: World) -> None:
    key = inventory.Key(cluster.NAMESPACE, "one")
    issued_at = world.inventory.targets[key].issued_at
    assert issued_at is not None

    def sure() -> bool:
        return world.tools.servers.has_surely_replaced(URL, "key-1", issued_at, world.clock.now())

    for ids, is_sure in (
        ({"key-2"}, False),
        ({"key-2"}, False),
        ({"key-1"}, False),
        ({"key-2"}, False),
        ({"key-3"}, False),
        (None, False),
        ({"key-2"}, True),
    ):
        check(world, ids)
        assert sure() is is_sure
        world.clock.advance(minutes=5)
    # However many lists come in a period, they count as one; and one with the key is enough.
    for seconds in range(0, 8 * 60, 10):
        check(world, {"key-1"} if seconds == 10 else {"key-2"})
        assert sure() is (seconds == 0)
        world.clock.advance(seconds=10)
    check(world, {"key-2"})
    world.clock.advance(minutes=4)
    check(world, {"key-2"})
    world.clock.advance(minutes=4)
    assert sure()
    # A token that was issued in between is held against what came after it.
    assert not world.tools.servers.has_surely_replaced(
        URL, "key-1", world.clock.now() - dt.timedelta(minutes=12), world.clock.now()
    )
    world.tools.servers.clock_set_back()
    assert not sure()


def test_a_token_without_a_key_id_has_no_key_that_could_vanish(world: World) -> None:
    import dataclasses

    check(world, {"key-2"})
    key = inventory.Key(cluster.NAMESPACE, "one")
    record, seen = world.inventory.records[key], world.inventory.targets[key]
    for odd in (dataclasses.replace(seen, key_id=""), dataclasses.replace(seen, issued_at=None)):
        assert not world.tools.servers.key_vanished(record, odd, world.clock.now())


def test_a_key_that_signs_but_is_not_published_is_waited_for(world: World) -> None:
    check(world, {"key-2"})
    record = world.inventory.records[inventory.Key(cluster.NAMESPACE, "two")]
    record.key_retry_at = world.clock.now() + dt.timedelta(minutes=10)
    assert check(world, {"key-2"})[0] == ["three", "one"]
    world.clock.advance(minutes=10)
    assert check(world, {"key-2"})[0] == ["two", "three", "one"]


def test_a_squidexclient_without_a_secret_is_not_due(world: World) -> None:
    world.put_client("new")
    assert "new" not in check(world, {"key-2"})[0]


def test_a_server_is_watched_once_and_for_as_long_as_somebody_uses_it(world: World) -> None:
    s = world.tools.servers
    assert not s.begin(URL)  # the reconciles have begun it
    assert s.begin("https://other.test")
    assert s.next_check("https://other.test", world.clock.now()) is None
    assert s.begin("https://other.test")
    at = s.next_check(URL, world.clock.now())
    assert at is not None
    assert dt.timedelta(minutes=4.5) <= at - world.clock.now() <= dt.timedelta(minutes=5)
    check(world, {"key-1"})
    for name in ("one", "two", "three"):
        world.delete_client(name)
    assert s.next_check(URL, world.clock.now()) is None
    assert s.publishes(URL, "key-1") is None
    assert s._known == {"https://other.test"}


def test_the_first_check_is_soon_and_not_at_once_for_all() -> None:
    s = servers.Servers(inventory.Inventory(), interval=dt.timedelta(minutes=5))
    waits = {s.first_check(f"https://{n}.test", cluster.START) - cluster.START for n in range(20)}
    assert len(waits) == 20
    assert max(waits) <= dt.timedelta(seconds=30)
