"""Metrics for Prometheus. Names begin with squidex_operator_, units are in the names, labels are bounded.

Gauges of each SquidexClient are computed when somebody asks, from the inventory: they cost no memory and go with their object.
"""

import dataclasses
from collections.abc import Callable, Iterable

import prometheus_client
from prometheus_client import core, registry


class Metrics:
    """All counters and histograms of the process, in a registry of their own."""

    def __init__(self) -> None:
        # The time each series was made at: three times the series, and nobody asks.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self.token_requests = prometheus_client.Counter(
            "squidex_operator_token_requests",
            "Token requests to Squidex, by cause and result.",
            ["cause", "result"],
            registry=self.registry,
        )
        self.token_request_seconds = prometheus_client.Histogram(
            "squidex_operator_token_request_duration_seconds",
            "How long token requests took.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
        )
        self.probes = prometheus_client.Counter(
            "squidex_operator_probes", "Probes of tokens, by result.", ["result"], registry=self.registry
        )
        self.key_checks = prometheus_client.Counter(
            "squidex_operator_key_checks",
            "Requests for a server's signing keys, by result.",
            ["result"],
            registry=self.registry,
        )
        self.publishes = prometheus_client.Counter(
            "squidex_operator_target_writes",
            "Writes to target Secrets, by cause.",
            ["cause"],
            registry=self.registry,
        )
        self.failures = prometheus_client.Counter(
            "squidex_operator_failures", "Failures of reconciles, by reason.", ["reason"], registry=self.registry
        )
        self.status_writes = prometheus_client.Counter(
            "squidex_operator_status_writes", "Writes of status, by result.", ["result"], registry=self.registry
        )
        self.missed_events = prometheus_client.Counter(
            "squidex_operator_watch_missed_events",
            "Changes that a list showed and the watch had not reported.",
            registry=self.registry,
        )
        self.clock_skew_seconds = prometheus_client.Gauge(
            "squidex_operator_server_clock_skew_seconds",
            "How far the clock of the server that answered last is ahead of ours.",
            registry=self.registry,
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        prometheus_client.Gauge(name, text, registry=self.registry).set_function(read)

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A counter that is kept elsewhere and read when somebody asks."""
        self.registry.register(_Counted(name, text, read))

    def collect(self, collector: "Collector") -> None:
        """Metrics that are computed when somebody asks."""
        self.registry.register(collector)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return prometheus_client.generate_latest(self.registry)


class _Counted(registry.Collector):
    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name = name
        self._text = text
        self._read = read

    def collect(self) -> Iterable[core.Metric]:
        yield core.CounterMetricFamily(self._name, self._text, value=self._read())


@dataclasses.dataclass(frozen=True)
class ClientFigures:
    """What is told of one SquidexClient. Times are epoch seconds; None where there is none."""

    namespace: str
    name: str
    ready: bool
    expiry: float | None
    next_refresh: float | None
    failures: int
    next_attempt: float | None


class Collector(registry.Collector):
    """Gauges of each SquidexClient."""

    def __init__(self, read: Callable[[], Iterable[ClientFigures]]) -> None:
        self._read = read

    def collect(self) -> Iterable[core.Metric]:
        """Called by the registry."""
        ready = _family("squidex_operator_client_ready", "1 where Ready is True.")
        expiry = _family("squidex_operator_token_expiry_timestamp_seconds", "When the token expires.")
        refresh = _family("squidex_operator_token_next_refresh_timestamp_seconds", "When the token is renewed.")
        failures = _family("squidex_operator_client_failures", "Attempts that failed in a row.")
        attempt = _family(
            "squidex_operator_client_next_attempt_timestamp_seconds", "When a failing one is tried again."
        )
        for found in self._read():
            labels = [found.namespace, found.name]
            ready.add_metric(labels, 1.0 if found.ready else 0.0)
            failures.add_metric(labels, found.failures)
            for family, time in ((expiry, found.expiry), (refresh, found.next_refresh), (attempt, found.next_attempt)):
                if time is not None:
                    family.add_metric(labels, time)
        return [ready, expiry, refresh, failures, attempt]


def _family(name: str, text: str) -> core.GaugeMetricFamily:
    return core.GaugeMetricFamily(name, text, labels=["namespace", "name"])
