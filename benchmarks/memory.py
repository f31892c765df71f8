"""Whether memory grows: with reconciles, with what others write, and with Secrets that are none of the operator's business."""

from __future__ import annotations

import concurrent.futures
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks import filling, measure
from benchmarks.bed import API, CONNECTIONS, NAMESPACES, Bed

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 20_000
STEPS = 40
FOREIGN = 500
FOREIGN_BYTES = 1_000_000
STARTS = 5


def reconciles(bed: Bed, times: int = BURST) -> dict[str, Any]:
    """So many reconciles: each time another `probe.interval`, which fetches nothing."""

    def edit(each: Bed, turn: int) -> None:
        number = turn % bed.count
        path = f"{API}/namespaces/bench-{number % NAMESPACES}/squidexclients/c{number}"
        # No probes from here on: each reconciles, and so corrects the status that `status_writes` has others write.
        body = {"spec": {"probe": {"mode": "Off", "interval": f"{60 + (turn // bed.count) % 2}m"}}}
        each.kube("PATCH", path, body, "application/merge-patch+json")

    tokens = bed.tokens()
    return _burst(bed, edit, times) | {"token_requests": bed.tokens() - tokens}


def status_writes(bed: Bed, times: int = BURST) -> dict[str, Any]:
    """So many writes of others to the status: none may cause one of ours."""

    def write(each: Bed, turn: int) -> None:
        number = turn % bed.count
        path = f"{API}/namespaces/bench-{number % NAMESPACES}/squidexclients/c{number}/status?fieldManager=other&force=true"
        condition = {
            "type": "Other",
            "status": "True",
            "reason": "Burst",
            "message": f"turn {turn}",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        body = {
            "apiVersion": "squidex-operator.io/v1beta1",
            "kind": "SquidexClient",
            "status": {"conditions": [condition]},
        }
        each.kube("PATCH", path, body, "application/apply-patch+yaml")

    return _burst(bed, write, times)


def foreign(bed: Bed) -> dict[str, Any]:
    """Large Secrets without our label: what they change at the start."""
    before = [filling.restart(bed) for _ in range(STARTS)]
    payload = "x" * FOREIGN_BYTES
    for number in range(FOREIGN):
        namespace = f"bench-{number % NAMESPACES}"
        body = {"metadata": {"name": f"foreign-{number}"}, "stringData": {"large": payload}}
        bed.kube("POST", f"/api/v1/namespaces/{namespace}/secrets", body)
    after = [filling.restart(bed) for _ in range(STARTS)]
    for number in range(FOREIGN):
        bed.kube("DELETE", f"/api/v1/namespaces/bench-{number % NAMESPACES}/secrets/foreign-{number}")

    def median(starts: list[dict[str, Any]], name: str) -> float:
        return statistics.median(start[name] for start in starts)

    return {
        "secrets": FOREIGN,
        "bytes_each": FOREIGN_BYTES,
        "start_cpu_ratio": median(after, "cpu_seconds") / median(before, "cpu_seconds"),
        "rss_difference_mib": median(after, "rss_mib") - median(before, "rss_mib"),
    }


def _burst(bed: Bed, act: Callable[[Bed, int], None], times: int) -> dict[str, Any]:
    """Do something many times, from several connections, and see what that does to the operator."""
    measure.settle(bed.pid)
    mark, cpu = bed.plane.audit_mark(), measure.cpu_seconds(bed.pid)
    beds = [Bed(bed.sandbox, bed.count) for _ in range(CONNECTIONS)]
    points = []

    def work(which: int, turns: range) -> None:
        for turn in turns:
            if turn % CONNECTIONS == which:
                act(beds[which], turn)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        for step in range(STEPS):
            turns = range(step * times // STEPS, (step + 1) * times // STEPS)
            list(pool.map(work, range(CONNECTIONS), [turns] * CONNECTIONS))
            points.append((turns.stop, measure.rss_mib(bed.pid) * 1024 * 1024))
    seconds = time.monotonic() - began
    spent = measure.settle(bed.pid) - cpu
    # The first quarter is left out: what grows there are caches and pools that have an end.
    grown, error = measure.growth(points[STEPS // 4 :])
    return {
        "times": times,
        "rate": times / seconds,
        "cpu_ms": spent / times * 1000,
        "bytes_each": grown,
        "bytes_each_error": error,
        "standard_errors": grown / error if error else 0.0,
        "rss_mib": measure.rss_mib(bed.pid),
        "writes": sum(row.is_write for row in bed.requests(mark)),
    }
