"""What Prometheus reads."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from squidex_operator import process, settings
from squidex_operator.engine import inventory
from squidex_operator.observe import metrics
from tests.unit.policy import situation


def test_every_metric_has_our_name_or_the_process_of_it() -> None:
    text = metrics.Metrics().render().decode()
    names = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert len(names) > 8
    assert all(name.startswith(("squidex_operator_", "process_")) for name in names)


def test_every_one_of_ours_is_explained() -> None:
    text = metrics.Metrics().render().decode()
    helps = dict(re.findall(r"^# HELP (squidex_operator_\S+) (.*)$", text, re.MULTILINE))
    assert helps
    assert all(len(line) > 10 for line in helps.values())


def test_counters_count() -> None:
    m = metrics.Metrics()
    m.token_requests.labels(cause="FirstToken", result="granted").inc()
    m.token_request_seconds.observe(0.2)
    m.failures.labels(reason="Timeout").inc(2)
    text = m.render().decode()
    assert 'squidex_operator_token_requests_total{cause="FirstToken",result="granted"} 1.0' in text
    assert 'squidex_operator_token_request_duration_seconds_bucket{le="0.25"} 1.0' in text
    assert 'squidex_operator_failures_total{reason="Timeout"} 2.0' in text


def test_a_gauge_is_read_when_somebody_asks() -> None:
    m, value = metrics.Metrics(), [1.0]
    m.gauge("squidex_operator_depth", "How deep.", lambda: value[0])
    assert "squidex_operator_depth 1.0" in m.render().decode()
    value[0] = 7.0
    assert "squidex_operator_depth 7.0" in m.render().decode()


def test_each_squidexclient_has_its_gauges_as_long_as_it_is_there() -> None:
    m = metrics.Metrics()
    rows = [
        metrics.ClientFigures("shop", "good", True, 2000.0, 1000.0, 0, None),
        metrics.ClientFigures("shop", "new", False, None, None, 3, 500.0),
    ]
    m.collect(metrics.Collector(lambda: rows))
    text = m.render().decode()
    assert 'squidex_operator_token_expiry_timestamp_seconds{name="good",namespace="shop"} 2000.0' in text
    assert 'squidex_operator_token_next_refresh_timestamp_seconds{name="good",namespace="shop"} 1000.0' in text
    assert 'squidex_operator_client_ready{name="good",namespace="shop"} 1.0' in text
    assert 'squidex_operator_client_ready{name="new",namespace="shop"} 0.0' in text
    assert 'expiry_timestamp_seconds{name="new"' not in text
    assert 'squidex_operator_client_failures{name="new",namespace="shop"} 3.0' in text
    assert 'squidex_operator_client_next_attempt_timestamp_seconds{name="new",namespace="shop"} 500.0' in text
    assert 'next_attempt_timestamp_seconds{name="good"' not in text
    rows.clear()
    assert "shop" not in m.render().decode()


def test_two_processes_in_one_share_nothing() -> None:
    first, second = metrics.Metrics(), metrics.Metrics()
    first.publishes.labels(cause="FirstToken").inc()
    assert 'cause="FirstToken"' not in second.render().decode()


@pytest.fixture
def whole() -> process.Process:
    """A process in which everything has happened once: a SquidexClient that is well, one that fails."""
    made = process.Process(settings.parse([], {}))
    m, seen = made.tools.metrics, made.tools.inventory
    secret = situation.secret()
    secret["metadata"] |= {"namespace": "shop"}
    for name, uid in (("shop", situation.UID), ("other", "uid-of-other")):
        metadata = {"namespace": "shop", "name": name, "uid": uid, "resourceVersion": "40", "generation": 1}
        seen.see_client({"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "keys"}}})
    seen.see_secret(secret)
    seen.records[inventory.Key("shop", "other")].failure = situation.failure()
    for counter in (m.token_requests, m.probes, m.key_checks, m.publishes, m.failures, m.status_writes):
        counter.labels(*("something" for _ in counter._labelnames)).inc()
    m.token_request_seconds.observe(0.2)
    return made


WANTED = {
    "token_expiry_timestamp_seconds": "gauge",
    "token_next_refresh_timestamp_seconds": "gauge",
    "client_ready": "gauge",
    "token_requests_total": "counter",
    "token_request_duration_seconds": "histogram",
    "probes_total": "counter",
    "key_checks_total": "counter",
    "target_writes_total": "counter",
    "client_failures": "gauge",
    "client_next_attempt_timestamp_seconds": "gauge",
    "queue_depth": "gauge",
    "queue_lag_seconds": "gauge",
    "server_clock_skew_seconds": "gauge",
    "watch_age_seconds": "gauge",
}


def test_what_an_operator_of_the_operator_needs_is_there(whole: process.Process) -> None:
    text = whole.tools.metrics.render().decode()
    types = dict(re.findall(r"^# TYPE squidex_operator_(\S+) (\S+)$", text, re.MULTILINE))
    assert {name: types.get(name) for name in WANTED} == WANTED
    for name in WANTED:
        assert re.search(rf"^squidex_operator_{name}(_bucket)?(\{{|\s)", text, re.MULTILINE), f"{name} has no series"


def test_the_series_of_a_squidexclient_go_with_it(whole: process.Process) -> None:
    def named() -> list[str]:
        lines = whole.tools.metrics.render().decode().splitlines()
        return [line for line in lines if 'namespace="shop"' in line]

    assert len([line for line in named() if 'name="shop"' in line]) == 4
    assert len([line for line in named() if 'name="other"' in line]) == 3
    whole.tools.inventory.forget_client(inventory.Key("shop", "shop"))
    whole.tools.inventory.forget_client(inventory.Key("shop", "other"))
    assert named() == []


LABELS = {"namespace", "name", "cause", "result", "reason", "le"}
"""The first two go with a SquidexClient; the others are words of the operator's own."""

_NO_BASE_UNIT = re.compile(r"_(ms|millis|milliseconds|minutes|hours|days|kb|kib|mb|mib|percent)(_|$)")


def test_names_are_as_promtool_wants_them(whole: process.Process) -> None:
    """Its rules (https://prometheus.io/docs/practices/naming), where there is no promtool."""
    text = whole.tools.metrics.render().decode()
    for name, kind in re.findall(r"^# TYPE (squidex_operator_\S+) (\S+)$", text, re.MULTILINE):
        assert (kind == "counter") is name.endswith("_total"), name
        assert not name.endswith(("_count", "_sum", "_bucket")), name
        assert not _NO_BASE_UNIT.search(name), name
        assert not re.search(r"[A-Z:]|_(counter|gauge|histogram|summary)(_|$)", name), name
    labels = set(re.findall(r'[{,]([a-z_]+)="', "\n".join(re.findall(r"^squidex_operator_.*$", text, re.MULTILINE))))
    assert labels <= LABELS


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_the_metrics_of_a_whole_process_are_clean_by_promtool(whole: process.Process) -> None:
    text = whole.tools.metrics.render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
