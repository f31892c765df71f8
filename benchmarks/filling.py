"""Filling, restarting and standing idle: what many SquidexClients cost when they are new, when they are not, and for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks import measure
from benchmarks.bed import FAST, NAMESPACES, Bed, pid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CONCURRENCIES = (8, 16, 32, 64)
WRITES = ("create", "patch", "update", "delete")


def bare(bed: Bed, concurrencies: Sequence[int] = CONCURRENCIES) -> dict[str, Any]:
    """The bare loop, at the concurrency that is best here; `sweep` has the rate at each, the best first."""
    found = sorted((bed.bare(n) for n in concurrencies), key=lambda figures: -float(figures["rate"]))
    bed.reset()
    return found[0] | {"sweep": {str(each["concurrency"]): round(each["rate"]) for each in found}}


def fill(bed: Bed, shares: Sequence[Sequence[str]] = ((),)) -> dict[str, Any]:
    """From no token at all to all ready, with one operator for each share of the namespaces; none means all of them."""
    mark = bed.plane.audit_mark()
    operators = [bed.start(*FAST, namespaces=share) for share in shares]
    pids = [pid_of(operator) for operator in operators]
    measure.wait(lambda: bed.tokens() > 0, "the first token", pause=0.01)
    cpu = [measure.cpu_seconds(pid) for pid in pids]
    seconds = measure.wait(lambda: bed.tokens() >= bed.count, "all tokens")
    measure.wait(lambda: sum(bed.ready(operator) for operator in operators) >= bed.count, "all ready", pause=1)
    spent = sum(measure.cpu_seconds(pid) - before for pid, before in zip(pids, cpu, strict=True))
    requests = [row for row in bed.requests(mark) if not row.startswith(("list", "watch"))]
    return {
        "seconds": seconds,
        "rate": bed.count / seconds,
        "cpu_ms": spent / bed.count * 1000,
        "calls": len(requests) / bed.count,
        "token_requests": bed.tokens() / bed.count,
        "peak_rss_mib": max(measure.rss_mib(pid, peak=True) for pid in pids),
    }


def restart(bed: Bed) -> dict[str, Any]:
    """All tokens are valid: nothing is to be done."""
    bed.stop()
    tokens, mark = bed.tokens(), bed.plane.audit_mark()
    operator = bed.start(*FAST)
    seconds = measure.wait(lambda: operator.get("/readyz")[0] == 200, "ready", pause=0.02)
    cpu = measure.settle(bed.pid)
    requests = bed.requests(mark)
    if bed.ready(operator) < bed.count:
        raise RuntimeError("not all SquidexClients are ready after a restart")
    return {
        "ready_seconds": seconds,
        "cpu_seconds": cpu,
        "calls": len(requests),
        "writes": sum(row.startswith(WRITES) for row in requests),
        "token_requests": bed.tokens() - tokens,
        "rss_mib": measure.rss_mib(bed.pid),
    }


def idle(bed: Bed, seconds: float = 60) -> dict[str, Any]:
    """Nothing happens: probes once an hour for each, the server's keys every five minutes."""
    mark, cpu = bed.plane.audit_mark(), measure.cpu_seconds(bed.pid)
    time.sleep(seconds)  # a measurement's interval
    requests = bed.requests(mark)
    return {
        "cpu_percent": (measure.cpu_seconds(bed.pid) - cpu) / seconds * 100,
        "calls": len(requests),
        "writes": sum(row.startswith(WRITES) for row in requests),
        "rss_mib": measure.rss_mib(bed.pid),
    }


def scale_out(bed: Bed, one: dict[str, Any]) -> dict[str, Any]:
    """Two processes, each with half of the namespaces, do what one did."""
    bed.stop()
    bed.reset()
    names = [f"bench-{number}" for number in range(NAMESPACES)]
    two = fill(bed, [names[::2], names[1::2]])
    bed.stop()
    return two | {"cpu_ratio": two["cpu_ms"] / one["cpu_ms"], "rate_ratio": two["rate"] / one["rate"]}
