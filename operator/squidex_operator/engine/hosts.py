"""Who may ask a server, and when: no Squidex is flooded, and no server that hangs holds up another.

Waiting is a due time: a key that may not go yet goes back into the queue, and takes no worker. Only what is over in a moment is
waited for in place: a place at a server that answers, and the last part of a second before a request may leave.
"""

import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, schedule

_TROUBLE = {reasons.Reason.TIMEOUT, reasons.Reason.UNREACHABLE}
_TROUBLE_LASTS = dt.timedelta(minutes=15)
"""Longer than the wait after such a failure: only who failed and never came back leaves a server in trouble so long."""


_WAIT = dt.timedelta(minutes=1)

_TURN_KEPT = dt.timedelta(minutes=5)
"""Turns that were not used are lost."""

_SHORT = dt.timedelta(seconds=1)
"""So long a key keeps its place at a server for, when those before it used their turns late."""


@dataclasses.dataclass(frozen=True)
class HostLimits:
    """For each `scheme://host:port`."""

    rate: float = 20.0
    """Token requests per second."""
    burst: int = 30
    """No more than finds room at a server and in line for it, twice the concurrency: who is sent away takes a new turn, and the
    token that expires first would come last."""
    concurrency: int = 16
    """Requests of any kind at once. A server in trouble gets one at a time until it answers."""


class NotYetError(Exception):
    """The server may not be asked now: the key is due again at `at`, and is woken earlier where that is possible."""

    def __init__(self, at: dt.datetime) -> None:
        super().__init__(f"not before {at}")
        self.at = at


@dataclasses.dataclass
class _Host:
    turns: dict[bool, schedule.Bucket]
    """Of those that never had a token (True), and of all others: a thousand new ones keep none waiting that had one.

    Hundreds of keys with a turn each may be held up by something else, and then all come at once."""
    sent: schedule.Bucket
    """Of token requests as they leave: what the server sees is never more than a full bucket and the rate."""
    in_flight: int = 0
    trouble_until: dt.datetime | None = None
    paused_until: dt.datetime | None = None
    reserved: dict[Hashable, tuple[dt.datetime, bool]] = dataclasses.field(default_factory=dict)
    in_line: collections.OrderedDict[Hashable, asyncio.Future[None]] = dataclasses.field(
        default_factory=collections.OrderedDict
    )
    """Who waits for a place, first come, first served."""
    parked: collections.OrderedDict[Hashable, None] = dataclasses.field(default_factory=collections.OrderedDict)
    """Who was sent away, because the server was in trouble or the line too long."""

    def is_idle(self, now: dt.datetime) -> bool:
        """Nothing is lost when it is forgotten."""
        reserved = any(now - at <= _TURN_KEPT for at, _ in self.reserved.values())
        busy = self.in_flight or reserved or self.in_line or self.parked
        full = [bucket.full_at for bucket in (*self.turns.values(), self.sent)]
        times = (self.paused_until, self.trouble_until, *full)
        return not (busy or any(time and now < time for time in times))

    def park(self, key: Hashable) -> None:
        """Send a key away. It takes a new turn when it is back: hundreds of old ones would all be used in one moment."""
        self.parked[key] = None
        self.give_up_turn(key)

    def give_up_turn(self, key: Hashable) -> None:
        """Leave the turn to others."""
        if (turn := self.reserved.pop(key, None)) is not None:
            self.turns[turn[1]] = self.turns[turn[1]].put_back()

    def in_trouble(self, now: dt.datetime) -> bool:
        """It did not answer the last time."""
        return self.trouble_until is not None and now < self.trouble_until


