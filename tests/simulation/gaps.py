"""The times in which a target held no token that works, held against what noticing takes."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import durationpy

from squidex_operator.engine import hosts
from tests.simulation import judge as judge_module
from tests.simulation.cluster import CLIENTS, Key
from tests.simulation.virtual import HOUR

if TYPE_CHECKING:
    from tests.simulation.scenario import Run


_SETTLE = 30.0
"""Seconds that any reaction may take: late events, slow servers, a server that is asked at most so often."""


def judge(run: Run) -> tuple[list[str], collections.Counter[str], collections.Counter[str]]:
    """What was too long, in words; seconds beyond what is allowed, and seconds in all, by kind."""
    clients = collections.Counter(run.judge.server_of(key) for key in run.judge.clients())
    violations: list[str] = []
    beyond: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    for gap in run.judge.gaps:
        settle = _SETTLE + clients[gap.server] / hosts.HostLimits().rate
        excess = _excess(run, gap, settle)
        total[gap.kind] += round(gap.end - gap.begin)
        if excess > 0:
            late = gap.end - gap.begin if gap.kind == judge_module.EXPIRED else excess
            beyond[gap.kind] += max(1, round(late))
            violations.append(
                f"{gap.client}: {gap.kind} from {gap.begin:.0f} to {gap.end:.0f} s, {excess:.0f} s too long"
            )
    return violations, beyond, total


def spec(run: Run, key: Key) -> dict[str, dict[str, str]]:
    """A SquidexClient's spec, as it is at the end; empty where it went."""
    body = run.cluster.get(CLIENTS, key)
    return body["spec"] if body else {}


def _excess(run: Run, gap: judge_module.Gap, settle: float) -> float:
    keys, probe = run.plan.keys_interval.total_seconds(), _probe_interval(run, gap.client)
    allowed = {judge_module.KEY: keys + settle, judge_module.ISSUER: probe + settle}
    if any(gap.begin <= at <= gap.end for _, at in run.process.starts):
        # A restart goes over to fixed slots: the next one may be a whole interval away.
        allowed[judge_module.ISSUER] += probe
    since = None
    if gap.kind == judge_module.EXPIRED:
        # Had the server answered once in the window in which the token was due, it need not have expired.
        since = gap.begin - _window(run, gap.client, gap.lifetime)
    excess = run.judge.excess(gap, allowed.get(gap.kind, settle), since=since)
    if excess > 0 and gap.kind not in allowed and _lost(run, gap):
        return run.judge.excess(gap, settle + run.plan.relist_interval.total_seconds(), since=since)
    return excess


def _window(run: Run, key: Key, lifetime: float) -> float:
    refresh = spec(run, key).get("refresh") or {}
    if "renewBefore" in refresh:
        return min(72 * HOUR, lifetime / 3)
    return lifetime * min(int(refresh.get("renewBeforePercentage", 33)), 33) / 100


def _probe_interval(run: Run, key: Key) -> float:
    interval = spec(run, key).get("probe", {}).get("interval", run.plan.longest_probe)
    return float(durationpy.from_str(interval).total_seconds())


def _lost(run: Run, gap: judge_module.Gap) -> bool:
    """Whether an event about it was lost on its way: then the next list finds it."""
    lost = run.process.delivery.lost
    names = [name for name in lost if name.namespace == gap.client.namespace and name.name.startswith(gap.client.name)]
    return any(gap.begin - 1 <= lost[name] <= gap.end for name in names)
