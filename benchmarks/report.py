"""What was measured, for people: one line each while it runs, tables for the documentation, and the goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Run = dict[str, Any]

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("SquidexClients", "count", ""),
    ("bare loop, per s", "bare.rate", ""),
    ("operator, per s", "fill.rate", ""),
    ("ratio", "ratios.rate", ""),
    ("bare loop, CPU ms each", "bare.cpu_ms", ""),
    ("operator, CPU ms each", "fill.cpu_ms", ""),
    ("ratio", "ratios.cpu", ""),
    ("bare loop with the operator's writes, watched: per s", "bounds.whole_rate", ""),
    ("the same: CPU ms each", "bounds.whole_cpu_ms", ""),
    ("the same on the operator's libraries: per s", "bounds.libraries_rate", ""),
    ("the same: CPU ms each", "bounds.libraries_cpu_ms", ""),
    ("API calls each", "fill.calls", ""),
    ("token requests each", "fill.token_requests", ""),
    ("peak RSS, MiB", "fill.peak_rss_mib", ""),
    ("restart: CPU s", "restart.cpu_seconds", ""),
    ("restart: API calls", "restart.calls", ""),
    ("restart: writes and token requests", "restart.writes", "restart.token_requests"),
    ("idle: % of a core", "idle.cpu_percent", ""),
    ("idle: RSS, MiB", "idle.rss_mib", ""),
    ("etcd: KiB each", "cluster.etcd_kib_each", ""),
    ("API server: RSS, KiB each", "cluster.apiserver_kib_each", ""),
)

_GOALS: tuple[tuple[str, int, str, Callable[[float], bool]], ...] = (
    ("fill: rate at least 0.8 of the bare loop's", 1000, "ratios.rate", lambda x: x >= 0.8),
    ("fill: CPU at most twice the bare loop's", 1000, "ratios.cpu", lambda x: x <= 2),
    ("fill: at most 4 API calls each, and a tenth for the start and the CAs", 1000, "fill.calls", lambda x: x <= 4.1),
    ("fill: 1 token request each", 1000, "fill.token_requests", lambda x: x == 1),
    ("fill: peak RSS at 1,000 at most 110 MiB", 1000, "fill.peak_rss_mib", lambda x: x <= 110),
    ("fill: peak RSS at 5,000 at most 180 MiB", 5000, "fill.peak_rss_mib", lambda x: x <= 180),
    ("restart at 5,000: at most 5 s of CPU", 5000, "restart.cpu_seconds", lambda x: x <= 5),
    ("restart at 5,000: at most 50 API calls", 5000, "restart.calls", lambda x: x <= 50),
    ("restart at 5,000: no write", 5000, "restart.writes", lambda x: x == 0),
    ("restart at 5,000: no token request", 5000, "restart.token_requests", lambda x: x == 0),
    ("idle at 5,000: at most 1 % of a core", 5000, "idle.cpu_percent", lambda x: x <= 1),
    ("idle at 5,000: no write", 5000, "idle.writes", lambda x: x == 0),
    ("key replaced: token requests each", 1000, "keys.token_requests", lambda x: x == 1),
    ("credentials rotated: p99 below 300 ms", 1000, "rotation.rotated_p99_ms", lambda x: x < 300),
    ("credentials of 20 rotated: p99 below 300 ms", 1000, "rotation_of_many.rotated_p99_ms", lambda x: x < 300),
    ("target deleted: p50 below 20 ms", 1000, "targets.deleted_p50_ms", lambda x: x < 20),
    ("target deleted: p99 below 100 ms", 1000, "targets.deleted_p99_ms", lambda x: x < 100),
    ("target damaged: p50 below 20 ms", 1000, "targets.damaged_p50_ms", lambda x: x < 20),
    ("target damaged: p99 below 100 ms", 1000, "targets.damaged_p99_ms", lambda x: x < 100),
    ("target deleted during a fill: p99 below 500 ms", 1000, "targets_while_filling.deleted_p99_ms", lambda x: x < 500),
    ("target damaged during a fill: p99 below 500 ms", 1000, "targets_while_filling.damaged_p99_ms", lambda x: x < 500),
    ("reconciles: growth of memory below two standard errors", 1000, "reconciles.standard_errors", lambda x: x < 2),
    ("status writes of others: the same", 1000, "status_writes.standard_errors", lambda x: x < 2),
    ("status writes of others: no write of ours", 1000, "status_writes.writes", lambda x: x == 0),
    ("foreign Secrets: less than 5 MiB", 1000, "foreign.rss_difference_mib", lambda x: x < 5),
    ("foreign Secrets: start less than 5 % longer", 1000, "foreign.start_cpu_ratio", lambda x: x < 1.05),
    ("start: first watch within 1.0 s", 0, "startup.first_watch_seconds", lambda x: x < 1),
    ("start: RSS with no resource at most 75 MiB", 0, "startup.rss_mib", lambda x: x <= 75),
    ("two processes: CPU at most 1.1 of one", 5000, "scale_out.cpu_ms_ratio", lambda x: x <= 1.1),
)


def ratios(run: Run) -> dict[str, float]:
    """The operator's figures in units of the bare loop's."""
    fill, bare = run["fill"], run["bare"]
    found = {"rate": fill["rate"] / bare["rate"], "cpu": fill["cpu_ms"] / bare["cpu_ms"]}
    if bounds := run.get("bounds"):
        found |= {
            "rate_of_whole": fill["rate"] / bounds["whole_rate"],
            "rate_of_libraries": fill["rate"] / bounds["libraries_rate"],
            "cpu_of_libraries": fill["cpu_ms"] / bounds["libraries_cpu_ms"],
        }
    return found


def cluster(count: int, before: tuple[float, float], after: tuple[float, float]) -> dict[str, float]:
    """What a SquidexClient and its token weigh in etcd and in the API server."""
    etcd, apiserver = (second - first for first, second in zip(before, after, strict=True))
    return {"etcd_kib_each": etcd * 1024 / count, "apiserver_kib_each": apiserver * 1024 / count}


def row(figures: dict[str, Any]) -> str:
    """Figures in one line."""
    return "   ".join(f"{name} {_number(value)}" for name, value in figures.items())


def goals(result: dict[str, Any]) -> str:
    """Each goal that was measured, and whether it is met."""
    lines = []
    for text, count, path, is_met in _GOALS:
        for run in result["runs"]:
            value = _at(run, path)
            if value is not None and count in (0, run["count"]):
                lines.append(f"{'met    ' if is_met(value) else 'NOT MET'}  {text}: {_number(value)}")
    return "\n".join(lines)


def markdown(result: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    lines = ["| " + " | ".join(["", *(str(run["count"]) for run in result["runs"])]) + " |"]
    lines.append("|---" * (len(result["runs"]) + 1) + "|")
    for title, *paths in _COLUMNS[1:]:
        cells = [
            " / ".join(_number(value) for path in paths if path and (value := _at(run, path)) is not None)
            for run in result["runs"]
        ]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    for run in result["runs"]:
        rest = [
            name
            for name in run
            if name not in ("count", "bare", "bounds", "sweep", "fill", "ratios", "restart", "idle", "cluster")
        ]
        lines += [f"| {name}, at {run['count']} | {row(run[name])} |" for name in rest]
    lines += ["", "```", goals(result), "```", ""]
    return "\n".join(lines)


def _at(run: Run, path: str) -> Any:
    section, name = path.split(".") if "." in path else ("", path)
    return (run.get(section) or {}).get(name) if section else run.get(name)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
