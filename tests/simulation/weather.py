"""What happens outside by itself: outages of servers and of the API server, replaced keys, restarts, clocks that jump."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.simulation import faults, squidex, virtual
from tests.simulation import judge as judge_module
from tests.simulation import process as process_module
from tests.simulation.virtual import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    import random

_TRANSIENT = 11 * MINUTE
"""The longest wait after a failure that will pass, with a minute for the work."""
_UNKNOWN = 61 * MINUTE
"""The same, after an answer that says nothing."""


def _mishaps(rng: random.Random) -> tuple[faults.Fault, float]:
    """A mishap, and how long the operator may wait after it."""
    return rng.choice(
        [
            (faults.html(500), _TRANSIENT),
            (faults.status(503), _TRANSIENT),
            (faults.html(502), _TRANSIENT),
            (faults.html(200), _UNKNOWN),
            (faults.redirect(), _UNKNOWN),
            (faults.html(403), _UNKNOWN),
            (faults.unreachable(), _TRANSIENT),
            (faults.reset(), _TRANSIENT),
            (faults.hang(), _TRANSIENT),
            (faults.slow(10.0), _TRANSIENT),
            (faults.rate_limit("120"), _TRANSIENT),
            (faults.rate_limit(1800.0), 31 * MINUTE),
            (faults.rate_limit(), _TRANSIENT),
            (faults.header_dropped(), _TRANSIENT),
            (faults.truncated(), _TRANSIENT),
            (faults.wrong_types(), _UNKNOWN),
        ]
    )


class Weather:
    """Until it is calm: what goes on when it is ended, ends."""

    def __init__(self, judge: judge_module.Judge, process: process_module.Process, rng: random.Random) -> None:
        self._judge = judge
        self._process = process
        self._rng = rng
        self.restarts: list[float] = []
        self.jumps: list[float] = []
        self.leaps: list[float] = []
        """Those of the jumps that were ahead."""
        self.outages = 0
        self.kills: dict[str, list[float]] = {}
        """For each server, when its tokens died at one stroke."""

    async def of_server(self, server: squidex.Server) -> None:
        """Mishaps, one after the other."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / (4 * DAY)))
            fault, residue = _mishaps(self._rng)
            if self._rng.random() < 0.3 and fault.on == faults.EVERYWHERE:
                fault = fault.at("token")
            server.faults.append(fault)
            self.outages += 1
            began = virtual.now()
            # Where every token is refused, one is fetched every hour: two days of that would be all there is to see.
            longest = 6 * HOUR if fault.name == "header dropped" else 2 * DAY
            try:
                await asyncio.sleep(min(self._rng.lognormvariate(8, 2), longest))
            finally:
                server.faults.remove(fault)
                self._judge.trouble(server.base_url, began, residue=residue)

    async def replace_key(self, server: squidex.Server, at: float) -> None:
        """At once, or replica by replica."""
        await asyncio.sleep(at - virtual.now())
        if self._rng.random() < 0.5:
            server.replace_key()
        else:
            began = virtual.now()
            server.begin_rollout()
            # Whoever asks the replica that is last gets a token that dies with its key: they need two.
            self.kills.setdefault(server.base_url, []).append(began)
            try:
                await asyncio.sleep(self._rng.uniform(5 * MINUTE, 40 * MINUTE))
            finally:
                server.end_rollout()
                # Tokens were refused by every other replica, and after a few of them it takes longer to ask for more.
                self._judge.trouble(server.base_url, began, residue=_UNKNOWN)
        self.kills.setdefault(server.base_url, []).append(virtual.now())

    async def change_issuer(self, server: squidex.Server, at: float) -> None:
        """The server gets another public address."""
        await asyncio.sleep(at - virtual.now())
        server.change_issuer()
        self.kills.setdefault(server.base_url, []).append(virtual.now())

    async def shorten(self, server: squidex.Server, begin: float, end: float, lifetime: float) -> None:
        """New tokens live for a shorter time, for a while."""
        await asyncio.sleep(begin - virtual.now())
        usual = server.lifetime
        server.set_lifetime(lifetime)
        await asyncio.sleep(end - virtual.now())
        server.set_lifetime(usual)

    async def of_api_server(self) -> None:
        """The API server is away for a while."""
        api = self._process.gateway
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / (6 * DAY)))
            began = virtual.now()
            api.down = True
            try:
                await asyncio.sleep(self._rng.uniform(MINUTE, 30 * MINUTE))
            finally:
                api.down = False
                self._judge.trouble(None, began, residue=3 * MINUTE)

    async def of_process(self) -> None:
        """Restarts, gentle and not."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / (3 * DAY)))
            self.restarts.append(virtual.now())
            self._process.end(gently=self._rng.random() < 0.5)

    async def of_clock(self) -> None:
        """The machine's clock is off by up to two hours, and is put right again."""
        set_clock = self._process.set_clock
        try:
            while True:
                await asyncio.sleep(self._rng.expovariate(1 / (5 * DAY)))
                offset = self._rng.uniform(-2 * HOUR, 2 * HOUR)
                set_clock(offset)
                self._note_jump(offset)
                await asyncio.sleep(self._rng.expovariate(1 / (8 * HOUR)))
                set_clock(0.0)
                self._note_jump(-offset)
        finally:
            set_clock(0.0)

    def _note_jump(self, seconds: float) -> None:
        self.jumps.append(virtual.now())
        if seconds > 0:
            self.leaps.append(virtual.now())
