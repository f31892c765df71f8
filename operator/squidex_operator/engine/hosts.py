"""Who may ask a server, and when: no Squidex is flooded, and no server that hangs holds up another.

Waiting is a due time, never a sleep: a key that may not go yet goes back into the queue.
"""

import collections
import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, schedule

_TROUBLE = {reasons.Reason.TIMEOUT, reasons.Reason.UNREACHABLE}
_TROUBLE_LASTS = dt.timedelta(minutes=15)
"""Longer than the wait after such a failure: only who failed and never came back leaves a server in trouble so long."""


_WAIT = dt.timedelta(minutes=1)


@dataclasses.dataclass(frozen=True)
class HostLimits:
    """For each `scheme://host:port`."""

    rate: float = 20.0
    """Token requests per second."""
    burst: int = 50
    concurrency: int = 16
    """Requests of any kind at once. A server in trouble gets one at a time until it answers."""


@dataclasses.dataclass
class _Host:
    bucket: schedule.Bucket
    in_flight: int = 0
    trouble_until: dt.datetime | None = None
    paused_until: dt.datetime | None = None
    reserved: dict[Hashable, dt.datetime] = dataclasses.field(default_factory=dict)
    waiting: collections.OrderedDict[Hashable, None] = dataclasses.field(default_factory=collections.OrderedDict)

    def is_idle(self, now: dt.datetime) -> bool:
        """Nothing is lost when it is forgotten."""
        times = (self.paused_until, self.trouble_until, self.bucket.full_at)
        return not (self.in_flight or self.reserved or self.waiting or any(time and now < time for time in times))


class Hosts:
    """The gate in front of all servers."""

    def __init__(self, limits: HostLimits, wake: Callable[[Any], None]) -> None:
        self._limits = limits
        self._wake = wake
        self._hosts: dict[str, _Host] = {}

    def admit(self, host: str, key: Hashable, now: dt.datetime, *, fetch: bool) -> dt.datetime | None:
        """None where the key may send its request now, in `request()`; else when to ask again.

        Args:
            fetch: a token request, which takes its turn in the host's bucket; else only the concurrency counts.
        """
        state = self._host(host, now)
        if fetch:
            if state.paused_until is not None and now < state.paused_until:
                return state.paused_until
            if key not in state.reserved:
                state.reserved[key], state.bucket = state.bucket.take(now)
            if now < state.reserved[key]:
                return state.reserved[key]
        in_trouble = state.trouble_until is not None and now < state.trouble_until
        if state.in_flight >= (1 if in_trouble else self._limits.concurrency):
            # Woken when a request ends; the time is for the case that it never does.
            state.waiting[key] = None
            return now + _WAIT
        state.waiting.pop(key, None)
        return None

    @contextlib.contextmanager
    def request(self, host: str, key: Hashable) -> Iterator[None]:
        """Around a request that was admitted."""
        state = self._host(host)
        state.reserved.pop(key, None)
        state.in_flight += 1
        try:
            yield
        finally:
            state.in_flight -= 1
            if state.waiting:
                self._wake(state.waiting.popitem(last=False)[0])

    def note(self, host: str, problem: backoff.Problem | None, now: dt.datetime) -> None:
        """How a request ended: None for an answer of any kind that was no problem."""
        state = self._host(host)
        state.trouble_until = now + _TROUBLE_LASTS if problem is not None and problem.reason in _TROUBLE else None
        if problem is not None and problem.retry_after is not None:
            state.paused_until = now + min(problem.retry_after, backoff.MAX_RETRY_AFTER)
        if state.trouble_until is None:
            # The queue behind a server that has recovered moves on together.
            for _ in range(min(len(state.waiting), self._limits.concurrency - state.in_flight)):
                self._wake(state.waiting.popitem(last=False)[0])

    def forget(self, key: Hashable) -> None:
        """A key that will not come back: another one gets its place."""
        for state in self._hosts.values():
            state.reserved.pop(key, None)
            state.waiting.pop(key, None)

    def _host(self, host: str, now: dt.datetime | None = None) -> _Host:
        if host not in self._hosts:
            if now is not None:
                self._hosts = {name: state for name, state in self._hosts.items() if not state.is_idle(now)}
            self._hosts[host] = _Host(schedule.Bucket(self._limits.rate, self._limits.burst))
        return self._hosts[host]
