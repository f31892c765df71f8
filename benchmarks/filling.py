"""Filling, restarting and standing idle: what many SquidexClients cost when they are new, when they are not, and for ever."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks import measure
from benchmarks.bed import FAST, NAMESPACES, Bed, pid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CONCURRENCIES = (8, 16, 32, 64)


def sweep(bed: Bed, concurrencies: Sequence[int] = CONCURRENCIES) -> dict[str, int]:
    """The bare loop's rate at each concurrency, the best first."""
    rates = {}
    for concurrency in concurrencies:
        rates[concurrency] = bed.bare(concurrency)["rate"]
        bed.reset()
    return {str(each): round(rates[each]) for each in sorted(rates, key=lambda each: -rates[each])}


def bare(bed: Bed, concurrency: int) -> dict[str, Any]:
    """The bare loop, right before the operator: an API server that has done more is slower."""
    found = bed.bare(concurrency)
    bed.reset()
    return found


def bounds(bed: Bed, concurrency: int) -> dict[str, Any]:
    """How near anything could come to the bare loop that keeps the operator's contract, and that is made of its libraries.

    `whole` is the bare loop that writes all that the operator writes, while both kinds are watched; `libraries` does the same
    with Kopf, the Kubernetes client and httpx.
    """
    found = {}
    for name, module in (("whole", "bare"), ("libraries", "libraries")):
        figures = bed.bare(concurrency, "--whole", module=module)
        found |= {f"{name}_rate": figures["rate"], f"{name}_cpu_ms": figures["cpu_ms"]}
        bed.reset()
    return found


def fill(bed: Bed, shares: Sequence[Sequence[str]] = ((),)) -> dict[str, Any]:
    """From no token at all to all ready, with one operator for each share of the namespaces; none means all of them.

    Timed by the API server's own log, from the first request after the lists to the last status, because to ask the operator
    or Squidex how far they are would take from what is measured.
    """
    mark, tokens = bed.plane.audit_mark(), bed.tokens()
    operators = [bed.start(*FAST, namespaces=share) for share in shares]
    pids = [pid_of(operator) for operator in operators]
    count = bed.count * sum(len(share) or NAMESPACES for share in shares) // NAMESPACES
    before: dict[int, float] = {}

    def have_listed() -> bool:
        for pid, operator in zip(pids, operators, strict=True):
            if pid not in before and operator.get("/readyz")[0] == 200:
                before[pid] = measure.cpu_seconds(pid)
        return len(before) == len(pids)

    measure.wait(have_listed, "the first lists", pause=0.01)
    measure.wait(lambda: bed.tokens() >= tokens + count, "all tokens", pause=0.5)
    measure.wait(lambda: sum(bed.ready(operator) for operator in operators) >= count, "all ready", pause=1)
    spent = sum(measure.cpu_seconds(pid) - before[pid] for pid in pids)
    requests = [row for row in bed.requests(mark) if row.verb not in ("list", "watch")]
    secrets, statuses = bed.times(requests, "get secrets"), bed.times(requests, "patch squidexclients/status")
    seconds = max(statuses) - min(secrets)
    return {
        "seconds": seconds,
        "rate": count / seconds,
        "cpu_ms": spent / count * 1000,
        "calls": len(requests) / count,
        "token_requests": (bed.tokens() - tokens) / count,
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
        "writes": sum(row.is_write for row in requests),
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
        "writes": sum(row.is_write for row in requests),
        "rss_mib": measure.rss_mib(bed.pid),
    }


def scale_out(bed: Bed) -> dict[str, Any]:
    """Two processes, each with half of the namespaces, do what one does before and after them.

    `in_turn` is the two halves one after the other: what two processes cost that do not share the cores with each other.
    """
    names = [f"bench-{number}" for number in range(NAMESPACES)]
    halves = [names[::2], names[1::2]]

    def again(shares: Sequence[Sequence[str]] = ((),), *, keep: bool = False) -> dict[str, Any]:
        bed.stop()
        if not keep:
            bed.reset()
        return fill(bed, shares)

    before, two, after = again(), again(halves), again()
    in_turn = [again([half], keep=half is halves[1])["cpu_ms"] for half in halves]
    bed.stop()
    ones = {name: statistics.fmean((before[name], after[name])) for name in ("cpu_ms", "rate")}
    ratios = {f"{name}_ratio": two[name] / ones[name] for name in ones}
    return two | ratios | {"in_turn_cpu_ms_ratio": statistics.fmean(in_turn) / ones["cpu_ms"]}
