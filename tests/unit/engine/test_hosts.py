"""Who may ask a server, and when. No waiter is lost."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import TYPE_CHECKING

import pytest

from squidex_operator.api import reasons
from squidex_operator.engine import hosts
from squidex_operator.policy import backoff
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "https://squidex.test"
OTHER = "https://other.test"


class Gate:
    """Hosts, with the keys that were woken and the requests that are held."""

    def __init__(self, **limits: float) -> None:
        self.clock = cluster.Clock()
        self.woken: list[object] = []
        self.new: set[object] = set()
        self.hosts = hosts.Hosts(
            hosts.HostLimits(**limits),  # type: ignore[arg-type]
            self.woken.append,
            self.clock.now,
            is_new=self.new.__contains__,
        )
        self.inside: list[str] = []
        self.most = 0
        self.release: dict[str, asyncio.Event] = {}

    def start(self, key: str, host: str = HOST, *, fetch: bool = False) -> asyncio.Task[None]:
        return asyncio.create_task(self._request(key, host, fetch))

    async def _request(self, key: str, host: str, fetch: bool) -> None:
        async with self.hosts.request(host, key, fetch=fetch):
            self.inside.append(key)
            self.most = max(self.most, len(self.inside))
            try:
                await self.release.setdefault(key, asyncio.Event()).wait()
            finally:
                self.inside.remove(key)

    def let_go(self, key: str) -> None:
        self.release.setdefault(key, asyncio.Event()).set()

    def state(self, host: str = HOST) -> hosts._Host:
        return self.hosts._hosts[host]


def problem(reason: reasons.Reason = reasons.Reason.TIMEOUT, retry_after: float | None = None) -> backoff.Problem:
    asked = None if retry_after is None else dt.timedelta(seconds=retry_after)
    return backoff.Problem(backoff.Kind.TRANSIENT, reason, "It did not answer.", asked)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


async def turns(count: int = 5) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    gate = Gate(rate=2.0, burst=3)
    at = [gate.hosts.turn(HOST, n) for n in range(6)]
    seconds = [None if time is None else (time - gate.clock.now()).total_seconds() for time in at]
    assert seconds == [None, None, None, 0.5, 1.0, 1.5]


def test_a_turn_is_kept_until_it_is_used() -> None:
    gate = Gate(rate=1.0, burst=1)
    gate.hosts.turn(HOST, "first")
    at = gate.hosts.turn(HOST, "second")
    assert [gate.hosts.turn(HOST, "second") for _ in range(3)] == [at] * 3
    gate.clock.advance(seconds=1)
    assert gate.hosts.turn(HOST, "second") is None
    assert gate.hosts.turn(HOST, "third") is not None


def test_turns_that_nobody_used_are_not_saved_up() -> None:
    gate = Gate(rate=1.0, burst=2)
    for n in range(10):
        gate.hosts.turn(HOST, n)
    gate.clock.advance(hours=1)
    ready = [n for n in range(10) if gate.hosts.turn(HOST, n) is None]
    assert len(ready) == 2


def test_who_never_had_a_token_keeps_none_waiting_that_had_one() -> None:
    async def main() -> None:
        gate = Gate(rate=0.5, burst=3)
        gate.new.update(range(100))
        assert [gate.hosts.turn(HOST, n) for n in range(100)].count(None) == 3
        assert gate.hosts.turn(HOST, "repair") is None
        # What the server sees is one bucket all the same.
        for new in range(3):
            async with gate.hosts.request(HOST, new, fetch=True):
                pass
        with pytest.raises(hosts.NotYetError) as caught:
            await gate.start("repair", fetch=True)
        assert caught.value.at == gate.clock.now() + dt.timedelta(seconds=2)

    run(main)


def test_a_turn_that_is_given_up_goes_back_to_those_it_is_of() -> None:
    gate = Gate(rate=1.0, burst=1)
    gate.new.add("new")
    assert gate.hosts.turn(HOST, "new") is None
    assert gate.hosts.turn(HOST, "other") is None
    gate.state().give_up_turn("new")
    gate.new.add("another new one")
    assert gate.hosts.turn(HOST, "another new one") is None
    assert gate.hosts.turn(HOST, "another") is not None


def test_a_clock_that_is_set_back_gives_no_second_burst() -> None:
    async def main() -> None:
        gate = Gate(rate=0.5, burst=3)
        for key in "abcde":
            gate.let_go(key)
        for key in "abc":
            await gate.start(key, fetch=True)
        gate.clock.advance(hours=-1)
        gate.hosts.clock_set_back()
        assert gate.hosts.turn(HOST, "d") is None
        with pytest.raises(hosts.NotYetError) as caught:
            await gate.start("d", fetch=True)
        # Nor does it cost an hour.
        assert caught.value.at == gate.clock.now() + dt.timedelta(seconds=2)
        gate.clock.advance(seconds=2)
        await gate.start("d", fetch=True)

    run(main)


def test_turns_that_are_used_late_do_not_all_go_at_once() -> None:
    async def main() -> None:
        gate = Gate(rate=0.5, burst=3)
        keys = [str(n) for n in range(10)]
        for key in keys:
            gate.hosts.turn(HOST, key)
            gate.let_go(key)
        gate.clock.advance(minutes=1)  # the API server did not answer, for example: nobody could use its turn
        ended = await asyncio.gather(*(gate.start(key, fetch=True) for key in keys), return_exceptions=True)
        assert ended[:3] == [None] * 3
        assert {getattr(error, "at", None) for error in ended[3:]} == {gate.clock.now() + dt.timedelta(seconds=2)}
        assert gate.state().in_flight == 0
        # They take new turns, and no other was used up by this.
        gate.clock.advance(seconds=2)
        await gate.start(keys[3], fetch=True)

    run(main)


def test_who_is_a_moment_too_early_waits_in_its_place() -> None:
    async def main() -> None:
        gate = Gate(rate=20.0, burst=1)
        began = asyncio.get_running_loop().time()
        for key in ("first", "second"):
            gate.hosts.turn(HOST, key)
            gate.let_go(key)
        gate.clock.advance(seconds=1)
        await asyncio.gather(*(gate.start(key, fetch=True) for key in ("first", "second")))
        assert asyncio.get_running_loop().time() - began >= 0.05

    run(main)


def test_a_used_turn_is_gone() -> None:
    async def main() -> None:
        gate = Gate(rate=1.0, burst=1)
        async with gate.hosts.request(HOST, "key", fetch=True):
            pass
        assert gate.hosts.turn(HOST, "key") is not None

    run(main)


def test_servers_do_not_share_their_limits() -> None:
    gate = Gate(rate=1.0, burst=1)
    assert gate.hosts.turn(HOST, "key") is None
    assert gate.hosts.turn(OTHER, "key") is None


def test_a_request_before_its_turn_is_sent_away() -> None:
    async def main() -> None:
        gate = Gate(rate=1.0, burst=1)
        gate.hosts.turn(HOST, "first")
        with pytest.raises(hosts.NotYetError) as caught:
            async with gate.hosts.request(HOST, "second", fetch=True):
                pass
        assert caught.value.at == gate.clock.now() + dt.timedelta(seconds=1)

    run(main)


def test_no_more_requests_are_at_a_server_than_allowed_and_all_of_them_get_there() -> None:
    async def main() -> None:
        gate = Gate(concurrency=3)
        tasks = [gate.start(str(n)) for n in range(6)]
        await turns()
        assert gate.inside == ["0", "1", "2"]
        for n in range(6):
            gate.let_go(str(n))
        await asyncio.gather(*tasks)
        assert gate.most == 3
        assert gate.state().in_flight == 0

    run(main)


def test_a_line_that_is_as_long_as_the_server_takes_is_long_enough() -> None:
    async def main() -> None:
        gate = Gate(concurrency=2)
        held = [gate.start(str(n)) for n in range(4)]
        await turns()
        with pytest.raises(hosts.NotYetError):
            await gate.start("fifth")
        gate.let_go("0")
        await turns()
        assert gate.woken == ["fifth"]
        for n in range(4):
            gate.let_go(str(n))
        await asyncio.gather(*held)

    run(main)


def test_first_come_first_served() -> None:
    async def main() -> None:
        gate = Gate(concurrency=1)
        order: list[str] = []

        async def ask(key: str) -> None:
            async with gate.hosts.request(HOST, key, fetch=False):
                order.append(key)

        first = gate.start("first")
        await turns()
        second = asyncio.create_task(ask("second"))
        await turns()
        gate.let_go("first")
        await asyncio.gather(first, second)
        assert order == ["second"]

    run(main)


def test_who_gives_up_in_line_costs_nobody_a_place() -> None:
    async def main() -> None:
        gate = Gate(concurrency=1)
        first = gate.start("first")
        await turns()
        second = gate.start("second")
        await turns()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.let_go("first")
        await first
        assert gate.state().in_flight == 0
        gate.let_go("third")
        await gate.start("third")

    run(main)


def test_who_is_cancelled_at_the_very_moment_it_gets_its_place_gives_it_back() -> None:
    async def main() -> None:
        gate = Gate(concurrency=1)
        first = gate.start("first")
        await turns()
        second = gate.start("second")
        await turns()
        gate.hosts._let_in(gate.state())  # nothing: there is no place
        gate.let_go("first")
        while gate.state().in_line:  # noqa: ASYNC110 - one turn of the loop at a time
            await asyncio.sleep(0)
        second.cancel()  # the place is there, the task has not had its turn yet
        await asyncio.gather(first, second, return_exceptions=True)
        assert gate.state().in_flight == 0

    run(main)


def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    async def main() -> None:
        gate = Gate(concurrency=1)
        first, second = gate.start("first"), gate.start("second")
        await turns()
        first.cancel()
        await turns()
        assert gate.inside == ["second"]
        gate.let_go("second")
        await asyncio.gather(first, second, return_exceptions=True)
        assert gate.state().in_flight == 0

    run(main)


@pytest.mark.parametrize("reason", [reasons.Reason.TIMEOUT, reasons.Reason.UNREACHABLE])
def test_a_server_in_trouble_is_tried_by_one_at_a_time(reason: reasons.Reason) -> None:
    async def main() -> None:
        gate = Gate(concurrency=4)
        gate.hosts.turn(HOST, "any")
        gate.hosts.note(HOST, problem(reason))
        first = gate.start("first")
        await turns()
        for key in ("second", "third"):
            with pytest.raises(hosts.NotYetError) as caught:
                await gate.start(key)
            assert caught.value.at == gate.clock.now() + dt.timedelta(minutes=1)
        gate.let_go("first")
        await first
        assert gate.woken == ["second"]  # one, not all of them
        gate.let_go("second")
        await gate.start("second")
        assert gate.woken == ["second", "third"]

    run(main)


def test_another_problem_is_no_trouble() -> None:
    gate = Gate()
    gate.hosts.note(HOST, problem(reasons.Reason.SERVER_ERROR))
    assert not gate.state().in_trouble(gate.clock.now())


def test_who_stands_in_line_when_trouble_begins_is_sent_away_and_woken_when_it_ends() -> None:
    async def main() -> None:
        gate = Gate(concurrency=2)
        held = [gate.start("a"), gate.start("b")]
        await turns()
        waiting = [gate.start("c"), gate.start("d")]
        await turns()
        gate.hosts.note(HOST, problem())
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [hosts.NotYetError] * 2
        gate.hosts.note(HOST, None)
        assert gate.woken == ["c", "d"]
        for key in "ab":
            gate.let_go(key)
        await asyncio.gather(*held)
        assert gate.state().in_flight == 0

    run(main)


def test_trouble_ends_by_itself_where_nobody_tries() -> None:
    gate = Gate()
    gate.hosts.note(HOST, problem())
    gate.clock.advance(minutes=14)
    assert gate.state().in_trouble(gate.clock.now())
    gate.clock.advance(minutes=1)
    assert not gate.state().in_trouble(gate.clock.now())


def test_retry_after_holds_up_token_requests_and_no_others() -> None:
    async def main() -> None:
        gate = Gate()
        gate.hosts.note(HOST, problem(reasons.Reason.RATE_LIMITED, retry_after=90))
        assert gate.hosts.turn(HOST, "key") == gate.clock.now() + dt.timedelta(seconds=90)
        gate.let_go("probe")
        await gate.start("probe")
        gate.clock.advance(seconds=90)
        assert gate.hosts.turn(HOST, "key") is None

    run(main)


def test_retry_after_holds_up_who_stands_in_line_too() -> None:
    async def main() -> None:
        gate = Gate(concurrency=2)
        held = [gate.start("a", fetch=True), gate.start("b", fetch=True)]
        await turns()
        fetch, probe = gate.start("fetch", fetch=True), gate.start("probe")
        await turns()
        gate.hosts.note(HOST, problem(reasons.Reason.RATE_LIMITED, retry_after=90))
        for key in ("a", "b", "fetch", "probe"):
            gate.let_go(key)
        with pytest.raises(hosts.NotYetError) as caught:
            await fetch
        assert caught.value.at == gate.clock.now() + dt.timedelta(seconds=90)
        await asyncio.gather(*held, probe)
        assert gate.state().in_flight == 0

    run(main)


def test_retry_after_of_a_week_is_cut_down() -> None:
    gate = Gate()
    gate.hosts.note(HOST, problem(reasons.Reason.RATE_LIMITED, retry_after=7 * 24 * 3600))
    assert gate.hosts.turn(HOST, "key") == gate.clock.now() + backoff.MAX_RETRY_AFTER


def test_a_key_that_is_forgotten_is_not_woken() -> None:
    async def main() -> None:
        gate = Gate(concurrency=1)
        gate.hosts.note(HOST, problem())
        first = gate.start("first")
        await turns()
        for key in ("gone", "second"):
            with contextlib.suppress(hosts.NotYetError):
                await gate.start(key)
        gate.hosts.forget("gone")
        gate.let_go("first")
        await first
        assert gate.woken == ["second"]

    run(main)


def test_a_server_that_nobody_asks_any_more_is_forgotten() -> None:
    gate = Gate(rate=1.0, burst=1)
    for n in range(100):
        gate.hosts.turn(f"https://{n}.test", "key")
        gate.hosts.forget("key")
        gate.clock.advance(minutes=1)
    assert len(gate.hosts._hosts) <= 2


def test_a_server_that_somebody_waits_for_is_not_forgotten() -> None:
    gate = Gate(rate=1.0, burst=1)
    gate.hosts.turn(HOST, "first")
    at = gate.hosts.turn(HOST, "second")
    gate.hosts.note(OTHER, problem(retry_after=600))
    gate.hosts.turn("https://third.test", "key")
    assert gate.hosts.turn(HOST, "second") == at
    assert gate.state(OTHER).paused_until is not None


def test_turns_that_were_never_used_do_not_keep_their_hosts_for_ever() -> None:
    clock = cluster.Clock()
    gate = hosts.Hosts(hosts.HostLimits(), lambda _: None, clock.now)
    for number in range(50):
        assert gate.turn(f"https://{number}.test", "key") is None
        clock.advance(minutes=10)
    assert len(gate._hosts) == 1
