"""The running operator: puts the parts together, starts them in order, and ends when one of them does."""

import asyncio
import contextlib
import datetime as dt
import logging
import random
import signal
from collections.abc import Iterable

from squidex_operator import handlers
from squidex_operator import settings as settings_module
from squidex_operator.api import reasons, resource
from squidex_operator.engine import clock, hosts, inventory, queue, reconcile, servers, tools, trust, watch
from squidex_operator.kube import access as access_module
from squidex_operator.kube import errors as kube_errors
from squidex_operator.kube import gateway as gateway_module
from squidex_operator.observe import health, metrics
from squidex_operator.policy import schedule
from squidex_operator.squidex import http

logger = logging.getLogger(__name__)

_STUCK = dt.timedelta(minutes=5)
"""Longer than any reconcile takes whose requests end in time or in one or two time-outs: work that takes longer hangs."""

_START_RETRY = 5.0

_LANE = 16
"""SquidexClients of one server that are in work at once for their first token, at least."""


class Process:
    """One operator process."""

    def __init__(self, settings: settings_module.Settings) -> None:
        self._settings = settings
        self.access = access_module.Access(settings.kubeconfig or None, settings.context or None)
        self.stop = asyncio.Event()
        seen = inventory.Inventory(
            inventory.Limits(fetch_interval=settings.client_fetch_interval, fetch_burst=settings.client_fetch_burst)
        )
        wall = clock.WallClock()
        keys: queue.Queue[tools.QueueKey] = queue.Queue(
            wall,
            lane=seen.awaits_first_token_of,
            # A place in it is held for longer than one at the server.
            width=max(_LANE, settings.host_concurrency),
        )
        limits = hosts.HostLimits(settings.host_rate, settings.host_burst, settings.host_concurrency)
        gateway = gateway_module.Gateway(self.access)
        self.tools = tools.Tools(
            clock=wall,
            gateway=gateway,
            trust=trust.Trust(gateway),
            http=http.Http(connections_per_host=settings.host_concurrency, allowed_hosts=settings.allowed_hosts),
            inventory=seen,
            queue=keys,
            hosts=hosts.Hosts(limits, keys.wake, wall.now, is_new=seen.awaits_first_token_of),
            servers=servers.Servers(seen, interval=settings.keys_interval),
            metrics=metrics.Metrics(),
            draw=random.Random().random,  # noqa: S311 - jitter
        )
        self.watch = watch.Watch(
            self.tools,
            namespaces=settings.namespaces,
            relist_interval=settings.relist_interval,
            grace=settings.watch_grace,
        )
        self.heartbeat = health.Heartbeat(wall.now)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        live: dict[str, health.Check] = {"loop": self._check_loop, "workers": self._check_workers}
        self._live = live | {"watch": self._check_watch}
        self.health = health.Server(self._live, {"listed": self._check_listed}, self.tools.metrics.render)
        self._register_gauges()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            AccessError: no API server is configured.
            Exception: what ended one of the parts.
        """
        # Kopf takes the signal over when it starts. Until then nobody would: as PID 1 of a container, where the kernel
        # ignores it, an operator that waits for the API server or the CRD would have to be killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop.set)
        await self.access.load()
        try:
            await self.tools.gateway.open()
            await self.health.start(self._settings.health_listen)
            logger.info("started version=%s health=%d", _version(), self.health.port)
            await self._start()
            if not self.stop.is_set():
                await self._until_one_ends()
            logger.info("stopping")
        finally:
            await self._end()

    async def _start(self) -> None:
        """The first list, as soon as the API server and the CRD are there."""
        while True:
            try:
                if await self.tools.gateway.is_served():
                    await self.watch.first_list()
                    break
                logger.warning("waiting for the CRD: apply crds/ (SquidexClients are not known to the API server)")
            except kube_errors.KubeError as error:
                logger.warning("waiting for the API server message=%r", error.problem.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), _START_RETRY)
            if self.stop.is_set():
                return
        count = len(self.tools.inventory.records)
        logger.info("listed clients=%d namespaces=%s", count, ",".join(self._settings.namespaces) or "all")

    async def _until_one_ends(self) -> None:
        reconciler = reconcile.Reconciler(self.tools)
        parts = {
            "workers": self.tools.queue.run(reconciler.work, workers=self._settings.workers),
            "watch": handlers.watch(
                self.watch,
                self.access,
                self._settings.namespaces,
                self.stop,
                inactivity=self._settings.watch_inactivity,
            ),
            "relist": self.watch.run(),
            "heartbeat": self.heartbeat.run(self._live, on_jump=self._clock_jumped),
        }
        self._tasks = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():
                raise health.UnhealthyError(f"{task.get_name()} was cancelled")
            if error := task.exception():
                raise error
            # Kopf ends without an error when it was stopped, by a signal or by `stop`.
            if task is not self._tasks["watch"]:
                raise health.UnhealthyError(f"{task.get_name()} ended")

    async def _end(self) -> None:
        """Finish what is in work, so that no fetched token is lost; then close."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.health.stop()
        await self.tools.http.close()
        await self.tools.gateway.close()

    def _clock_jumped(self, jump: dt.timedelta) -> None:
        """Due times are wall-clock times. After a jump ahead they are met; set back, all are looked at anew."""
        if jump < dt.timedelta():
            self.tools.hosts.clock_set_back()
            self.tools.servers.clock_set_back()
            for key in self.tools.inventory.clock_set_back():
                self.tools.queue.wake(key)
            for server in self.tools.servers.known():
                self.tools.queue.wake(server)

    def _check_loop(self) -> str:
        return f"blocked for {self.heartbeat.lag:.0f} s" if self.heartbeat.lag > 5 else ""

    def _check_workers(self) -> str:
        if (task := self._tasks.get("workers")) is not None and task.done():
            return "ended"
        stuck = self.tools.queue.longest_running()
        return f"one is stuck for {stuck}" if stuck > _STUCK else ""

    def _check_watch(self) -> str:
        if (task := self._tasks.get("watch")) is not None and task.done():
            return "ended"
        silent = self._watch_age()
        # A list confirms a quiet watch; with the API server away, neither comes, and a new process would not help.
        limit = 3 * self._settings.relist_interval + self._settings.watch_grace
        return f"not heard of for {silent}" if self.watch.listed and silent > limit and not self.watch.failing else ""

    def _watch_age(self) -> dt.timedelta:
        return self.tools.now() - self.watch.heard_at

    def _check_listed(self) -> str:
        return "" if self.watch.listed else "the first list is not done"

    def _register_gauges(self) -> None:
        m, t = self.tools.metrics, self.tools
        m.gauge("squidex_operator_queue_depth", "Keys that are due and wait.", t.queue.depth)
        m.gauge(
            "squidex_operator_queue_lag_seconds",
            "How long the first of them waits.",
            lambda: t.queue.lag().total_seconds(),
        )
        m.gauge("squidex_operator_loop_lag_seconds", "How late the event loop is.", lambda: self.heartbeat.lag)
        m.counter("squidex_operator_clock_jumps", "How often the clock jumped.", lambda: self.heartbeat.jumps)
        m.counter("squidex_operator_unforeseen_errors", "Bugs: see the log.", lambda: t.queue.unforeseen)
        m.gauge(
            "squidex_operator_watch_age_seconds",
            "How long ago the watch, or a list, was heard of.",
            lambda: self._watch_age().total_seconds(),
        )
        m.collect(metrics.Collector(self._read_clients))

    def _read_clients(self) -> Iterable[metrics.ClientFigures]:
        seen = self.tools.inventory
        for key, record in seen.records.items():
            client, failure = record.client, record.failure
            target = seen.targets.get(inventory.Key(key.namespace, client.target_name))
            due = expiry = None
            if target is not None and target.client_uid == client.uid and target.issued_at and target.expires_at:
                refresh = client.spec.refresh if client.spec else resource.Refresh()
                due = schedule.renewal_due(target.issued_at, target.expires_at, refresh, client.uid).timestamp()
                expiry = target.expires_at.timestamp()
            yield metrics.ClientFigures(
                *key,
                ready=client.condition(reasons.ConditionType.READY).get("status") == "True",
                expiry=expiry,
                next_refresh=due,
                failures=failure.count if failure else 0,
                next_attempt=failure.next_attempt.timestamp() if failure else None,
            )


def _version() -> str:
    import squidex_operator

    return squidex_operator.__version__
