"""Renewal in time, and tokens that die early. With a stand-in of its own, whose tokens live for seconds."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from sandbox.standin import Squidex
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

LIFETIME = 9
"""Seconds: short enough to see renewals, long enough for a loaded machine to make them in time."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def short(sandbox: Sandbox) -> Squidex:
    """A stand-in whose tokens live for seconds."""
    squidex = Squidex(sandbox.home, name="short", extra_args=[f"--lifetime={LIFETIME}"])
    squidex.start()
    return squidex


@pytest.fixture
def world(sandbox: Sandbox, short: Squidex, operator: Operator) -> Iterator[World]:
    """A namespace whose client is known to that stand-in."""
    made = World(sandbox, short, f"renewal{next(_numbers)}")
    made.set_up()
    yield made
    short.patch({"faults": [], "lifetime": LIFETIME, "replicas": ["first"], "clockOffset": 0})
    made.tear_down()


def test_a_token_is_renewed_before_it_expires_and_no_consumer_sees_a_dead_one(world: World) -> None:
    world.ready()
    seen = [world.token()]
    answers = set()
    end = time.monotonic() + 3 * LIFETIME
    while len(seen) < 4 and time.monotonic() < end:
        token = world.token()
        answers.add(world.accepts(token))
        if token != seen[-1]:
            seen.append(token)
    assert answers == {200}
    assert len(seen) == 4
    assert world.token_requests() == pytest.approx(4, abs=1)
    world.wait(lambda: world.get("sqc", "shop")["status"]["lastRefreshReason"] == "Expiring", "the reason")


def test_a_shorter_lifetime_at_the_next_token_is_taken_up(world: World) -> None:
    world.ready()
    world.squidex.patch({"lifetime": 6})
    old = world.token()
    new = world.new_token(old)
    world.new_token(new)
    assert world.token_requests() <= 5


def test_renewal_goes_on_when_the_clock_of_the_server_is_hours_off(world: World) -> None:
    world.squidex.patch({"clockOffset": -7200})
    world.ready()
    world.new_token(world.token())
    world.squidex.patch({"clockOffset": 0})


def test_a_replaced_key_renews_the_tokens_of_all_clients_once(world: World) -> None:
    world.squidex.patch({"lifetime": 3600})
    for number in range(5):
        world.create(f"c{number}")
    for number in range(5):
        world.wait_ready(f"c{number}")
    old = {number: world.token(f"c{number}") for number in range(5)}
    assert world.token_requests() == 5
    world.squidex.patch({"key": "replace"})
    for number in range(5):
        world.new_token(old[number], f"c{number}")
    assert world.token_requests() == 10
    world.wait(lambda: world.get("sqc", "c0")["status"]["lastRefreshReason"] == "KeyReplaced", "the reason")


def test_an_outage_longer_than_a_lifetime_ends_with_a_token_within_one_backoff_step(world: World) -> None:
    world.ready()
    world.squidex.patch({"faults": [{"on": "token", "client": world.client_id, "kind": "status", "status": 503}]})
    world.wait_condition("RefreshFailing", "True", "ServerError")
    world.wait_condition("Ready", "False", "TokenExpired")
    world.squidex.patch({"faults": []})
    # Within one step of the backoff, which has grown to less than a minute.
    found = world.wait_ready(deadline=90)
    assert found["status"]["failures"] == 0
    assert world.accepts(world.token()) == 200
