"""`make bench`: all measurements in one run, as tables, a JSON file and a picture. See docs/performance.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

from benchmarks import filling, healing, memory, picture, report, startup
from benchmarks.bed import NAMESPACES, Bed
from sandbox.environment import Sandbox

PACKAGES = ("aiohttp", "httpx", "kopf", "kubernetes", "pydantic")
CLIENTS = {"bench:first": "first-secret", "bench:second": "second-secret"}
"""Two, so that credentials can be rotated. They are worth nothing outside the run."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="1000,5000", help="numbers of SquidexClients, separated by commas")
    parser.add_argument(
        "--details-at", type=int, default=1000, help="the number at which healing and memory are measured"
    )
    parser.add_argument("--scale-out-at", type=int, default=5000, help="the number that two processes share")
    parser.add_argument("--only", help="parts to run, separated by commas: growth, startup, healing, memory, scale_out")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-result"), help="folder of the result")
    options = parser.parse_args()
    parts = set((options.only or "growth,startup,healing,memory,scale_out").split(",")) | {"sweep", "bounds"}
    best = 0
    result: dict[str, Any] = {"machine": machine(), "runs": []}
    options.out.mkdir(parents=True, exist_ok=True)
    for count in [int(part) for part in options.counts.split(",")]:
        wanted = parts - {"startup"} if result["runs"] else set(parts)
        if count != options.details_at:
            wanted -= {"healing", "memory"}
        if count != options.scale_out_at:
            wanted -= {"scale_out"}
        if count > options.details_at and best:
            # What they tell, they have told; and with many, they would take longer than all else.
            wanted -= {"sweep", "bounds"}
        result["runs"].append(run(count, wanted, best))
        best = result["runs"][-1]["bare"]["concurrency"]
        # After each: a run that is cut off has what it has.
        (options.out / "result.json").write_text(json.dumps(result, indent=2))
    (options.out / "growth.svg").write_text(picture.growth(result["runs"]))
    (options.out / "tables.md").write_text(report.markdown(result))
    print(f"\n{report.goals(result)}\nwritten to {options.out}/")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "load_at_start": os.getloadavg()[0],
    }


def run(count: int, parts: set[str], best: int) -> dict[str, Any]:
    """All measurements for one number of SquidexClients, on a control plane of its own.

    Args:
        best: concurrency of the bare loop, where no sweep finds it.
    """
    print(f"\n{count} SquidexClients in {NAMESPACES} namespaces", flush=True)
    with Sandbox(squidex_clients=CLIENTS) as sandbox:
        bed, figures = Bed(sandbox, count), {"count": count}

        def measured(name: str, found: dict[str, Any]) -> None:
            figures[name] = found
            print(f"  {name:22} {report.row(found)}", flush=True)

        if "startup" in parts:
            measured("startup", startup.startup(bed))
        before = bed.weight()
        bed.fill()
        if "sweep" in parts:
            measured("sweep", filling.sweep(bed))
            best = int(next(iter(figures["sweep"])))
        if "bounds" in parts:
            measured("bounds", filling.bounds(bed, best))
        measured("bare", filling.bare(bed, best))
        measured("fill", filling.fill(bed))
        measured("ratios", report.ratios(figures))
        measured("cluster", report.cluster(count, before, bed.weight()))
        measured("restart", filling.restart(bed))
        measured("idle", filling.idle(bed))
        if "healing" in parts:
            measured("targets", healing.targets(bed))
            measured("targets_while_filling", healing.targets_while_filling(bed))
            measured("rotation", healing.rotation(bed))
            measured("rotation_of_many", healing.rotation_of_many(bed))
            measured("keys", healing.keys(bed))
        if "memory" in parts:
            measured("reconciles", memory.reconciles(bed))
            measured("status_writes", memory.status_writes(bed))
            measured("foreign", memory.foreign(bed))
        if "scale_out" in parts:
            measured("scale_out", filling.scale_out(bed))
        return figures


if __name__ == "__main__":
    main()
