"""Every switch of the stand-in Squidex in every phase: what the status says, what it costs, and how it ends.

On virtual time, with the stand-in's own answers. Faults in the way of an answer are in test_fault_table.py, a few here as well,
so that the two do not drift apart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from typing import Any

import pytest

from sandbox.squidex import faults, switches
from tests.simulation import lab, process, standin, virtual
from tests.simulation.virtual import DAY, HOUR, MINUTE

pytestmark = pytest.mark.usefixtures("seldom")

# In three phases nobody asks for the keys, in the fourth nobody asks about the token: each is seen alone.
PROBES = process.Settings(keys_interval=dt.timedelta(hours=48), relist_interval=dt.timedelta(hours=12))
KEYS = dataclasses.replace(PROBES, keys_interval=dt.timedelta(minutes=5))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is to be seen after a day, and what it cost."""

    failing: str = "Refreshed"
    """Reason of `RefreshFailing`; where there is no token yet, of `Ready` as well."""
    accepted: str = "Accepted"
    """Reason of `TokenAccepted`."""
    hour: range = range(1, 2)
    """Token requests in the first hour."""
    day: range = range(1, 2)
    recovery: float = 5.0
    """Seconds after the switch is turned back until there is a token that works."""

    def unseen(self) -> Outcome:
        """The same where nobody asks about the token."""
        return self if self.accepted == "KeysDisagree" else dataclasses.replace(self, accepted="ProbeOff")


NONE = range(1)
WORKS = Outcome()
"""A token is fetched, and all is well."""
STAYS = Outcome(hour=NONE, day=NONE)
"""Nothing is seen, and nothing happens."""
UNCLEAR = dataclasses.replace(STAYS, accepted="ProbeInconclusive")
HIDDEN = Outcome(accepted="AppNotFound")
DAYS_OF_TEN_MINUTES = Outcome(hour=range(8, 11), day=range(200, 250))
MOVED = Outcome(recovery=HOUR + 5)
"""When the server moves back, the token is of the other one."""


def _refused(reason: str, accepted: str = "Accepted") -> Outcome:
    return Outcome(reason, accepted, hour=range(1, 2), day=range(4, 7), recovery=5 * HOUR + 5)


def _unclear(reason: str, accepted: str = "ProbeInconclusive") -> Outcome:
    return Outcome(reason, accepted, hour=range(6, 13), day=range(30, 50), recovery=HOUR + 5)


def _passing(reason: str) -> Outcome:
    return Outcome(reason, "ProbeInconclusive", hour=range(8, 25), day=range(140, 300), recovery=10 * MINUTE + 5)


DOUBLE = Outcome(accepted="KeysDisagree", hour=range(9), day=range(10, 49), recovery=HOUR + 5)
WORTHLESS_FIRST = Outcome("NewTokenRefused", hour=range(3, 14), day=range(140, 289), recovery=10 * MINUTE + 5)
"""Where there is no token at all, another is fetched at each step of the backoff."""
WORTHLESS = Outcome("NewTokenRefused", hour=range(1, 4), day=range(10, 30), recovery=HOUR + MINUTE)


@dataclasses.dataclass(frozen=True)
class Case:
    """A patch of the stand-in's state, and what follows in each phase."""

    on: dict[str, Any]
    off: dict[str, Any]
    renewal: Outcome
    """When a token is due. Without one yet it is the same, but for what the old token has in it."""
    probe: Outcome
    """When the token is asked about."""
    keys: Outcome = STAYS
    """When the keys are asked for."""
    first: Outcome | None = None
    """When there is no token yet, where that is not as with a renewal."""


def _fault(kind: str, renewal: Outcome, probe: Outcome, first: Outcome | None = None, **details: Any) -> Case:
    return Case({"faults": [{"kind": kind, **details}]}, {"faults": []}, renewal, probe, first=first)


