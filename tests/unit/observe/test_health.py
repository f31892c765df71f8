"""What is wrong is told, and a process that cannot do its work ends."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from squidex_operator.observe import health
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def fetch(
    live: dict[str, health.Check], ready: dict[str, health.Check], *paths: str, listen: str = "127.0.0.1:0"
) -> list[tuple[int, str]]:
    async def main() -> list[tuple[int, str]]:
        server = health.Server(live, ready, lambda: b"metrics 1\n")
        await server.start(listen)
        try:
            async with aiohttp.ClientSession() as session:
                found = []
                for path in paths:
                    async with session.get(f"http://{listen.rpartition(':')[0]}:{server.port}{path}") as answer:
                        found.append((answer.status, await answer.text()))
                return found
        finally:
            await server.stop()

    return asyncio.run(main())


def test_when_all_is_well_it_says_so() -> None:
    found = fetch({"loop": lambda: "", "watch": lambda: ""}, {"listed": lambda: ""}, "/livez", "/readyz", "/metrics")
    assert found == [(200, "[+] loop\n[+] watch\n"), (200, "[+] listed\n"), (200, "metrics 1\n")]


def test_what_is_wrong_is_named() -> None:
    found = fetch(
        {"loop": lambda: "", "watch": lambda: "silent"}, {"listed": lambda: "not yet"}, "/livez", "/readyz", "/x"
    )
    assert found[:2] == [(503, "[+] loop\n[-] watch: silent\n"), (503, "[-] listed: not yet\n")]
    assert found[2][0] == 404


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_addresses(listen: str) -> None:
    if "::1" in listen and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert fetch({}, {}, "/livez", listen=listen)[0][0] == 200


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = health.Server({}, {}, lambda: b"")
            with pytest.raises(OSError, match=str(port)):
                await server.start(f"127.0.0.1:{port}")
            await server.stop()

    asyncio.run(main())


def test_to_stop_what_was_never_started_is_fine() -> None:
    asyncio.run(health.Server({}, {}, lambda: b"").stop())


# The heartbeat


def beating(
    main: Callable[[health.Heartbeat, cluster.Clock], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beat every millisecond."""
    monkeypatch.setattr(health, "_BEAT", 0.001)

    async def bounded() -> None:
        async with asyncio.timeout(10):
            clock = cluster.Clock()
            await main(health.Heartbeat(clock.now), clock)

    asyncio.run(bounded())


def test_a_check_that_fails_for_long_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(heart: health.Heartbeat, _clock: cluster.Clock) -> None:
        with pytest.raises(health.UnhealthyError, match="watch: silent"):
            await heart.run({"loop": lambda: "", "watch": lambda: "silent"}, patience=0.01)

    beating(main, monkeypatch)


def test_a_check_that_fails_now_and_then_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(heart: health.Heartbeat, _clock: cluster.Clock) -> None:
        beats = 0

        def flaky() -> str:
            nonlocal beats
            beats += 1
            return "" if beats % 2 else "a hiccup"

        task = asyncio.create_task(heart.run({"flaky": flaky}, patience=0.05))
        while beats < 200:
            assert not task.done()
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    beating(main, monkeypatch)


def test_a_loop_that_is_blocked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(heart: health.Heartbeat, _clock: cluster.Clock) -> None:
        loop = asyncio.get_running_loop()
        lags: list[float] = []
        task = asyncio.create_task(heart.run({"loop": lambda: lags.append(heart.lag) or ""}))  # type: ignore[func-returns-value]
        await asyncio.sleep(0.005)
        original, ahead = loop.time, 7.0
        monkeypatch.setattr(loop, "time", lambda: original() + ahead)
        count = len(lags)
        while len(lags) <= count:  # noqa: ASYNC110 - the heart tells nobody
            await asyncio.sleep(0.001)
        assert lags[count] == pytest.approx(7.0, abs=1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    beating(main, monkeypatch)


@pytest.mark.parametrize("jump", [dt.timedelta(hours=1), dt.timedelta(hours=-1)], ids=["ahead", "back"])
def test_a_clock_that_jumps_is_counted_and_logged(
    jump: dt.timedelta, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(heart: health.Heartbeat, clock: cluster.Clock) -> None:
        task = asyncio.create_task(heart.run({}))
        await asyncio.sleep(0.005)
        assert heart.jumps == 0
        clock.at += jump
        while not heart.jumps:  # noqa: ASYNC110 - the heart tells nobody
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert heart.jumps == 1

    beating(main, monkeypatch)
    assert f"clock jumped seconds={jump.total_seconds():.0f}" in caplog.text
