"""Odd lifetimes, for a day: what is done with each (docs/guides/lifetimes.md), and that none of them is a hot loop."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from tests.simulation import lab, standin, virtual
from tests.simulation.virtual import DAY, HOUR, MINUTE

pytestmark = pytest.mark.usefixtures("seldom")

BURST = 10
"""Token requests of one SquidexClient at once; then one a minute."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What the server is made to say, and how many token requests that is in a day."""

    patch: dict[str, Any]
    day: range
    spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: str = ""
    """Why there is no token."""


ONCE = range(1, 2)
HOURLY = range(34, 40)
"""Tokens that live for an hour, renewed after about 40 minutes."""
ONE_A_MINUTE = range(1000, 1440 + BURST + 1)


def _says(**members: Any) -> dict[str, Any]:
    return {"faults": [{"kind": "json", "on": "token", "set": members}]}


def _token(**details: Any) -> dict[str, Any]:
    return {"faults": [{"kind": "token", **details}]}


def _opaque(**members: Any) -> dict[str, Any]:
    # The stand-in accepts none, and is not asked.
    return _says(access_token="opaque", **members)


UNASKED = {"probe": {"mode": "Off"}}
CASES = {
    "no expires_in": Case({"faults": [{"kind": "json", "on": "token", "remove": ["expires_in"]}]}, ONCE),
    "a negative expires_in": Case(_says(expires_in=-5), ONCE),
    "an expires_in of nothing": Case(_says(expires_in=0), ONCE),
    "a huge expires_in": Case(_says(expires_in=10**30), ONCE),
    "expires_in as a text": Case(_says(expires_in="3600"), HOURLY),
    "expires_in as a word": Case(_says(expires_in="soon"), ONCE),
    "expires_in of an hour, exp of a month": Case(_says(expires_in=3600), HOURLY),
    "exp of an hour, expires_in of a month": Case(_token(expIn=3600), HOURLY),
    "a JWT without exp": Case(_token(claims={"exp": None}), ONCE),
    "a JWT whose exp is a word": Case(_token(claims={"exp": "soon"}), ONCE, UNASKED),
    "a JWT that is dead on arrival": Case(_token(expIn=-60), range(30, 50), refused="InvalidResponse"),
    "an opaque token for an hour": Case(_opaque(expires_in=3600), HOURLY, UNASKED),
    "an opaque token that says nothing": Case(_opaque(expires_in=None), HOURLY, UNASKED),
    "an opaque token that is dead": Case(_opaque(expires_in=0), range(30, 50), UNASKED, "InvalidResponse"),
    "a lifetime of a second": Case({"lifetime": 1}, ONE_A_MINUTE),
    "a lifetime of half a minute": Case({"lifetime": 30}, ONE_A_MINUTE),
    "a lifetime of ten minutes": Case({"lifetime": 600}, range(200, 250)),
    "renewBefore is longer than the lifetime": Case({"lifetime": 3600}, HOURLY, {"refresh": {"renewBefore": "720h"}}),
    "renewBefore is the lifetime": Case({"lifetime": 3600}, HOURLY, {"refresh": {"renewBefore": "1h"}}),
    "renewBefore is almost the lifetime": Case(
        {"lifetime": 3600}, range(200, 300), {"refresh": {"renewBefore": "53m"}}
    ),
    "renewBefore is a second": Case({"lifetime": 3600}, range(25, 28), {"refresh": {"renewBefore": "1s"}}),
    "a server five hours ahead": Case({"clockOffset": 18000, "lifetime": 3600}, HOURLY),
    "a server five hours behind": Case({"clockOffset": -18000, "lifetime": 3600}, HOURLY),
    "a server a year ahead": Case({"clockOffset": 365 * 86400.0, "lifetime": 3600}, HOURLY),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_a_day_of(case: Case) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM, make=standin.StandIn) as world:
            server = world.first
            assert isinstance(server, standin.StandIn)
            server.patch(case.patch)
            began = virtual.now()
            world.create("app", server, **case.spec)
            await asyncio.sleep(DAY)
            assert lab.count(server, "token", began, began + DAY) in case.day
            assert lab.count(server, "token", began, began + HOUR) <= BURST + 60
            assert lab.count(server, "probe", began, began + DAY) <= 26 + case.day.stop
            assert world.condition("app", "RefreshFailing")[1] == (case.refused or "Refreshed")
            assert bool(world.token("app")) is not bool(case.refused)

    virtual.run(run())


def test_a_server_that_shortens_the_lifetime_is_followed_from_the_next_token_on() -> None:
    async def run() -> None:
        async with lab.running(lab.CALM, make=standin.StandIn) as world:
            server = world.first
            assert isinstance(server, standin.StandIn)
            world.create("app", server)
            await world.until_works("app", server, 5)
            server.patch({"lifetime": 1800})
            await asyncio.sleep(DAY)
            assert lab.count(server, "token", 0, DAY) == 1
            world.pass_time(20 * DAY)
            await asyncio.sleep(15 * MINUTE)
            began = virtual.now()
            for _ in range(24 * 60):
                await asyncio.sleep(MINUTE)
                assert world.works("app", server)
            assert lab.count(server, "token", began, began + DAY) in range(70, 80)

    virtual.run(run())
