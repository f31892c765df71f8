"""What a run comes to, in figures: counted, held against what is promised, added up over processes, and told."""

from __future__ import annotations

import bisect
import collections
import dataclasses
from typing import TYPE_CHECKING

from squidex_operator.engine import hosts
from tests.simulation import gaps
from tests.simulation import judge as judge_module
from tests.simulation.cluster import CLIENTS, Key
from tests.simulation.virtual import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.scenario import Run


PEAK_WINDOW = 10.0
"""Seconds."""

_KINDS = {
    judge_module.EXPIRED: "expired, though Squidex had answered",
    judge_module.KEY: "refused: key replaced",
    judge_module.ISSUER: "refused: issuer changed",
    judge_module.MISSING: "missing",
    judge_module.WRONG: "refused: wrong",
}

Requests = dict[str, list[tuple[float, str, str, int]]]
"""Token requests by server: time, endpoint, client id, status."""


@dataclasses.dataclass
class Figures:
    """The figures of a run, or of several that were parts of one."""

    seed: int
    days: float
    clients: int = 0
    processes: int = 1
    servers: int = 0
    probes: int = 0
    key_checks: int = 0
    token_requests: int = 0
    causes: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    """Token requests by cause and result, as the operator counts them."""
    kubernetes: int = 0
    """Reads and writes of objects."""
    outages: int = 0
    replaced: int = 0
    """Keys and issuers."""
    jumps: int = 0
    """Of the clock."""
    ends: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Why an operator's process ended."""
    acts: int = 0
    """What people did."""
    beyond: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Seconds in which a target held no token that works, beyond what noticing takes, by kind."""
    dead: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """All of them."""
    issued: int = 0
    lost: int = 0
    """Tokens that were issued, and spoilt on their way by a mishap."""
    ideal: int = 0
    """Tokens that who knows everything would have fetched."""
    most_in_a_day: int = 0
    """Token requests of one client."""
    most_refused: int = 0
    """The same, where each was answered with a refusal."""
    peaks: list[int] = dataclasses.field(default_factory=list)
    """Token requests in ten seconds, by server."""
    quiet: int = 0
    """Writes in steady state."""
    wall: float = 0.0
    """Seconds that it took."""
    violations: list[str] = dataclasses.field(default_factory=list)

    def text(self) -> str:
        """For people."""
        limits = hosts.HostLimits()
        requests = self.probes + self.key_checks + self.token_requests
        rows: dict[str, object] = {
            "seed": self.seed,
            "SquidexClients, days": f"{self.clients}, {self.days:g}",
            "servers, operators": f"{self.servers}, {self.processes}",
            "requests to Squidex": f"{requests}: {self.probes} probes, {self.key_checks} for keys, "
            f"{self.token_requests} for a token",
            "reads and writes of Kubernetes objects": self.kubernetes,
            "outages of servers; keys and issuers replaced": f"{self.outages}; {self.replaced}",
            "restarts; jumps of the clock": f"{_told(self.ends)}; {self.jumps}",
            "what people did (needs a token)": self.acts,
            "": "seconds beyond detection (in all, outages included)",
            **{f"  a token {words}": f"{self.beyond[kind]} ({self.dead[kind]})" for kind, words in _KINDS.items()},
            "tokens issued / needed": f"{self.issued} / {self.ideal} = {self.issued / max(1, self.ideal):.3f} "
            f"(and {self.lost} spoilt on their way)",
            "  tokens by cause": _told(
                collections.Counter({c: n for (c, r), n in self.causes.items() if r == "granted"})
            ),
            "  failures by reason": _told(_by_result(self.causes)),
            "most token requests of a client in a day": self.most_in_a_day,
            "  where the answer was always a refusal": self.most_refused,
            "peak token requests in 10 s, by server": f"{', '.join(map(str, self.peaks))} "
            f"(bucket: {limits.burst + PEAK_WINDOW * limits.rate:g}, more after a restart)",
            "writes in steady state": self.quiet,
            "violations": len(self.violations),
            "seconds it took": f"{self.wall:.0f}",
        }
        width = max(map(len, rows))
        lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"VIOLATION: {violation}" for violation in self.violations)])


def _by_result(causes: collections.Counter[tuple[str, str]]) -> collections.Counter[str]:
    results: collections.Counter[str] = collections.Counter()
    for (_, result), count in causes.items():
        results[result] += count
    del results["granted"]
    return results


def _told(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def total(parts: Sequence[Figures]) -> Figures:
    """The figures of runs that went on at the same time, each with servers of its own."""
    first, *others = parts
    added = dataclasses.replace(first)
    for other in others:
        for field in dataclasses.fields(Figures):
            if field.name in ("seed", "days"):
                continue
            one, two = getattr(added, field.name), getattr(other, field.name)
            at_once = field.name in ("most_in_a_day", "most_refused", "wall")
            setattr(added, field.name, max(one, two) if at_once else one + two)
    return added


def of(run: Run, *, steady: float) -> Figures:
    """Count, and hold against what is promised. `steady` is how many seconds the end is calm."""
    requests = {url: [r for r in server.requests if r[1] == "token"] for url, server in run.servers.items()}
    asked = collections.Counter(request[1] for server in run.servers.values() for request in server.requests)
    found = Figures(
        seed=run.plan.seed,
        days=run.plan.days,
        clients=len(run.people.needs),
        servers=len(run.servers),
        probes=asked["probe"],
        key_checks=asked["jwks"],
        token_requests=asked["token"],
        kubernetes=run.process.gateway.reads + len(run.process.gateway.writes),
        outages=run.weather.outages,
        replaced=sum(map(len, run.weather.kills.values())),
        jumps=len(run.weather.jumps),
        ends=run.process.ends,
        causes=run.process.causes,
        acts=sum(map(len, run.people.needs.values())) - len(run.people.needs),
        lost=sum(server.lost for server in run.servers.values()),
        ideal=sum(_ideal(run, key) for key in run.people.needs),
        wall=run.wall,
    )
    found.issued = sum(len(server.tokens) for server in run.servers.values()) - found.lost
    found.violations, found.beyond, found.dead = gaps.judge(run)
    if found.issued > 1.2 * found.ideal:
        found.violations.append(f"{found.issued} tokens were issued, {found.ideal} were needed")
    _peaks(run, requests, found)
    _per_day(run, requests, found)
    quiet = _writes_in_calm(run, requests, run.plan.days * DAY - steady)
    found.quiet = quiet.total()
    found.violations += [f"{count} writes in steady state: {what}" for what, count in quiet.items()]
    found.violations += [
        f"a target is {run.judge.state(k)}: {k}" for k in run.judge.clients() if run.judge.state(k) != "good"
    ]
    found.violations += [
        f"a foreign Secret was touched: {k}" for k, b in run.people.foreign.items() if not _same(run, k, b)
    ]
    found.violations += [f"no due time at {where}" for where in run.stranded]
    found.violations += [f"logged: {bug}" for bug in run.process.bugs]
    return found


def _ideal(run: Run, key: Key) -> int:
    """How many tokens one who knows everything fetches: for each cause one, and for each lifetime one."""
    body = run.cluster.get(CLIENTS, key)
    url = run.judge.server_of(key) if body else next(iter(run.servers))
    causes = sorted([*run.people.needs[key], *run.weather.kills.get(url, [])])
    causes = [at for at in causes if at >= run.people.needs[key][0]]
    refresh, end, count = gaps.spec(run, key).get("refresh") or {}, run.plan.days * DAY, 0
    at = causes[0]
    while at < end:
        count += 1
        lifetime = next(lifetime for since, lifetime in reversed(run.servers[url].lifetimes) if since <= at)
        before = lifetime * int(refresh.get("renewBeforePercentage", 0)) / 100 or lifetime / 3
        if "renewBefore" in refresh and lifetime > 3 * DAY:
            before = 3 * DAY
        after = bisect.bisect_right(causes, at)
        at = min(at + lifetime - before, causes[after] if after < len(causes) else end)
    return count


def _peaks(run: Run, requests: Requests, found: Figures) -> None:
    limits = hosts.HostLimits()
    # A new process has a full bucket, and so has one whose clock jumped ahead.
    fresh = sorted([*(at for _, at in run.process.starts), *run.weather.leaps])
    for url, asked in requests.items():
        times = sorted(request[0] for request in asked)
        found.peaks.append(peak(times, PEAK_WINDOW))
        for first, at in enumerate(times):
            count = bisect.bisect_left(times, at + PEAK_WINDOW) - first
            # What the old process had sent is still on its way when the new one begins.
            again = bisect.bisect_left(fresh, at + PEAK_WINDOW) - bisect.bisect_left(fresh, at - 1)
            if count > limits.burst * (1 + again) + PEAK_WINDOW * limits.rate:
                found.violations.append(f"{url}: {count} token requests in 10 s at {at:.0f} s")
                break


def peak(times: list[float], window: float) -> int:
    """The most requests in any window of so many seconds."""
    times = sorted(times)
    return max((bisect.bisect_left(times, at + window) - i for i, at in enumerate(times)), default=0)


def _per_day(run: Run, requests: Requests, found: Figures) -> None:
    days: collections.defaultdict[tuple[str, int], list[int]] = collections.defaultdict(list)
    for asked in requests.values():
        for at, _, client, status in asked:
            days[client, int(at // DAY)].append(status)
    upset = collections.Counter(int(at // DAY) for at in [*run.weather.jumps, *(at for _, at in run.process.starts)])
    for (client, day), statuses in days.items():
        found.most_in_a_day = max(found.most_in_a_day, len(statuses))
        if len(statuses) > 288 + 20:
            found.violations.append(f"{client}: {len(statuses)} token requests on day {day}")
        if all(status in (400, 401) for status in statuses):
            found.most_refused = max(found.most_refused, len(statuses))
            if len(statuses) > 6 + upset[day] + 1:
                found.violations.append(f"{client}: {len(statuses)} token requests on day {day}, all refused")


def _writes_in_calm(run: Run, requests: Requests, begin: float) -> collections.Counter[str]:
    """Writes for SquidexClients that needed no token then."""
    renewed = {r[2].partition(":")[0] for asked in requests.values() for r in asked if r[0] > begin - HOUR}
    count: collections.Counter[str] = collections.Counter()
    for at, what, key in run.process.gateway.writes:
        owner = "-".join(key.name.split("-")[:2])
        if at >= begin and owner not in renewed:
            count[what] += 1
    return count


def _same(run: Run, key: Key, body: dict[str, object]) -> bool:
    return run.cluster.get("secrets", key) is body
