"""What a run comes to, in figures."""

from __future__ import annotations

import bisect
import collections
import dataclasses
from typing import TYPE_CHECKING

from squidex_operator.engine import hosts
from tests.simulation import judge as judge_module
from tests.simulation.cluster import CLIENTS, Key

if TYPE_CHECKING:
    from tests.simulation.scenario import Run

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_SETTLE = 30.0
"""Seconds that any reaction may take: late events, slow servers, a server that is asked at most so often."""


@dataclasses.dataclass
class Figures:
    """The figures of a run, and what is wrong with them."""

    table: dict[str, object]
    violations: list[str]

    def text(self) -> str:
        """For people."""
        width = max(len(name) for name in self.table)
        lines = [f"{name:<{width}}  {value}" for name, value in self.table.items()]
        return "\n".join([*lines, *(f"VIOLATION: {violation}" for violation in self.violations)])


def of(run: Run, *, steady: float) -> Figures:
    """Count, and hold against what is promised."""
    plan, limits = run.plan, hosts.HostLimits()
    violations: list[str] = []
    requests = {url: [r for r in server.requests if r[1] == "token"] for url, server in run.servers.items()}
    wrong, seconds = _gaps(run)
    violations += wrong
    peaks = {url: peak([r[0] for r in found], 10.0) for url, found in requests.items()}
    allowed = limits.burst + 10 * limits.rate
    # A restart forgets the bucket, and so does a clock that is set back.
    violations += [
        f"{url}: {most} token requests in 10 s" for url, most in peaks.items() if most > allowed + 2 * limits.burst
    ]
    per_day = _per_day(run, requests)
    violations += per_day[2]
    ideal = sum(_ideal(run, key) for key in run.people.needs)
    lost = sum(server.lost for server in run.servers.values())
    issued = sum(len(server.tokens) for server in run.servers.values()) - lost
    if issued > 1.2 * ideal:
        violations.append(f"{issued} tokens were issued, {ideal} were needed")
    quiet = _writes_in_calm(run, requests, plan.days * DAY - steady)
    violations += [f"{count} writes in steady state: {what}" for what, count in quiet.items() if count]
    violations += [
        f"a target is {run.judge.state(k)}: {k}" for k in run.judge.clients() if run.judge.state(k) != "good"
    ]
    violations += [f"a foreign Secret was touched: {k}" for k, b in run.people.foreign.items() if not _same(run, k, b)]
    violations += [f"no due time at {where}" for where in run.stranded]
    violations += [f"logged: {bug}" for bug in run.process.bugs]
    table: dict[str, object] = {
        "seed": plan.seed,
        "clients": plan.clients,
        "days": f"{plan.days:g}",
        "servers": len(run.servers),
        "requests to Squidex": sum(len(server.requests) for server in run.servers.values()),
        "  of them for a token": sum(len(found) for found in requests.values()),
        "reads and writes of Kubernetes objects": run.process.gateway.reads + len(run.process.gateway.writes),
        "outages of servers, keys and issuers replaced": f"{run.weather.outages}, {sum(map(len, run.weather.kills.values()))}",
        "restarts, jumps of the clock": f"{len(run.process.starts) - 1}, {len(run.weather.jumps)}",
        "  ends of the process": dict(sorted(run.process.ends.items())),
        "what people did (needs a token)": sum(map(len, run.people.needs.values())) - plan.clients,
        **seconds,
        "tokens issued / needed": f"{issued} / {ideal} = {issued / max(1, ideal):.3f} (and {lost} spoilt on their way)",
        "most token requests of a client in a day": per_day[0],
        "  where the answer was always a refusal": per_day[1],
        "peak token requests in 10 s, by server": f"{', '.join(map(str, peaks.values()))} (bucket: {allowed:g})",
        "writes in steady state": sum(quiet.values()),
        "seconds it took": f"{run.wall:.1f}",
    }
    return Figures(table, violations)


