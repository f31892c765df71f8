"""Every kind of fault in every phase: what the status says, that the old token stays, how often is asked, how it recovers.

On virtual time and the model of Squidex; tests/faults/test_*.py have the same on real connections, for a few of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.simulation import faults, lab, virtual
from tests.simulation.virtual import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from tests.simulation import squidex

pytestmark = pytest.mark.usefixtures("seldom")


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often is asked in the first hour and in the first day, and how long after the fault all is well again."""

    hour: range
    day: range
    recovery: float


TRANSIENT = Pace(range(8, 25), range(140, 300), 10 * MINUTE)
UNKNOWN = Pace(range(6, 13), range(30, 50), 60 * MINUTE)
PERMANENT = Pace(range(1, 2), range(4, 7), 5 * HOUR)


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault, and what it looks like from outside."""

    fault: faults.Fault
    reason: str
    pace: Pace
    accepted: tuple[str, str] = ("Unknown", "ProbeInconclusive")
    """`TokenAccepted` where probes meet the fault."""
    first: Pace | None = None
    """Where there is no token yet, if that is not as with a renewal."""


LATER = Pace(range(2, 8), range(50, 145), 20 * MINUTE)

CASES = {
    "HTTP 500 with a web page": Case(faults.html(500), "ServerError", TRANSIENT),
    "HTTP 503": Case(faults.status(503), "ServerError", TRANSIENT),
    "a web page": Case(faults.html(200), "NotSquidex", UNKNOWN),
    "HTTP 502 with a web page": Case(faults.html(502), "ServerError", TRANSIENT),
    "a redirect": Case(faults.redirect(), "Redirected", UNKNOWN),
    "connection reset": Case(faults.reset(), "Unreachable", TRANSIENT),
    "connection refused": Case(faults.unreachable(), "Unreachable", TRANSIENT),
    "no answer": Case(faults.hang(), "Timeout", TRANSIENT),
    "an answer cut short": Case(faults.truncated(), "Unreachable", TRANSIENT),
    "an answer without an end": Case(faults.huge(), "NotSquidex", UNKNOWN),
    "wrong JSON types": Case(faults.wrong_types(), "InvalidResponse", UNKNOWN, ("True", "Accepted")),
    "HTTP 429": Case(faults.rate_limit(), "RateLimited", TRANSIENT),
    "HTTP 429 for ten minutes": Case(faults.rate_limit("600"), "RateLimited", LATER),
    "HTTP 429 until a date": Case(faults.rate_limit(600.0), "RateLimited", LATER),
    "HTTP 403 of a proxy": Case(faults.html(403), "Forbidden", UNKNOWN),
    "HTTP 404": Case(faults.status(404), "NotSquidex", UNKNOWN),
}
"""Faults of the whole server."""

REFUSALS = {
    "invalid_client": Case(faults.oauth(401, "invalid_client", "Wrong."), "InvalidClient", PERMANENT),
    "invalid_client of IdentityServer4": Case(faults.oauth(400, "invalid_client"), "InvalidClient", PERMANENT),
    "invalid_scope": Case(faults.oauth(400, "invalid_scope", "Wrong."), "InvalidScope", PERMANENT),
    "unauthorized_client": Case(faults.oauth(400, "unauthorized_client", "No."), "UnauthorizedClient", PERMANENT),
}
"""Answers of the token endpoint alone."""

# Mostly the token that is there already is asked about again; where there is none, another is fetched.
REFUSED = Case(
    faults.header_dropped(),
    "NewTokenRefused",
    Pace(range(1, 4), range(10, 30), 10 * MINUTE),
    first=Pace(range(3, 14), range(140, 289), 10 * MINUTE),
)
REFUSALS["a new token that is refused"] = REFUSED

TOKEN_CASES = {**CASES, **REFUSALS}


def _each(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in cases.items()])


def _begin(server: squidex.Server, fault: faults.Fault, endpoint: str) -> float:
    server.faults = [fault.at(*(fault.on & {endpoint}) or fault.on)]
    return virtual.now()


@_each(TOKEN_CASES)
def test_first_fetch(case: Case) -> None:
    pace = case.first or case.pace

    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server = world.first
            began = _begin(server, case.fault, "token")
            world.create("app", server)
            await asyncio.sleep(began + HOUR - virtual.now())
            assert world.condition("app", "Ready") == ("False", case.reason)
            assert world.condition("app", "RefreshFailing") == ("True", case.reason)
            assert world.token("app") == ""
            assert _asked(server, began, HOUR) in pace.hour
            await asyncio.sleep(began + DAY - virtual.now())
            assert _asked(server, began, DAY) in pace.day
            assert lab.is_backed_off(server, began + HOUR)
            server.faults = []
            await world.until_works("app", server, pace.recovery + 5)
            assert world.condition("app", "Ready") == ("True", "TokenValid")

    virtual.run(run())


@_each(TOKEN_CASES)
def test_renewal(case: Case) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server = world.first
            world.create("app", server)
            await world.until_works("app", server, 5)
            old = world.token("app")
            began = _begin(server, case.fault, "token")
            world.pass_time(20.5 * DAY)
            await asyncio.sleep(15 * MINUTE)
            assert world.condition("app", "RefreshFailing") == ("True", case.reason)
            await asyncio.sleep(began + DAY - virtual.now())
            accepted = case is not REFUSED
            assert world.condition("app", "Ready") == (
                ("True", "TokenValid") if accepted else ("False", "TokenRefused")
            )
            assert world.token("app") == old
            # The clock is looked at every 15 minutes here.
            first = next(at for at, name, _, _ in server.requests if name == "token" and at >= began)
            assert _asked(server, first, HOUR) in case.pace.hour
            assert _asked(server, first, DAY) in case.pace.day
            assert lab.is_backed_off(server, first + HOUR)
            server.faults = []
            await world.until_works("app", server, case.pace.recovery + 5)
            assert world.token("app") != old
            assert world.writes("app") == 2

    virtual.run(run())


@_each(CASES)
def test_probe(case: Case) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server = world.first
            world.create("app", server)
            await world.until_works("app", server, 5)
            old, requested = world.token("app"), _asked(server, 0, HOUR)
            began = _begin(server, case.fault, "probe")
            await asyncio.sleep(DAY)
            assert world.condition("app", "Ready") == ("True", "TokenValid")
            assert world.condition("app", "TokenAccepted") == case.accepted
            assert world.condition("app", "RefreshFailing") == ("False", "Refreshed")
            assert lab.count(server, "probe", began, began + DAY) in range(22, 28)
            server.faults = []
            await asyncio.sleep(HOUR + MINUTE)
            assert world.condition("app", "TokenAccepted") == ("True", "Accepted")
            assert world.token("app") == old
            assert _asked(server, 0, 2 * DAY) == requested == 1

    virtual.run(run())


@_each(CASES)
def test_keys(case: Case) -> None:
    async def run() -> None:
        async with lab.running() as world:
            server = world.first
            world.create("app", server)
            await world.until_works("app", server, 5)
            await asyncio.sleep(10 * MINUTE)
            old, writes = world.token("app"), len(world.process.gateway.writes)
            began = _begin(server, case.fault, "jwks")
            await asyncio.sleep(3 * HOUR)
            assert lab.count(server, "jwks", began, began + 3 * HOUR) in range(34, 42)
            assert (world.token("app"), len(world.process.gateway.writes)) == (old, writes)
            assert _asked(server, 0, DAY) == 1
            server.replace_key()
            await asyncio.sleep(10 * MINUTE)
            server.faults = []
            await world.until_works("app", server, 5 * MINUTE + 5)
            assert _asked(server, 0, DAY) == 2

    virtual.run(run())


@pytest.mark.parametrize("change", ["credentials", "spec"])
@_each(TOKEN_CASES)
def test_a_change_ends_the_wait_at_once(case: Case, change: str) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server = world.first
            _begin(server, case.fault, "token")
            world.create("app", server)
            await asyncio.sleep(6 * HOUR)
            assert world.condition("app", "RefreshFailing") == ("True", case.reason)
            server.faults = []
            if change == "credentials":
                server.secrets["app:ci"] = "an0ther"
                world.credentials("app", "an0ther")
            else:
                world.edit("app", probe={"mode": "Languages"})
            # What the server itself asked for is kept to: it asked all.
            await world.until_works("app", server, 10 * MINUTE if case.pace is LATER else 5)

    virtual.run(run())


def _asked(server: squidex.Server, since: float, seconds: float) -> int:
    return lab.count(server, "token", since, since + seconds)
