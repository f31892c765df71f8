"""Virtual time: an event loop that never waits. Ninety days pass as fast as the work in them is done."""

from __future__ import annotations

import asyncio
import datetime as dt
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
"""Seconds."""

BASE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""The true time at which the loop's clock is 0."""

_MOST_TURNS = 1_000_000
"""Turns of the loop in which no time passes: more is a hot loop, which would never end here."""


class NothingScheduledError(RuntimeError):
    """Everything waits for something that will never happen."""


class HotLoopError(RuntimeError):
    """Something goes round and round without time passing."""


class _Selector(selectors.SelectSelector):
    """Reports no I/O; where asyncio would sleep, the time moves on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingScheduledError("nothing is scheduled")
        if timeout > 0:
            self.now += timeout
            self._turns = 0
        self._turns += 1
        if self._turns > _MOST_TURNS:
            raise HotLoopError(f"{_MOST_TURNS} turns of the loop at {self.now:.3f} s")
        return []


class Loop(asyncio.SelectorEventLoop):
    """asyncio on virtual time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def now() -> float:
    """True seconds since the beginning."""
    return asyncio.get_running_loop().time()


def call_later(delay: float, callback: Callable[[], None]) -> None:
    """Call once, so many seconds from now."""
    asyncio.get_running_loop().call_later(delay, callback)


def true_time() -> dt.datetime:
    """The true time, aware UTC."""
    return BASE + dt.timedelta(seconds=now())


class Clock:
    """The wall clock of the operator's machine, which may be off, and may jump."""

    def __init__(self) -> None:
        self.offset = 0.0
        """Seconds ahead of the true time."""

    def now(self) -> dt.datetime:
        return BASE + dt.timedelta(seconds=now() + self.offset)