class Hosts:
    """The gate in front of all servers."""

    def __init__(
        self,
        limits: HostLimits,
        wake: Callable[[Any], None],
        now: Callable[[], dt.datetime],
        *,
        is_new: Callable[[Hashable], object] = lambda _: False,
    ) -> None:
        """`is_new` tells the keys that never had a token."""
        self._limits = limits
        self._wake = wake
        self._now = now
        self._is_new = is_new
        self._hosts: dict[str, _Host] = {}

    def turn(self, host: str, key: Hashable) -> dt.datetime | None:
        """When this key may send a token request, by the host's bucket; None for now. The turn is kept, for a while."""
        now, state = self._now(), self._host(host)
        if (kept := state.reserved.get(key)) is None or now - kept[0] > _TURN_KEPT:
            is_new = bool(self._is_new(key))
            # After a pause they go one after the other again, not all at its end.
            at, state.turns[is_new] = state.turns[is_new].take(max(now, state.paused_until or now))
            state.reserved[key] = at, is_new
        at = max(state.reserved[key][0], state.paused_until or now)
        return at if now < at else None

    def paused_until(self, host: str) -> dt.datetime | None:
        """Until when the server asked to be left alone (Retry-After); None where it did not."""
        until = self._host(host).paused_until
        return until if until is not None and self._now() < until else None

    def check_room(self, host: str, key: Hashable) -> None:
        """For what is read before a request.

        Raises:
            NotYetError: where `request` would send the key away now.
        """
        state = self._host(host)
        if state.in_flight >= self._room(state):
            self._check_line(state, key)

    @contextlib.asynccontextmanager
    async def request(self, host: str, key: Hashable, *, fetch: bool) -> AsyncIterator[None]:
        """Around a request: inside it the key has a place at the server.

        Args:
            fetch: a token request, which uses up the key's turn.

        Raises:
            NotYetError: it is not the key's turn, or those before it used theirs late, or the server is in trouble and somebody
                else tries it already.
        """
        if fetch and (at := self.turn(host, key)):
            raise NotYetError(at)
        state = self._host(host)
        await self._enter(state, key)
        try:
            if fetch:
                state.reserved.pop(key, None)
                await self._pace(state)
            yield
        finally:
            state.in_flight -= 1
            self._let_in(state)
            if state.parked:
                self._wake(state.parked.popitem(last=False)[0])

    async def _enter(self, state: _Host, key: Hashable) -> None:
        state.parked.pop(key, None)
        if state.in_flight < self._room(state):
            state.in_flight += 1
            return
        self._check_line(state, key)
        place = state.in_line[key] = asyncio.get_running_loop().create_future()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                state.in_flight -= 1
                self._let_in(state)
            raise
        finally:
            if state.in_line.get(key) is place:
                del state.in_line[key]

    def _check_line(self, state: _Host, key: Hashable) -> None:
        now = self._now()
        if state.in_trouble(now) or len(state.in_line) >= self._limits.concurrency:
            # A server that answers slowly must not hold all workers. Woken when a request ends; the time is for the case
            # that it never does.
            state.park(key)
            raise NotYetError(now + _WAIT)

    async def _pace(self, state: _Host) -> None:
        now = self._now()
        self._check_pause(state, now)
        at, sent = state.sent.take(now)
        if at - now > _SHORT:
            raise NotYetError(at)
        state.sent = sent
        if at > now:
            await asyncio.sleep((at - now).total_seconds())
            self._check_pause(state, self._now())

    def _check_pause(self, state: _Host, now: dt.datetime) -> None:
        """The server may have asked for a pause while the key waited for its place, or in it."""
        if state.paused_until is not None and now < state.paused_until:
            raise NotYetError(state.paused_until)

    def _room(self, state: _Host) -> int:
        return 1 if state.in_trouble(self._now()) else self._limits.concurrency

    def _let_in(self, state: _Host) -> None:
        while state.in_line and state.in_flight < self._room(state):
            _, place = state.in_line.popitem(last=False)
            if not place.done():
                state.in_flight += 1
                place.set_result(None)

    def note(self, host: str, problem: backoff.Problem | None) -> None:
        """How a request ended: None for an answer of any kind that was no problem."""
        now, state = self._now(), self._host(host)
        state.trouble_until = now + _TROUBLE_LASTS if problem is not None and problem.reason in _TROUBLE else None
        if problem is not None and problem.retry_after is not None:
            state.paused_until = now + min(problem.retry_after, backoff.MAX_RETRY_AFTER)
            for key in list(state.reserved):
                state.give_up_turn(key)
        if state.trouble_until is not None:
            # Whoever stands in line would wait for a time-out: their workers have better things to do.
            for key, place in state.in_line.items():
                state.park(key)
                if not place.done():
                    place.set_exception(NotYetError(now + _WAIT))
            state.in_line.clear()
            return
        # Those behind a server that has recovered move on together.
        for _ in range(min(len(state.parked), self._limits.concurrency)):
            self._wake(state.parked.popitem(last=False)[0])

    def clock_set_back(self) -> None:
        """Times that were kept may be hours away now: nobody waits for them."""
        for state in self._hosts.values():
            state.paused_until = state.trouble_until = None
            state.reserved.clear()
            state.turns = self._full_turns()
            # What was sent was sent: the bucket goes back with the clock, and is no fuller for it.
            state.sent = state.sent.take(self._now())[1].put_back()

    def forget(self, key: Hashable) -> None:
        """A key that will not come back: another one gets its place."""
        for state in self._hosts.values():
            state.reserved.pop(key, None)
            state.parked.pop(key, None)

    def _host(self, host: str) -> _Host:
        if host not in self._hosts:
            now = self._now()
            self._hosts = {name: state for name, state in self._hosts.items() if not state.is_idle(now)}
            self._hosts[host] = _Host(self._full_turns(), self._full_bucket())
        return self._hosts[host]

    def _full_turns(self) -> dict[bool, schedule.Bucket]:
        return {is_new: self._full_bucket() for is_new in (False, True)}

    def _full_bucket(self) -> schedule.Bucket:
        return schedule.Bucket(self._limits.rate, self._limits.burst)
