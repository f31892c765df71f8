"""What a process costs, read from outside."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory of a process, now or at its peak."""
    wanted = "VmHWM" if peak else "VmRSS"
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {wanted} for process {pid}")


def wait(done: Callable[[], bool], what: str, *, deadline: float = 600, pause: float = 0.05) -> float:
    """Wait until it is done; how long that took."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > deadline:
            raise TimeoutError(f"{what} not within {deadline:.0f} s")
        time.sleep(pause)
    return time.monotonic() - began


def settle(pid: int) -> float:
    """Wait until a process has nothing more to do; its CPU time so far, seconds."""
    before = -1.0
    while (now := cpu_seconds(pid)) - before > 0.02:
        before = now
        time.sleep(1)  # a measurement's interval
    return now


def growth(points: list[tuple[float, float]]) -> tuple[float, float]:
    """How fast something grows, and the standard error of that, for what goes in steps that do not depend on each other.

    Memory does: a page is resident or not, and what is there stays. A line through such points by least squares would claim
    errors far too small, for after each step all of its residuals are alike.
    """
    steps = [after[1] - before[1] for before, after in itertools.pairwise(points)]
    length = points[-1][0] - points[0][0]
    return sum(steps) / length, statistics.stdev(steps) * math.sqrt(len(steps)) / length


def percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    return {f"{name}_p{int(q * 100)}_ms": quantile(seconds, q) * 1000 for q in (0.5, 0.99)}


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile of what was measured, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]
