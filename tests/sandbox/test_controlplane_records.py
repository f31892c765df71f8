"""Reading what the API server records: its audit log and its metrics. No server needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.controlplane import audit, prometheus

if TYPE_CHECKING:
    from pathlib import Path


def line(**changes: Any) -> str:
    """One line of an audit log."""
    event = {
        "auditID": "1",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/a/secrets/s",
        "verb": "get",
        "user": {"username": "system:serviceaccount:squidex-operator:squidex-operator"},
        "userAgent": "operator/1",
        "objectRef": {"resource": "secrets", "namespace": "a", "name": "s"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
    }
    return json.dumps(event | changes) + "\n"


def test_a_request_is_read_with_its_user_and_object(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    status = {"apiGroup": "squidex-operator.io", "resource": "squidexclients", "subresource": "status"}
    log.write_text(line() + line(auditID="2", verb="patch", objectRef=status))
    first, second = audit.read(log)
    assert (first.verb, first.resource, first.namespace, first.name, first.code) == ("get", "secrets", "a", "s", 200)
    assert (second.resource, second.group) == ("squidexclients/status", "squidex-operator.io")
    assert [event.is_write for event in (first, second)] == [False, True]


def test_a_watch_counts_once_whether_it_still_runs_or_has_ended(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(line(verb="watch", stage="ResponseStarted", userAgent="old") + line(auditID="2"))
    assert [event.verb for event in audit.read(log)] == ["watch", "get"]
    with log.open("a") as stream:
        stream.write(line(verb="watch"))
    assert [(event.verb, event.user_agent) for event in audit.read(log)] == [
        ("watch", "operator/1"),
        ("get", "operator/1"),
    ]


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(line() + line(auditID="2")[:30])
    assert [event.id for event in audit.read(log)] == ["1"]


def test_reading_begins_at_a_mark(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    assert audit.read(log) == []
    log.write_text(line())
    mark = log.stat().st_size
    with log.open("a") as stream:
        stream.write(line(auditID="2"))
    assert [event.id for event in audit.read(log, since=mark)] == ["2"]


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("squidex-operator/squidex-operator", True),
        ("squidex-operator:squidex-operator", True),
        ("system:serviceaccount:squidex-operator:squidex-operator", True),
        ("squidex-operator", False),
        ("default/squidex-operator", False),
    ],
)
def test_a_service_account_is_named_in_short_or_in_full(tmp_path: Path, user: str, found: bool) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(line())
    assert bool(audit.of_user(audit.read(log), user)) is found


def test_one_metric_is_picked_out_of_the_text() -> None:
    text = (
        "# TYPE apiserver_request_total counter\n"
        'apiserver_request_total{code="200",verb="GET",note="a \\"b\\", c"} 12\n'
        'apiserver_request_total_other{code="200"} 1\n'
        "process_open_fds 1.5e+02\n"
    )
    (sample,) = prometheus.samples(text, "apiserver_request_total")
    assert sample.value == 12
    assert sample.labels == {"code": "200", "verb": "GET", "note": 'a \\"b\\", c'}
    assert [found.value for found in prometheus.samples(text, "process_open_fds")] == [150]
