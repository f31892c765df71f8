"""What an operator costs that has nothing to do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import measure
from benchmarks.bed import FAST, Bed

STARTS = 5
IMPORT = "import time; t = time.perf_counter(); import squidex_operator.process; print(time.perf_counter() - t)"


def startup(bed: Bed) -> dict[str, Any]:
    """No SquidexClient at all: seconds for the imports and until the first watch, and memory."""
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(STARTS)]
    watches, cpu, memory = zip(*(_start(bed) for _ in range(STARTS)), strict=True)
    return {
        "import_seconds": statistics.median(imports),
        "first_watch_seconds": statistics.median(watches),
        "cpu_seconds": statistics.median(cpu),
        "rss_mib": statistics.median(memory),
    }


def _start(bed: Bed) -> tuple[float, float, float]:
    """Seconds until the first watch, seconds of CPU, and MiB."""
    mark, began = bed.plane.audit_mark(), time.time()
    bed.start(*FAST)
    measure.wait(lambda: bed.first_watch(mark) is not None, "the first watch")
    watched = (bed.first_watch(mark) or 0) - began
    cpu, memory = measure.settle(bed.pid), measure.rss_mib(bed.pid)
    bed.stop()
    return watched, cpu, memory
