"""What Prometheus reads."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from squidex_operator import process, settings
from squidex_operator.observe import metrics


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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_the_metrics_of_a_whole_process_are_clean_by_promtool() -> None:
    made = process.Process(settings.parse([], {}))
    made.tools.metrics.token_requests.labels(cause="FirstToken", result="granted").inc()
    made.tools.metrics.failures.labels(reason="Timeout").inc()
    text = made.tools.metrics.render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