CLIENT = {"clients": {"app:ci": "s3cr3t"}}
CASES = {
    "key: replaced": Case({"key": "replace"}, {}, WORKS, WORKS, WORKS),
    "replicas: two keys": Case({"replicas": ["first", "second"]}, {"replicas": ["second"]}, DOUBLE, DOUBLE, DOUBLE),
    "replicas: two with one key": Case({"replicas": ["first", "first"]}, {}, WORKS, STAYS),
    "issuer: another": Case({"issuer": "https://moved.example.com/"}, {"issuer": None}, MOVED, MOVED),
    "lifetime: ten minutes": Case({"lifetime": 600}, {"lifetime": 2592000}, DAYS_OF_TEN_MINUTES, STAYS),
    "clockOffset: two hours ahead": Case({"clockOffset": 7200}, {"clockOffset": 0}, WORKS, STAYS),
    "clockOffset: two hours behind": Case({"clockOffset": -7200}, {"clockOffset": 0}, WORKS, STAYS),
    "clients: deleted": Case(
        {"clients": {"app:ci": None}},
        CLIENT,
        _refused("InvalidClient", "AppNotFound"),
        dataclasses.replace(STAYS, accepted="AppNotFound"),
    ),
    "clients: made anew with another secret": Case(
        {"clients": {"app:ci": "an0ther"}}, CLIENT, _refused("InvalidClient"), STAYS
    ),
    "clients: made anew without a secret": Case(
        {"clients": {"app:ci": {"public": True}}}, CLIENT, _refused("UnauthorizedClient"), STAYS
    ),
    "roles: one that may do nothing": Case(
        {"roles": {"app:ci": ""}},
        {"roles": {"app:ci": None}},
        HIDDEN,
        dataclasses.replace(STAYS, accepted="AppNotFound"),
    ),
    "roles: Reader": Case({"roles": {"app:ci": "Reader"}}, {}, WORKS, STAYS),
    "apps: deleted": Case(
        {"apps": {"app": {"deleted": True}}},
        {"apps": {"app": {"deleted": False}}},
        _refused("InvalidClient", "AppNotFound"),
        dataclasses.replace(STAYS, accepted="AppNotFound"),
    ),
    "apps: with an anonymous client": Case({"apps": {"app": {"anonymous": "Reader"}}}, {}, WORKS, STAYS),
    "basePath: another": Case({"basePath": "/cms"}, {"basePath": ""}, _unclear("NotSquidex"), UNCLEAR),
    "basePath and webPage": Case(
        {"basePath": "/cms", "webPage": True}, {"basePath": "", "webPage": False}, _unclear("NotSquidex"), UNCLEAR
    ),
    "webPage: on": Case({"webPage": True}, {}, WORKS, STAYS),
    "identityServer4: on": Case({"identityServer4": True}, {}, WORKS, STAYS),
    "identityServer4: a client that is deleted": Case(
        {"identityServer4": True, "clients": {"app:ci": None}},
        CLIENT,
        _refused("InvalidClient", "AppNotFound"),
        dataclasses.replace(STAYS, accepted="AppNotFound"),
    ),
    "counts: reset": Case({"counts": None}, {}, WORKS, STAYS),
    "faults: status": _fault("status", _passing("ServerError"), UNCLEAR, status=503),
    "faults: html": _fault("html", _unclear("NotSquidex"), UNCLEAR),
    "faults: redirect": _fault("redirect", _unclear("Redirected"), UNCLEAR),
    "faults: oauth": _fault("oauth", _refused("InvalidScope"), STAYS, on="token", error="invalid_scope"),
    "faults: json": _fault(
        "json", _unclear("InvalidResponse", "Accepted"), STAYS, set={"access_token": 7, "keys": "x"}
    ),
    "faults: token, another key": _fault("token", WORTHLESS, STAYS, WORTHLESS_FIRST, key="odd"),
    "faults: token, none that can be read": _fault("token", WORTHLESS, STAYS, WORTHLESS_FIRST, opaque=True),
    "faults: slow, but in time": _fault("slow", WORKS, STAYS, seconds=10),
    "faults: slow": _fault("slow", _passing("Timeout"), UNCLEAR, seconds=20),
    "faults: drip": _fault("drip", _passing("Timeout"), UNCLEAR, seconds=1),
    "faults: hang": _fault("hang", _passing("Timeout"), UNCLEAR),
    "faults: reset": _fault("reset", _passing("Unreachable"), UNCLEAR),
    "faults: truncate": _fault("truncate", _passing("Unreachable"), UNCLEAR),
    "faults: huge": _fault("huge", _unclear("NotSquidex"), UNCLEAR),
}


