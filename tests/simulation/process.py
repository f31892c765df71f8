"""The operator's process on the model: its real parts, put together as `squidex_operator.process` does, and restarted."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
import logging
from typing import TYPE_CHECKING

from squidex_operator import process
from squidex_operator.engine import hosts, inventory, queue, reconcile, servers, tools, trust, watch
from squidex_operator.kube import errors as kube_errors
from squidex_operator.observe import metrics
from tests.simulation import cluster as cluster_module
from tests.simulation import gateway, internet, squidex, virtual
from tests.simulation.cluster import CLIENTS, SECRETS, Body

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

_START_RETRY = 5.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The command line's, as far as they matter here."""

    keys_interval: dt.timedelta = dt.timedelta(minutes=5)
    relist_interval: dt.timedelta = dt.timedelta(minutes=10)
    workers: int = 64
    hosts: hosts.HostLimits = hosts.HostLimits()  # noqa: RUF009 - frozen


class Delivery:
    """The watch streams: in order within a kind, late, out of order between the kinds, and now and then with a loss."""

    def __init__(self, cluster: cluster_module.Cluster, api: gateway.Gateway, rng: random.Random, loss: float) -> None:
        self._cluster = cluster
        self._api = api
        self._rng = rng
        self.loss = loss
        self.late = 0.01
        """How many events are late by seconds, and with them all that follow."""
        self._last = {CLIENTS: 0.0, SECRETS: 0.0}
        self._listener: watch.Watch | None = None
        self.lost: dict[cluster_module.Key, float] = {}
        """Objects of which an event was lost, and when."""

    def connect(self, listener: watch.Watch) -> None:
        """Watch: first what is there, then what comes."""
        self._listener = listener
        for what in (CLIENTS, SECRETS):
            for body in list(self._cluster.objects[what].values()):
                if what == CLIENTS or cluster_module.has_role(body):
                    self._give(listener, what, None, body)
        self._cluster.listeners = [self._report]

    def disconnect(self) -> None:
        """Nothing comes any more, not even what is on its way."""
        self._listener = None
        self._cluster.listeners = []

    def _report(self, what: str, event: str, body: Body) -> None:
        listener = self._listener
        if self._rng.random() < self.loss:
            self.lost[cluster_module.Key(body["metadata"]["namespace"], body["metadata"]["name"])] = virtual.now()
            return
        delay = self._rng.expovariate(20) if self._rng.random() >= self.late else self._rng.uniform(0, 10)
        at = self._last[what] = max(self._last[what], virtual.now() + delay)

        def arrive() -> None:
            if self._listener is not listener or listener is None:
                return
            if self._api.down:
                virtual.call_later(1 + self._rng.random(), lambda: self._again(what, event, body, listener))
                return
            self._give(listener, what, event, body)

        virtual.call_later(at - virtual.now(), arrive)

    def _again(self, what: str, event: str, body: Body, listener: watch.Watch) -> None:
        """What was on its way in an outage comes after it: the watch goes on where it was."""
        if self._listener is listener:
            self._report(what, event, body)

    def _give(self, listener: watch.Watch, what: str, event: str | None, body: Body) -> None:
        (listener.client_event if what == CLIENTS else listener.secret_event)(event, body)


class Process:
    """One operator, that is started again whenever it ends."""

    def __init__(
        self,
        cluster: cluster_module.Cluster,
        world: Mapping[str, squidex.Server],
        rng: random.Random,
        settings: Settings,
        *,
        loss: float = 0.0,
    ) -> None:
        self.clock = virtual.Clock()
        self.gateway = gateway.Gateway(cluster, rng)
        self.delivery = Delivery(cluster, self.gateway, rng, loss)
        self.tools: tools.Tools | None = None
        self.listed = False
        self.ends: collections.Counter[str] = collections.Counter()
        """Why the process ended, and how often."""
        self.causes: collections.Counter[tuple[str, str]] = collections.Counter()
        """Token requests by cause and result, of all processes."""
        self.bugs: list[str] = []
        """What was logged as an error: the operator's own mistakes."""
        self.starts: list[tuple[float, float]] = []
        """When the process ended, and when its successor had listed everything."""
        self._world = world
        self._rng = rng
        self._settings = settings
        self._kill = asyncio.Event()
        self._gently = False

    def set_clock(self, offset: float) -> None:
        """Let the machine's clock jump; the heartbeat notices it within a second."""
        jump = dt.timedelta(seconds=offset - self.clock.offset)
        self.clock.offset = offset

        def notice() -> None:
            if self.listed and abs(jump) > dt.timedelta(seconds=10):
                process.Process._clock_jumped(self, jump)  # type: ignore[arg-type]

        virtual.call_later(self._rng.random(), notice)

    def end(self, *, gently: bool) -> None:
        """SIGTERM, or SIGKILL: then whatever is in work is lost, a fetched token too."""
        self._gently = gently
        self._kill.set()

    async def run(self) -> None:
        """Run and start again, for ever."""
        logger = logging.getLogger("squidex_operator")
        handler = _Bugs(self.bugs)
        logger.addHandler(handler)
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        try:
            ended = virtual.now()
            while True:
                self.ends[await self._once(ended)] += 1
                ended = virtual.now()
                await asyncio.sleep(self._rng.uniform(1, 30))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate

    async def _once(self, ended: float) -> str:
        self._kill.clear()
        t = self.tools = self._build()
        watching = watch.Watch(t, namespaces=(), relist_interval=self._settings.relist_interval)
        while True:
            with contextlib.suppress(kube_errors.KubeError):
                await watching.first_list()
                break
            await asyncio.sleep(_START_RETRY)
        self.delivery.connect(watching)
        self.listed = True
        self.starts.append((ended, virtual.now()))
        reconciler = reconcile.Reconciler(t)
        work = asyncio.create_task(t.queue.run(reconciler.work, workers=self._settings.workers), name="workers")
        parts = [work, asyncio.create_task(watching.run(), name="relist"), asyncio.create_task(self._kill.wait())]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.listed = False
            self.delivery.disconnect()
            if not self._gently:
                for task in t.queue._running.values():
                    task.cancel()
            done = [part for part in parts if part.done() and not part.cancelled()]
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await t.http.close()
            for sample in next(iter(t.metrics.token_requests.collect())).samples:
                if sample.name.endswith("_total"):
                    self.causes[sample.labels["cause"], sample.labels["result"]] += int(sample.value)
        return next((type(error).__name__ for part in done if (error := part.exception())), "killed")

    def _build(self) -> tools.Tools:
        seen = inventory.Inventory()
        keys: queue.Queue[tools.QueueKey] = queue.Queue(self.clock, lane=seen.awaits_first_token_of)
        return tools.Tools(
            clock=self.clock,
            gateway=self.gateway,
            http=internet.Internet(self._world),
            inventory=seen,
            queue=keys,
            hosts=hosts.Hosts(self._settings.hosts, keys.wake, self.clock.now, is_new=seen.awaits_first_token_of),
            servers=servers.Servers(seen, interval=self._settings.keys_interval),
            trust=trust.Trust(self.gateway),
            metrics=metrics.Metrics(),
            draw=self._rng.random,
            mac_key=self._rng.randbytes(32),
        )


class _Bugs(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self, bugs: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._bugs = bugs

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self._bugs.append(f"{virtual.now():.0f} s: {text}")
