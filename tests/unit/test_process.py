"""The parts start in order, and the process ends when one of them does."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator import handlers, process, settings
from squidex_operator.engine import inventory, watch
from squidex_operator.kube import errors as kube_errors
from squidex_operator.observe import health
from tests.unit.engine import cluster
from tests.unit.kube import apiserver

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Coroutine


class Fake:
    """A process whose API server and Kopf are replaced; everything else is real."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kubeconfig = apiserver.write_kubeconfig(folder, "http://127.0.0.1:1", {"token": "t"})
        self.process = process.Process(
            settings.Settings(
                kubeconfig=kubeconfig, health_listen="127.0.0.1:0", relist_interval=dt.timedelta(seconds=100)
            )
        )
        self.served: list[bool | Exception] = [True]
        self.listed = 0
        self.watching = asyncio.Event()
        self.watch_ends = asyncio.Event()
        monkeypatch.setattr(process, "_START_RETRY", 0.01)
        monkeypatch.setattr(self.process.tools.gateway, "is_served", self._is_served)
        monkeypatch.setattr(self.process.watch, "first_list", self._first_list)
        monkeypatch.setattr(handlers, "watch", self._watch)

    async def _is_served(self) -> bool:
        answer = self.served.pop(0) if len(self.served) > 1 else self.served[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _first_list(self) -> None:
        self.listed += 1
        self.process.watch.listed = True

    async def _watch(self, *args: Any, **options: Any) -> None:
        self.watching.set()
        stop = asyncio.create_task(self.process.stop.wait())
        ends = asyncio.create_task(self.watch_ends.wait())
        try:
            await asyncio.wait({stop, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            ends.cancel()

    def run(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it, and something beside it."""

        async def main() -> None:
            async with asyncio.timeout(20):
                task = asyncio.create_task(self.process.run())
                side = asyncio.create_task(meanwhile())
                try:
                    await task
                finally:
                    await side

        asyncio.run(main())

    async def until(self, look: Callable[[], bool]) -> None:
        while not look():  # noqa: ASYNC110 - the process tells nobody
            await asyncio.sleep(0.001)


@pytest.fixture
def fake(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


def test_a_stop_ends_it_without_an_error_and_closes_everything(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def stop() -> None:
        await fake.watching.wait()
        assert fake.process.health.port
        fake.process.stop.set()

    fake.run(stop)
    events = [record.message.split()[0] for record in caplog.records if record.name == "squidex_operator.process"]
    assert events == ["started", "listed", "stopping"]
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.1", fake.process.health.port))


def test_a_signal_ends_it_while_it_waits_for_the_crd(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.served = [False]

    async def stop() -> None:
        await fake.until(lambda: "waiting for the CRD" in caplog.text)
        assert not fake.process.watch.listed
        os.kill(os.getpid(), signal.SIGTERM)

    fake.run(stop)
    assert fake.listed == 0
    assert not fake.watching.is_set()


def test_it_waits_for_the_api_server_and_the_crd_and_goes_on(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.served = [kube_errors.UnavailableError("HTTP 503."), False, True]

    async def stop() -> None:
        await fake.watching.wait()
        fake.process.stop.set()

    fake.run(stop)
    assert "waiting for the API server message='HTTP 503.'" in caplog.text
    assert "waiting for the CRD" in caplog.text
    assert fake.listed == 1


async def _ends(*_: object, **__: object) -> None: ...


async def _fails(*_: object, **__: object) -> None:
    raise watch.SilentWatchError("the watch missed 1 changes")


async def nothing() -> None: ...


@pytest.mark.parametrize("part", ["workers", "relist", "heartbeat"])
def test_a_part_that_ends_ends_the_process(part: str, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = {"workers": fake.process.tools.queue, "relist": fake.process.watch, "heartbeat": fake.process.heartbeat}
    monkeypatch.setattr(holder[part], "run", _ends)
    with pytest.raises(health.UnhealthyError, match=f"{part} ended"):
        fake.run(nothing)


@pytest.mark.parametrize("part", ["workers", "relist", "heartbeat", "watch"])
def test_a_part_that_is_cancelled_ends_the_process(part: str, fake: Fake) -> None:
    async def cancel() -> None:
        await fake.watching.wait()
        fake.process._tasks[part].cancel()

    with pytest.raises(health.UnhealthyError, match=f"{part} was cancelled"):
        fake.run(cancel)


def test_a_part_that_fails_ends_the_process_with_its_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake.process.watch, "run", _fails)
    with pytest.raises(watch.SilentWatchError):
        fake.run(nothing)


def test_a_port_that_is_taken_ends_it_before_anything_starts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fake = Fake(tmp_path, monkeypatch)
        changed = {"health_listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        fake.process._settings = fake.process._settings.model_copy(update=changed)
        with pytest.raises(OSError, match="address already in use"):
            fake.run(nothing)
    assert fake.listed == 0


def test_what_is_in_work_ends_before_the_connections_are_closed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def work(_key: object) -> None:
        order.append("begun")
        fake.process.stop.set()
        await asyncio.sleep(0.05)
        order.append("written")

    async def close() -> None:
        order.append("closed")

    monkeypatch.setattr(process.reconcile.Reconciler, "work", staticmethod(work))
    monkeypatch.setattr(fake.process.tools.http, "close", close)

    async def wake() -> None:
        fake.process.tools.queue.wake(inventory.Key("shop", "shop"))

    fake.run(wake)
    assert order == ["begun", "written", "closed"]


# Checks


def with_clock(fake: Fake) -> cluster.Clock:
    """The process goes by a clock of the test's."""
    clock = cluster.Clock()
    object.__setattr__(fake.process.tools, "clock", clock)
    fake.process.tools.queue._clock = clock
    fake.process.watch.heard_at = clock.now()
    return clock


def test_a_loop_that_is_blocked_is_told(fake: Fake) -> None:
    assert fake.process._check_loop() == ""
    fake.process.heartbeat.lag = 7.2
    assert fake.process._check_loop() == "blocked for 7 s"


def test_workers_that_ended_or_hang_are_told(fake: Fake) -> None:
    async def main() -> None:
        p, clock = fake.process, with_clock(fake)
        assert p._check_workers() == ""
        p.tools.queue._started[inventory.Key("shop", "shop")] = clock.now(), None
        clock.advance(minutes=5)
        assert p._check_workers() == ""
        clock.advance(seconds=1)
        assert p._check_workers() == "one is stuck for 0:05:01"
        p._tasks["workers"] = asyncio.create_task(nothing())
        await p._tasks["workers"]
        assert p._check_workers() == "ended"

    asyncio.run(main())


def test_a_watch_that_ended_or_is_silent_is_told(fake: Fake) -> None:
    async def main() -> None:
        p, clock = fake.process, with_clock(fake)
        clock.advance(hours=1)
        assert p._check_watch() == ""  # the first list is not done yet
        p.watch.listed = True
        assert p._check_watch() == "not heard of for 1:00:00"
        p.watch.failing = True
        assert p._check_watch() == ""  # the API server is away: a new process would not help
        p.watch.failing = False
        p.watch.heard_at = clock.now() - dt.timedelta(seconds=360)
        assert p._check_watch() == ""  # three lists and the grace
        p._tasks["watch"] = asyncio.create_task(nothing())
        await p._tasks["watch"]
        assert p._check_watch() == "ended"

    asyncio.run(main())


def test_before_the_first_list_it_is_not_ready(fake: Fake) -> None:
    assert fake.process._check_listed() == "the first list is not done"
    fake.process.watch.listed = True
    assert fake.process._check_listed() == ""


def metric(text: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_each_squidexclient_is_among_the_metrics(fake: Fake) -> None:
    world = cluster.World()
    world.put_client("good")
    world.run()
    world.put_client("new", target={"name": "new-token"})
    world.put_client("broken", probe={"interval": "often"})
    p = fake.process
    p.tools.inventory.records.update(world.inventory.records)
    p.tools.inventory.targets.update(world.inventory.targets)
    text = p.tools.metrics.render().decode()
    expiry = (cluster.START + dt.timedelta(days=30)).timestamp()
    assert metric(text, 'squidex_operator_token_expiry_timestamp_seconds{name="good",namespace="shop"}') == expiry
    assert 'squidex_operator_client_ready{name="good",namespace="shop"} 1.0' in text
    assert 'squidex_operator_client_ready{name="new",namespace="shop"} 0.0' in text
    assert 'squidex_operator_client_ready{name="broken",namespace="shop"} 0.0' in text
    assert "squidex_operator_queue_depth 0.0" in text
    assert "squidex_operator_queue_lag_seconds 0.0" in text
    assert "squidex_operator_loop_lag_seconds 0.0" in text
    assert "squidex_operator_watch_age_seconds" in text
    assert "squidex_operator_clock_jumps" in text


def test_a_setting_reaches_the_part_that_it_is_for(tmp_path: pathlib.Path) -> None:
    given = settings.Settings(
        kubeconfig=str(tmp_path),
        allowed_hosts=["a.test"],
        namespaces=["a"],
        host_rate=3.5,
        host_burst=4,
        host_concurrency=5,
        client_fetch_burst=6,
        client_fetch_interval=dt.timedelta(seconds=7),
        keys_interval=dt.timedelta(seconds=8),
        relist_interval=dt.timedelta(seconds=9),
        watch_grace=dt.timedelta(seconds=10),
    )
    p = process.Process(given)
    limits = p.tools.hosts._limits
    assert (limits.rate, limits.burst, limits.concurrency) == (3.5, 4, 5)
    assert p.tools.http._allowed_hosts == {"a.test"}
    assert p.tools.inventory._limits.fetch_burst == 6
    assert p.tools.inventory._limits.fetch_interval == dt.timedelta(seconds=7)
    assert p.tools.servers._interval == dt.timedelta(seconds=8)
    assert (p.watch._interval, p.watch._grace, p.watch._namespaces) == (given.relist_interval, given.watch_grace, ["a"])
