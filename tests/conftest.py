"""What all tests share: figures that are measured on the way, for the end of the run's output."""

from __future__ import annotations

import datetime as dt
import signal
from typing import TYPE_CHECKING

import pytest

from squidex_operator.engine import queue

if TYPE_CHECKING:
    from collections.abc import Callable

_FIGURE = "figure"


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: a shell that starts something in the background has it ignored, for all below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tell of something measured, in one line. It is printed at the end of the run, from other processes too."""
    return lambda line: record_property(_FIGURE, line)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue looks at the clock less often: on virtual time the rules are the same, and days take seconds."""
    monkeypatch.setattr(queue, "LONGEST_SLEEP", dt.timedelta(minutes=15))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    told = [
        (report.nodeid, value)
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == _FIGURE and report.when == "call"
    ]
    if told:
        terminalreporter.section("figures")
    for test, line in told:
        terminalreporter.write_line(f"{test.rpartition('::')[2]}: {line}")