def _gaps(run: Run) -> tuple[list[str], dict[str, object]]:
    judge, limits = run.judge, hosts.HostLimits()
    clients = collections.Counter(judge.server_of(key) for key in judge.clients())
    violations: list[str] = []
    total: collections.Counter[str] = collections.Counter()
    beyond: collections.Counter[str] = collections.Counter()
    for gap in judge.gaps:
        settle = _SETTLE + clients[gap.server] / limits.rate
        keys = run.plan.keys_interval.total_seconds()
        allowed = {judge_module.KEY: keys + settle, judge_module.ISSUER: _probe_interval(run, gap.client) + settle}
        if any(gap.begin <= at <= gap.end for _, at in run.process.starts):
            # A restart goes over to fixed slots: the next one may be a whole interval away.
            allowed[judge_module.ISSUER] += _probe_interval(run, gap.client)
        since = None
        if gap.kind == judge_module.EXPIRED:
            # Had the server answered once in the window in which the token was due, it need not have expired.
            since = gap.begin - _window(run, gap.client, gap.lifetime)
        if _lost(run, gap):
            settle += run.plan.relist_interval.total_seconds()
        excess = judge.excess(gap, allowed.get(gap.kind, settle), since=since)
        total[gap.kind] += round(gap.end - gap.begin)
        if excess > 0:
            late = gap.end - gap.begin if gap.kind == judge_module.EXPIRED else excess
            beyond[gap.kind] += max(1, round(late))
            violations.append(
                f"{gap.client}: {gap.kind} from {gap.begin:.0f} to {gap.end:.0f} s, {excess:.0f} s too long"
            )
    kinds = [judge_module.EXPIRED, judge_module.KEY, judge_module.ISSUER, judge_module.MISSING, judge_module.WRONG]
    names = {judge_module.EXPIRED: "expired, though Squidex had answered", judge_module.MISSING: "missing"}
    text = {
        kind: f"seconds with a token {names.get(kind, 'refused: ' + kind)}, beyond detection (in all)" for kind in kinds
    }
    return violations, {text[kind]: f"{beyond[kind]} ({total[kind]})" for kind in kinds}


def _window(run: Run, key: Key, lifetime: float) -> float:
    refresh = _spec(run, key).get("refresh") or {}
    if "renewBefore" in refresh:
        return min(72 * HOUR, lifetime / 3)
    return lifetime * min(refresh.get("renewBeforePercentage", 33), 33) / 100


def _probe_interval(run: Run, key: Key) -> float:
    return float(_spec(run, key).get("probe", {}).get("interval", "168h").removesuffix("h")) * HOUR


def _spec(run: Run, key: Key) -> dict[str, dict[str, str]]:
    body = run.cluster.get(CLIENTS, key)
    return body["spec"] if body else {}


def _lost(run: Run, gap: judge_module.Gap) -> bool:
    names = [name for name in run.process.delivery.lost if name.namespace == gap.client.namespace]
    near = [name for name in names if name.name.startswith(gap.client.name)]
    return any(gap.begin - 1 <= run.process.delivery.lost[name] <= gap.end for name in near)


def _ideal(run: Run, key: Key) -> int:
    """How many tokens one who knows everything fetches: for each cause one, and for each lifetime one."""
    body = run.cluster.get(CLIENTS, key)
    server = run.judge.server_of(key) if body else next(iter(run.servers))
    causes = sorted([*run.people.needs[key], *run.weather.kills.get(server, [])])
    causes = [at for at in causes if at >= run.people.needs[key][0]]
    lifetime, end, count = 30 * DAY, run.plan.days * DAY, 0
    refresh = _spec(run, key).get("refresh") or {}
    before = 3 * DAY if "renewBefore" in refresh else lifetime * refresh.get("renewBeforePercentage", 100 / 3) / 100
    at = causes[0]
    while at < end:
        count += 1
        after = bisect.bisect_right(causes, at)
        at = min(at + lifetime - before, causes[after] if after < len(causes) else end)
    return count


def _per_day(run: Run, requests: dict[str, list[tuple[float, str, str, int]]]) -> tuple[int, int, list[str]]:
    days: collections.defaultdict[tuple[str, int], list[int]] = collections.defaultdict(list)
    for found in requests.values():
        for at, _, client, status in found:
            days[client, int(at // DAY)].append(status)
    upset = collections.Counter(int(at // DAY) for at in [*run.weather.jumps, *(at for _, at in run.process.starts)])
    most = permanent = 0
    violations = []
    for (client, day), statuses in days.items():
        most = max(most, len(statuses))
        if len(statuses) > 288 + 20:
            violations.append(f"{client}: {len(statuses)} token requests on day {day}")
        if all(status in (400, 401) for status in statuses):
            permanent = max(permanent, len(statuses))
            if len(statuses) > 6 + upset[day] + 1:
                violations.append(f"{client}: {len(statuses)} token requests on day {day}, all refused")
    return most, permanent, violations


def peak(times: list[float], window: float) -> int:
    """The most requests in any window of so many seconds."""
    times = sorted(times)
    return max((bisect.bisect_left(times, at + window) - i for i, at in enumerate(times)), default=0)


def _writes_in_calm(
    run: Run, requests: dict[str, list[tuple[float, str, str, int]]], begin: float
) -> collections.Counter[str]:
    """Writes for SquidexClients that needed no token then."""
    renewed = {r[2].partition(":")[0] for found in requests.values() for r in found if r[0] > begin - HOUR}
    count: collections.Counter[str] = collections.Counter()
    for at, what, key in run.process.gateway.writes:
        owner = "-".join(key.name.split("-")[:2])
        if at >= begin and owner not in renewed:
            count[what] += 1
    return count


def _same(run: Run, key: Key, body: dict[str, object]) -> bool:
    return run.cluster.get("secrets", key) is body
