"""`make bench`: all measurements in one run, as a table and a JSON file. See docs/performance.md."""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from typing import Any

from benchmarks import measure
from benchmarks.bed import NAMESPACES, Bed
from sandbox.environment import Sandbox

CONCURRENCIES = (8, 16, 32, 64)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="1000", help="numbers of SquidexClients, separated by commas")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-result.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "runs": []}
    for count in [int(part) for part in options.counts.split(",")]:
        result["runs"].append(run(count))
    options.out.write_text(json.dumps(result, indent=2))
    print(f"\nwritten to {options.out}")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("aiohttp", "httpx", "kopf", "kubernetes", "pydantic")
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def run(count: int) -> dict[str, Any]:
    """All measurements for one number of SquidexClients."""
    print(f"\n{count} SquidexClients in {NAMESPACES} namespaces", flush=True)
    with Sandbox() as sandbox:
        bed = Bed(sandbox, count)
        bed.fill()
        bare = max((bed.bare(n) for n in CONCURRENCIES), key=lambda found: float(found["rate"]))
        show("bare loop", bare)
        bed.reset()
        figures = {"count": count, "bare": bare}
        for name, step in (("fill", fill), ("restart", restart), ("idle", idle), ("healing", healing), ("keys", keys)):
            figures[name] = step(bed)
            show(name, figures[name])
        figures["ratios"] = {
            "rate": figures["fill"]["rate"] / bare["rate"],
            "cpu": figures["fill"]["cpu_ms"] / bare["cpu_ms"],
        }
        show("operator / bare", figures["ratios"])
        return figures


def show(name: str, figures: dict[str, Any]) -> None:
    """One row of the table."""
    cells = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()]
    print(f"  {name:16} {'   '.join(cells)}", flush=True)


def fill(bed: Bed) -> dict[str, Any]:
    """From no token at all to all ready."""
    mark = bed.plane.audit_mark()
    operator = bed.start("--keys-interval=300s")
    pid = operator.program.pid
    assert pid is not None
    measure.wait(lambda: bed.tokens() > 0, "the first token", pause=0.01)
    cpu = measure.cpu_seconds(pid)
    seconds = measure.wait(lambda: bed.tokens() >= bed.count, "all tokens")
    measure.wait(lambda: bed.ready(operator) >= bed.count, "all ready", pause=0.2)
    cpu = measure.cpu_seconds(pid) - cpu
    requests = [row for row in bed.requests(mark) if not row.startswith(("list", "watch"))]
    return {
        "seconds": seconds,
        "rate": bed.count / seconds,
        "cpu_ms": cpu / bed.count * 1000,
        "calls": len(requests) / bed.count,
        "token_requests": bed.tokens() / bed.count,
        "rss_mib": measure.rss_mib(pid, peak=True),
    }


def restart(bed: Bed) -> dict[str, Any]:
    """All tokens are valid: nothing is to be done."""
    bed.sandbox.operators[0].stop()
    tokens, mark = bed.tokens(), bed.plane.audit_mark()
    operator = bed.start()
    pid = operator.program.pid
    assert pid is not None
    seconds = measure.wait(lambda: operator.get("/readyz")[0] == 200, "ready", pause=0.02)
    measure.wait(lambda: bed.ready(operator) >= bed.count, "all ready", pause=0.2)
    cpu = settle(pid)
    requests = bed.requests(mark)
    writes = [row for row in requests if row.split()[0] in ("create", "patch", "update", "delete")]
    return {
        "ready_seconds": seconds,
        "cpu_seconds": cpu,
        "calls": len(requests),
        "writes": len(writes),
        "token_requests": bed.tokens() - tokens,
        "rss_mib": measure.rss_mib(pid),
    }


def settle(pid: int) -> float:
    """Wait until a process has nothing more to do; its CPU time so far."""
    before = -1.0
    while (now := measure.cpu_seconds(pid)) - before > 0.02:
        before = now
        time.sleep(1)  # a measurement's interval
    return now


def idle(bed: Bed, seconds: float = 20) -> dict[str, Any]:
    """Nothing happens."""
    pid = bed.sandbox.operators[0].program.pid
    assert pid is not None
    mark, cpu = bed.plane.audit_mark(), measure.cpu_seconds(pid)
    time.sleep(seconds)  # a measurement's interval
    return {
        "cpu_percent": (measure.cpu_seconds(pid) - cpu) / seconds * 100,
        "calls": len(bed.requests(mark)),
        "rss_mib": measure.rss_mib(pid),
    }


def healing(bed: Bed, times: int = 100) -> dict[str, Any]:
    """How long until a deleted target is back, a damaged one mended, and changed credentials are in it."""
    back, mended = [], []
    for number in range(times):
        path = f"/api/v1/namespaces/bench-{number % NAMESPACES}/secrets/c{number}"
        old = bed.kube("GET", path)["metadata"]["uid"]
        began = time.perf_counter()
        bed.kube("DELETE", path)
        while bed.kube("GET", path)["metadata"].get("uid", old) == old:
            pass
        back.append(time.perf_counter() - began)
        damage = {"data": {"token": base64.b64encode(b"damaged").decode()}}
        began = time.perf_counter()
        bed.kube("PATCH", path, damage, "application/merge-patch+json")
        while bed.kube("GET", path)["data"]["token"] == damage["data"]["token"]:
            pass
        mended.append(time.perf_counter() - began)
    return {
        "deleted_p50_ms": measure.quantile(back, 0.5) * 1000,
        "deleted_p99_ms": measure.quantile(back, 0.99) * 1000,
        "damaged_p50_ms": measure.quantile(mended, 0.5) * 1000,
        "damaged_p99_ms": measure.quantile(mended, 0.99) * 1000,
    }


def keys(bed: Bed) -> dict[str, Any]:
    """The server's key is replaced: all tokens die, and one list of keys tells."""
    operator = bed.sandbox.operators[0]
    operator.stop()
    operator.program.argv = [*operator.program.argv, "--keys-interval=2s"]
    operator.start()
    before = bed.tokens()
    bed.sandbox.squidex.patch({"key": "replace"})
    measure.wait(lambda: bed.tokens() > before, "the first new token", pause=0.01)
    seconds = measure.wait(lambda: bed.tokens() >= before + bed.count, "all new tokens")
    pid = operator.program.pid
    assert pid is not None
    settle(pid)
    return {"seconds": seconds, "rate": bed.count / seconds, "token_requests": (bed.tokens() - before) / bed.count}


if __name__ == "__main__":
    main()
