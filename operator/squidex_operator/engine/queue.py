"""One queue of keys with due times: all of the operator's timers.

A key is in work at most once at a time; woken meanwhile, it is worked on again. Due times are wall-clock times, and nothing
sleeps longer than a minute, so that a clock that jumps, or a machine that was suspended, is noticed.
"""

import asyncio
import collections
import datetime as dt
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from squidex_operator.engine import clock as clock_module

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

LONGEST_SLEEP = dt.timedelta(minutes=1)
GRACE = dt.timedelta(seconds=10)
"""How long work may go on when the queue is stopped."""
_STALE = 64
"""Entries of the heap that may have been replaced by earlier ones before they are swept out."""
BRIEF = dt.timedelta(seconds=2)
"""So long the lanes give way to a key without one; what takes longer hangs, and the lanes would gain nothing."""
AFTER_BUG = dt.timedelta(minutes=1)
"""When a key is tried again whose work failed in a way that nobody foresaw."""


Lane = Hashable | None


class Queue(Generic[K]):
    """Keys and when they are due. The earliest due time of a key wins, until it is worked on.

    Keys of one lane are worked on a few at a time, and come after those that have none: a thousand of them hold up no other.
    While one that has none is in work, each lane has a quarter of its places; and all lanes together never have all workers.
    """

    def __init__(
        self, clock: clock_module.Clock, *, lane: Callable[[K], Lane] = lambda _: None, width: int = 16
    ) -> None:
        """`lane` tells the lane of a key that is due, None for none; `width` is how many of a lane are in work at once."""
        self._clock = clock
        self._lane_of = lane
        self._width = width
        self._workers = 1
        self._lanes: dict[Lane, int] = {}
        """Keys in work, of each lane."""
        self._waiting: dict[Lane, collections.deque[K]] = {}
        """Due, and out of the heap: first come, first served."""
        self._waits_in: dict[K, Lane] = {}
        """The lane in which a key waits. An entry of `_waiting` that says otherwise is an old one."""
        self._due: dict[K, dt.datetime] = {}
        self._heap: list[tuple[dt.datetime, int, K]] = []
        self._order = itertools.count()
        self._running: dict[K, asyncio.Task[None]] = {}
        self._started: dict[K, tuple[dt.datetime, Lane]] = {}
        self._parked: set[K] = set()
        """Due, and in work: they go back into the heap when that work ends."""
        self._changed = asyncio.Event()
        self.unforeseen = 0
        """How often work failed in a way that nobody foresaw: a bug, each time."""

    def wake(self, key: K) -> None:
        """Make the key due now."""
        lane = self._waits_in.get(key)
        if lane is not None and self._lane_of(key) != lane:
            self.forget(key)  # it need not wait there any more
        self.add(key, self._clock.now())

    def add(self, key: K, at: dt.datetime) -> None:
        """Make the key due at this time, or earlier where it is due earlier already."""
        known = self._due.get(key)
        if known is not None and known <= at:
            return
        self._due[key] = at
        heapq.heappush(self._heap, (at, next(self._order), key))
        if len(self._heap) > 2 * len(self._due) + _STALE:
            # A key that is woken again and again leaves an entry for its far due time each time.
            self._heap = [(due, next(self._order), each) for each, due in self._due.items()]
            heapq.heapify(self._heap)
        self._changed.set()

    def forget(self, key: K) -> None:
        """Take the key out. Work on it that has begun goes on."""
        self._due.pop(key, None)
        self._waits_in.pop(key, None)

    def depth(self) -> int:
        """Keys that are due now and wait for a worker, or in a lane."""
        now = self._clock.now()
        return sum(1 for at in self._due.values() if at <= now)

    @property
    def running(self) -> int:
        """Keys in work."""
        return len(self._running)

    def longest_running(self) -> dt.timedelta:
        """How long the key that is in work longest is in work."""
        now = self._clock.now()
        return now - min((at for at, _ in self._started.values()), default=now)

    def lag(self) -> dt.timedelta:
        """How long the key that is due longest has waited."""
        now = self._clock.now()
        first = min(self._due.values(), default=now)
        return max(now - first, dt.timedelta())

    async def run(self, work: Callable[[K], Awaitable[None]], *, workers: int) -> None:
        """Work on keys as they fall due, on this many at once, for ever."""
        slots, self._workers = asyncio.Semaphore(workers), workers
        try:
            while True:
                await slots.acquire()
                key, lane = await self._next()
                self._started[key] = self._clock.now(), lane
                task = asyncio.create_task(self._work(work, key, lane, slots), name=f"work on {key}")
                self._running[key] = task
        finally:
            # What is in work may hold a token that is not written yet: let it end, but not for ever.
            if tasks := list(self._running.values()):
                await asyncio.wait(tasks, timeout=GRACE.total_seconds())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> tuple[K, Lane]:
        while True:
            self._changed.clear()
            now = self._clock.now()
            if (found := self._pick(now)) is not None:
                return found
            wait = max(self._heap[0][0] - now, dt.timedelta(milliseconds=1)) if self._heap else LONGEST_SLEEP
            if self._waiting:
                wait = min(wait, BRIEF)  # a lane may have more room then
            try:
                async with asyncio.timeout(min(LONGEST_SLEEP, wait).total_seconds()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _pick(self, now: dt.datetime) -> tuple[K, Lane] | None:
        """The next key to work on, and its lane."""
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != at:
                continue  # an entry that an earlier one has replaced
            if key in self._running:
                self._parked.add(key)
            elif (lane := self._lane_of(key)) is None:
                self.forget(key)
                return key, None
            elif self._waits_in.get(key) != lane:
                self._waits_in[key] = lane
                self._waiting.setdefault(lane, collections.deque()).append(key)
        while (lane := self._lane_with_room(now)) is not None:
            # The lane goes to the end of the row: where there are more of them than workers, they take turns.
            keys = self._waiting.pop(lane)
            key = keys.popleft()
            if keys:
                self._waiting[lane] = keys
            if self._waits_in.get(key) == lane:
                self.forget(key)
                self._lanes[lane] = self._lanes.get(lane, 0) + 1
                return key, lane
        return None

    def _lane_with_room(self, now: dt.datetime) -> Lane:
        if not self._waiting or sum(self._lanes.values()) >= max(self._workers * 3 // 4, 1):
            return None
        gives_way = any(lane is None and abs(now - at) < BRIEF for at, lane in self._started.values())
        width = max(self._width // 4, 1) if gives_way else self._width
        return next((lane for lane in self._waiting if self._lanes.get(lane, 0) < width), None)

    async def _work(self, work: Callable[[K], Awaitable[None]], key: K, lane: Lane, slots: asyncio.Semaphore) -> None:
        try:
            await work(key)
        except Exception:
            # A bug. It must not stop the others, nor become a hot loop.
            self.unforeseen += 1
            logger.exception("unforeseen key=%s", key)
            self.add(key, self._clock.now() + AFTER_BUG)
        finally:
            del self._running[key], self._started[key]
            if lane is not None:
                self._lanes[lane] -= 1
                if not self._lanes[lane]:
                    del self._lanes[lane]
            if key in self._parked:
                self._parked.discard(key)
                if (at := self._due.pop(key, None)) is not None:
                    self.add(key, at)
            slots.release()
            self._changed.set()
