"""Keys and due times: one worker per key, nobody blocks anybody, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
from typing import TYPE_CHECKING

import pytest

from squidex_operator.engine import clock, queue
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Work:
    """Workers that a test lets go on, key by key."""

    def __init__(self, *, held: bool = False, watch: clock.Clock | None = None, width: int = 2) -> None:
        self.clock = cluster.Clock()
        self.lanes: dict[str, str] = {}
        """Of keys, by their first letter."""
        self.queue: queue.Queue[str] = queue.Queue(
            watch or self.clock, lane=lambda key: self.lanes.get(key[0]), width=width
        )
        self.begun: list[str] = []
        self.done: list[str] = []
        self.held = held
        self.gates: dict[str, asyncio.Event] = {}
        self.fails: list[BaseException] = []
        self.changed = asyncio.Condition()

    async def work(self, key: str) -> None:
        self.begun.append(key)
        await self._tell()
        if self.held:
            await self.gates.setdefault(key, asyncio.Event()).wait()
            self.gates.pop(key)
        if self.fails:
            raise self.fails.pop(0)
        self.done.append(key)
        await self._tell()

    def let_go(self, key: str) -> None:
        self.gates.setdefault(key, asyncio.Event()).set()

    async def until(self, look: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(look)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    @contextlib.asynccontextmanager
    async def running(self, workers: int = 4) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.queue.run(self.work, workers=workers))
        try:
            yield task
        finally:
            self.held = False
            for gate in self.gates.values():
                gate.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def at(seconds: float) -> dt.datetime:
    return cluster.START + dt.timedelta(seconds=seconds)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


def test_keys_are_worked_on_in_the_order_in_which_they_are_due() -> None:
    async def main() -> None:
        w = Work()
        for key, seconds in (("late", -1), ("first", -3), ("second", -2)):
            w.queue.add(key, at(seconds))
        async with w.running(workers=1):
            await w.until(lambda: len(w.done) == 3)
        assert w.done == ["first", "second", "late"]

    run(main)


def test_the_earliest_due_time_of_a_key_wins() -> None:
    w = Work()
    w.queue.add("key", at(100))
    w.queue.add("key", at(50))
    w.queue.add("key", at(200))
    assert w.queue._due == {"key": at(50)}


def test_a_key_that_was_made_due_earlier_runs_once() -> None:
    async def main() -> None:
        w = Work()
        w.queue.add("key", at(60))
        w.queue.add("key", at(0))
        async with w.running():
            await w.until(lambda: w.done == ["key"])
            w.clock.advance(minutes=2)
            w.queue.wake("other")
            await w.until(lambda: len(w.done) == 2)
        assert w.done == ["key", "other"]

    run(main)


def test_a_key_is_in_work_once_at_a_time_and_woken_meanwhile_it_runs_again() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("key")
        async with w.running():
            await w.until(lambda: w.begun == ["key"])
            for _ in range(3):
                w.queue.wake("key")
            w.queue.wake("other")
            await w.until(lambda: "other" in w.begun)
            assert w.begun == ["key", "other"]
            w.let_go("key")
            await w.until(lambda: w.begun.count("key") == 2)
            w.let_go("key")
            w.let_go("other")
            await w.until(lambda: len(w.done) == 3)
        assert w.begun.count("key") == 2

    run(main)


def test_a_key_in_work_that_is_due_blocks_nobody() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("slow")
        async with w.running(workers=2):
            await w.until(lambda: w.begun == ["slow"])
            w.queue.add("slow", at(-100))  # in front of everybody
            for n in range(5):
                w.queue.wake(f"other-{n}")
                await w.until(lambda n=n: f"other-{n}" in w.begun)  # type: ignore[misc]
                w.let_go(f"other-{n}")
                await w.until(lambda n=n: f"other-{n}" in w.done)  # type: ignore[misc]
            assert w.begun.count("slow") == 1

    run(main)


def test_a_key_that_is_due_later_waits_while_it_is_in_work() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("key")
        async with w.running():
            await w.until(lambda: w.begun == ["key"])
            w.queue.add("key", at(30))
            w.let_go("key")
            await w.until(lambda: w.done == ["key"])
            assert w.queue._due == {"key": at(30)}

    run(main)


def test_no_more_keys_are_in_work_than_there_are_workers() -> None:
    async def main() -> None:
        w = Work(held=True)
        for n in range(5):
            w.queue.wake(str(n))
        async with w.running(workers=2):
            await w.until(lambda: len(w.begun) == 2)
            assert w.queue.running == 2
            assert w.queue.depth() >= 2
            for n in range(5):
                w.let_go(str(n))
            await w.until(lambda: len(w.done) == 5)

    run(main)


def test_a_bug_is_tried_again_after_a_minute_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        w = Work()
        w.fails = [ValueError("a bug")]
        w.queue.wake("key")
        async with w.running():
            await w.until(lambda: w.begun == ["key"])
            w.queue.wake("other")
            await w.until(lambda: w.done == ["other"])
            assert w.queue.unforeseen == 1
            assert w.queue._due == {"key": at(60)}
            w.clock.advance(minutes=1)
            w.queue.wake("third")
            await w.until(lambda: "key" in w.done)

    run(main)
    assert "unforeseen key=key" in caplog.text


def test_a_forgotten_key_does_not_run() -> None:
    async def main() -> None:
        w = Work()
        w.queue.add("key", at(0))
        w.queue.forget("key")
        w.queue.forget("nobody")
        w.queue.add("other", at(0))
        async with w.running():
            await w.until(lambda: w.done == ["other"])

    run(main)


def test_a_key_that_is_forgotten_while_it_is_in_work_does_not_run_again() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("key")
        async with w.running():
            await w.until(lambda: w.begun == ["key"])
            w.queue.wake("key")
            w.queue.wake("other")
            await w.until(lambda: "other" in w.begun)
            w.queue.forget("key")
            w.let_go("key")
            await w.until(lambda: w.done == ["key"])
            w.queue.wake("third")
            await w.until(lambda: "third" in w.begun)
            assert w.begun == ["key", "other", "third"]

    run(main)


@pytest.mark.parametrize("jump", [dt.timedelta(hours=3), dt.timedelta(days=400)], ids=["a nap", "a year in a drawer"])
def test_a_clock_that_jumps_is_noticed(jump: dt.timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    # As long as the queue sleeps at most, made short for the test.
    monkeypatch.setattr(queue, "LONGEST_SLEEP", dt.timedelta(milliseconds=5))

    async def main() -> None:
        w = Work()
        w.queue.add("key", at(3600))
        async with w.running():
            await asyncio.sleep(0)
            w.clock.at += jump  # nothing wakes the queue
            await w.until(lambda: w.done == ["key"])

    run(main)


def test_a_clock_that_is_set_back_does_not_hold_up_what_is_woken() -> None:
    async def main() -> None:
        w = Work()
        w.queue.add("key", at(10))
        w.clock.advance(days=-1)
        w.queue.wake("key")
        async with w.running():
            await w.until(lambda: w.done == ["key"])

    run(main)


def test_what_is_in_work_ends_when_the_queue_is_stopped() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("key")
        w.queue.add("later", at(60))
        task = asyncio.create_task(w.queue.run(w.work, workers=2))
        await w.until(lambda: w.begun == ["key"])
        task.cancel()
        await asyncio.sleep(0)
        w.let_go("key")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert w.done == ["key"]
        assert w.queue.running == 0

    run(main)


def test_what_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "GRACE", dt.timedelta(milliseconds=1))

    async def main() -> None:
        w = Work(held=True)
        w.queue.wake("key")
        task = asyncio.create_task(w.queue.run(w.work, workers=2))
        await w.until(lambda: w.begun == ["key"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert w.done == []
        assert w.queue.running == 0

    run(main)


def test_depth_lag_and_the_longest_work_are_told() -> None:
    async def main() -> None:
        w = Work(held=True)
        assert (w.queue.depth(), w.queue.lag(), w.queue.longest_running()) == (0, dt.timedelta(), dt.timedelta())
        w.queue.add("due", at(0))
        w.queue.add("later", at(1000))
        w.clock.advance(seconds=30)
        assert (w.queue.depth(), w.queue.lag()) == (1, dt.timedelta(seconds=30))
        async with w.running():
            await w.until(lambda: w.begun == ["due"])
            w.clock.advance(seconds=5)
            assert w.queue.longest_running() == dt.timedelta(seconds=5)
            assert w.queue.lag() == dt.timedelta()

    run(main)


def test_a_key_that_is_woken_again_and_again_takes_no_more_room() -> None:
    async def main() -> None:
        w = Work()
        for n in range(10):
            w.queue.add(f"other-{n}", at(10_000))
        async with w.running():
            for n in range(500):
                w.queue.add("key", at(5000))
                w.queue.wake("key")
                await w.until(lambda n=n: len(w.done) == n + 1)  # type: ignore[misc]
            assert len(w.queue._heap) < 200
            w.clock.advance(seconds=20_000)
            w.queue.wake("last")
            await w.until(lambda: len(w.done) == 511)
        assert sorted(w.done[500:]) == sorted([*(f"other-{n}" for n in range(10)), "last"])

    run(main)


def test_the_wall_clock_is_aware_and_in_utc() -> None:
    assert clock.WallClock().now().utcoffset() == dt.timedelta()


def test_a_lane_that_is_full_holds_up_nobody_else() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "lane", "b": "other lane"}
        for key in ("a1", "a2", "a3", "a4", "b1"):
            w.queue.wake(key)
        assert w.queue.depth() == 5
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 3)
            w.queue.wake("c1")
            await w.until(lambda: len(w.begun) == 4)
            assert sorted(w.begun) == ["a1", "a2", "b1", "c1"]
            assert w.queue.depth() == 2
            w.let_go("c1")
            await w.until(lambda: w.done == ["c1"])
            for key, following in (("a2", "a3"), ("a1", "a4")):
                w.let_go(key)
                await w.until(lambda following=following: following in w.begun)  # type: ignore[misc]
            for key in ("a3", "a4", "b1"):
                w.let_go(key)
            await w.until(lambda: len(w.done) == 6)
        assert not w.queue._lanes
        assert not w.queue._waiting

    run(main)


def test_who_waits_for_a_place_and_is_forgotten_or_woken_again_costs_nobody_a_place() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "lane"}
        for key in ("a1", "a2", "a3", "a4", "a5"):
            w.queue.wake(key)
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 2)
            w.queue.forget("a3")
            w.queue.wake("a4")
            w.queue.wake("a1")  # in work: once more when that ends
            w.let_go("a1")
            await w.until(lambda: "a4" in w.begun)
            w.let_go("a2")
            w.let_go("a4")
            await w.until(lambda: "a5" in w.begun and w.begun.count("a1") == 2)
            w.let_go("a1")
            w.let_go("a5")
            await w.until(lambda: len(w.done) == 5)
        assert sorted(w.done) == ["a1", "a1", "a2", "a4", "a5"]
        assert not w.queue._lanes

    run(main)


def test_who_leaves_its_lane_while_it_waits_keeps_nobody_waiting() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "lane"}
        for key in ("a1", "a2", "a3", "a4"):
            w.queue.wake(key)
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 2)
            w.lanes = {}
            for key in ("a1", "a2"):
                w.let_go(key)
            await w.until(lambda: len(w.begun) == 4)
            for key in ("a3", "a4"):
                w.let_go(key)
            await w.until(lambda: len(w.done) == 4)
        assert not w.queue._lanes

    run(main)


def test_who_has_no_lane_comes_before_all_who_wait_in_one() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "lane", "b": "other lane", "c": "third lane"}
        for number in range(3):
            for letter in "abc":
                w.queue.wake(f"{letter}{number}")
        async with w.running(workers=6):
            await w.until(lambda: len(w.begun) == 4)
            # More lanes than workers: each of them gets its share; and there are places left for who has none.
            assert {key[0] for key in w.begun} == {"a", "b", "c"}
            for repair in ("repair", "second repair", "third repair"):
                w.queue.wake(repair)
            await w.until(lambda: w.begun[4:] == ["repair", "second repair"])
            w.let_go(w.begun[0])
            await w.until(lambda: len(w.begun) == 7)
            assert w.begun[-1] == "third repair"

    run(main)


def test_a_lane_has_a_quarter_of_its_places_while_somebody_without_one_is_in_work() -> None:
    async def main() -> None:
        w = Work(held=True, width=4)
        w.lanes = {"a": "lane"}
        for number in range(12):
            w.queue.wake(f"a{number:02}")
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 4)
            w.queue.wake("repair")
            await w.until(lambda: w.begun[-1] == "repair")
            for number in range(4):
                w.let_go(f"a{number:02}")
            await w.until(lambda: len(w.done) == 4 and w.begun[-1] == "a04")
            assert w.queue.running == 2
            w.let_go("repair")
            await w.until(lambda: w.queue.running == 4)
            assert w.begun[-3:] == ["a05", "a06", "a07"]

    run(main)


def test_a_lane_gives_way_to_what_is_due_in_the_same_moment() -> None:
    async def main() -> None:
        w = Work(held=True, width=4)
        w.lanes = {"a": "lane"}
        for key in ("repair", "a0", "a1", "a2"):
            w.queue.wake(key)
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert w.begun == ["repair", "a0"]

    run(main)


@pytest.mark.parametrize("seconds", [3, -3600], ids=["", "though the clock was set back"])
def test_a_lane_does_not_give_way_to_what_hangs(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BRIEF", dt.timedelta(milliseconds=5))

    async def main() -> None:
        w = Work(held=True, width=4)
        w.lanes = {"a": "lane"}
        w.queue.wake("hangs")
        async with w.running(workers=10):
            await w.until(lambda: w.begun == ["hangs"])
            for number in range(6):
                w.queue.wake(f"a{number}")
            await w.until(lambda: w.begun == ["hangs", "a0"])
            w.clock.advance(seconds=seconds)  # nothing wakes the queue
            if seconds < 0:
                for number in range(6):
                    w.queue.wake(f"a{number}")  # but the heartbeat, that has noticed
            await w.until(lambda: len(w.begun) == 5)

    run(main)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_few_workers_are_enough_for_a_lane(workers: int) -> None:
    async def main() -> None:
        w = Work()
        w.lanes = {"a": "lane"}
        for key in ("a1", "a2", "a3", "repair"):
            w.queue.wake(key)
        async with w.running(workers=workers):
            await w.until(lambda: len(w.done) == 4)

    run(main)


def test_a_key_whose_lane_has_changed_is_woken_out_of_the_old_one() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "slow server"}
        for key in ("a1", "a2", "a3", "a4"):
            w.queue.wake(key)
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 2)
            w.lanes = {"a": "another server"}
            w.queue.wake("a4")
            await w.until(lambda: w.begun == ["a1", "a2", "a4"])

    run(main)


def test_a_clock_that_is_set_back_stops_no_lane() -> None:
    async def main() -> None:
        w = Work(held=True)
        w.lanes = {"a": "lane"}
        keys = [f"a{number}" for number in range(6)]
        for key in keys:
            w.queue.wake(key)
        async with w.running(workers=10):
            await w.until(lambda: len(w.begun) == 2)
            w.clock.advance(hours=-1)
            for key in ("a0", "a1"):
                w.let_go(key)
            await w.until(lambda: len(w.done) == 2)
            for key in keys:
                w.queue.wake(key)  # the heartbeat has noticed
            w.held = False
            for gate in w.gates.values():
                gate.set()
            await w.until(lambda: set(keys) == set(w.done) and not w.queue.running)

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_no_key_and_no_place_is_lost_whatever_happens(seed: int) -> None:
    async def main() -> None:
        draw = random.Random(seed)
        w = Work(held=True)
        w.lanes = {"a": "lane", "b": "other lane"}
        keys = [f"{letter}{number}" for letter in "abc" for number in range(12)]
        async with w.running(workers=6):
            for _ in range(400):
                key = draw.choice(keys)
                match draw.randrange(6):
                    case 0 | 1:
                        w.queue.wake(key)
                    case 2:
                        w.queue.add(key, w.clock.now() + dt.timedelta(seconds=draw.randrange(-5, 60)))
                    case 3:
                        w.queue.forget(key)
                    case 4:
                        w.lanes = draw.choice([{}, {"a": "lane"}, {"a": "lane", "b": "other lane"}])
                    case 5:
                        w.clock.advance(seconds=draw.randrange(-30 if draw.random() < 0.1 else 0, 10))
                        for gate in w.gates.values():
                            gate.set()
                await asyncio.sleep(0)
            due = set(w.queue._due)
            w.held = False
            begun = len(w.begun)
            w.clock.advance(minutes=10)
            w.queue.wake("c0")
            for gate in w.gates.values():
                gate.set()
            await w.until(lambda: not w.queue._due and not w.queue.running)
        assert due <= set(w.begun[begun:])
        assert not w.queue._lanes
        assert not w.queue._waits_in

    run(main)