def test_every_switch_and_every_kind_of_fault_is_here() -> None:
    assert {name for case in CASES.values() for name in case.on} == set(switches.SWITCHES)
    assert {fault["kind"] for case in CASES.values() for fault in case.on.get("faults", ())} == set(faults.KINDS)


_each = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


@_each
def test_first_fetch(case: Case) -> None:
    outcome = case.first or case.renewal

    async def run() -> None:
        async with lab.running(PROBES, make=standin.StandIn) as world:
            server = _server(world)
            server.patch(CLIENT)
            server.patch(case.on)
            began = virtual.now()
            world.create("app", server, known=False)
            await asyncio.sleep(DAY)
            if outcome.failing == "Refreshed":
                _tells(world, outcome)
            else:
                assert world.condition("app", "Ready") == ("False", outcome.failing)
                assert world.condition("app", "RefreshFailing") == ("True", outcome.failing)
                assert world.condition("app", "TokenAccepted") == ("Unknown", "TokenMissing")
            await _costs(world, server, case, outcome, began)

    virtual.run(run())


@_each
def test_renewal(case: Case) -> None:
    async def run() -> None:
        async with lab.running(PROBES, make=standin.StandIn) as world:
            server = await _ready(world)
            old, began = world.token("app"), virtual.now()
            server.patch(case.on)
            world.pass_time(20.5 * DAY)
            await asyncio.sleep(DAY)
            _tells(world, case.renewal, old)
            # The clock is looked at every 15 minutes here.
            began = next(at for at, name, _, _ in server.requests if name == "token" and at >= began)
            await _costs(world, server, case, case.renewal, began)

    virtual.run(run())


@_each
@pytest.mark.parametrize("phase", ["probe", "keys"])
def test_while_a_token_is_looked_after(phase: str, case: Case) -> None:
    outcome = case.probe if phase == "probe" else case.keys.unseen()

    async def run() -> None:
        async with lab.running(PROBES if phase == "probe" else KEYS, make=standin.StandIn) as world:
            server = await _ready(world, **({} if phase == "probe" else {"probe": {"mode": "Off"}}))
            old, began = world.token("app"), virtual.now()
            server.patch(case.on)
            await asyncio.sleep(DAY)
            _tells(world, outcome, old)
            await _costs(world, server, case, dataclasses.replace(outcome, hour=range(9)), began)

    virtual.run(run())


async def _ready(world: lab.Lab, **spec: Any) -> standin.StandIn:
    server = _server(world)
    world.create("app", server, **spec)
    await world.until_works("app", server, 5)
    await asyncio.sleep(30 * MINUTE)
    return server


def _tells(world: lab.Lab, outcome: Outcome, old: str = "") -> None:
    """What there is to be seen of a token."""
    failing, accepted = (world.condition("app", kind)[1] for kind in ("RefreshFailing", "TokenAccepted"))
    if outcome is DOUBLE:
        # Which of the replicas was asked last is chance.
        assert {failing, accepted} & {"KeysDisagree", "TokenRefused", "NewTokenRefused"}
        return
    assert (failing, accepted) == (outcome.failing, outcome.accepted)
    assert world.condition("app", "Ready") == ("True", "TokenValid")
    if outcome.failing != "Refreshed" or outcome.day == NONE:
        assert world.token("app") == old


async def _costs(world: lab.Lab, server: standin.StandIn, case: Case, outcome: Outcome, began: float) -> None:
    """In the first hour and the first day; and what the end costs."""
    assert lab.count(server, "token", began, began + HOUR) in outcome.hour
    assert lab.count(server, "token", began, began + DAY) in outcome.day
    assert lab.is_backed_off(server, began + HOUR)
    server.patch(case.off)
    await world.until_works("app", server, outcome.recovery)


def _server(world: lab.Lab) -> standin.StandIn:
    assert isinstance(world.first, standin.StandIn)
    return world.first
