"""A run: the world is made, things happen to it until the last days, which are calm, and it is judged."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from tests.simulation import cluster as cluster_module
from tests.simulation import figures, people, process, squidex, virtual, weather
from tests.simulation import judge as judge_module
from tests.simulation.cluster import Key

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)

HOUR, DAY = 3600.0, 86400.0

CALM = 12 * DAY
"""So long before the end nothing more happens: longer than the longest interval between two probes."""
STEADY = 4 * DAY
"""So long before the end everything has settled."""

_SHARES = (8, 5, 3, 2, 1)
_SKEWS = (0.0, 40.0, -300.0, 7200.0, 0.0)
_OFTEN = 500
"""One SquidexClient in so many is probed every hour, as by default; the others every week, for the sake of the time it takes."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be simulated."""

    seed: int = 1
    clients: int = 10_000
    days: float = 90
    keys_interval: dt.timedelta = dt.timedelta(hours=1)
    relist_interval: dt.timedelta = dt.timedelta(hours=12)
    acts_per_client: float = 0.5
    """What people do, over the whole time."""


@dataclasses.dataclass
class Run:
    """What a run leaves behind."""

    plan: Plan
    cluster: cluster_module.Cluster
    servers: dict[str, squidex.Server]
    judge: judge_module.Judge
    process: process.Process
    people: people.People
    weather: weather.Weather
    stranded: list[str] = dataclasses.field(default_factory=list)
    """Keys without a due time, as they were found."""
    wall: float = 0.0


def simulate(plan: Plan) -> figures.Figures:
    """Run and judge."""
    return virtual.run(_simulate(plan))


async def _simulate(plan: Plan) -> figures.Figures:
    started = time.perf_counter()
    run = _world(plan)
    rng = random.Random(f"{plan.seed}/plan")
    end = plan.days * DAY
    happening = [_start(run.process.run()), _start(_populate(run, rng)), _start(_inspect(run))]
    eventful = [_start(each) for each in _events(run, rng, end - CALM)]
    await asyncio.sleep(max(0.0, end - CALM))
    await _stop(eventful)
    run.process.gateway.answers_lost = run.process.delivery.loss = 0.0
    await asyncio.sleep(end - virtual.now())
    run.judge.finish()
    run.wall = time.perf_counter() - started
    found = figures.of(run, steady=STEADY)
    await _stop(happening)
    return found


def _world(plan: Plan) -> Run:
    def rng(what: str) -> random.Random:
        return random.Random(f"{plan.seed}/{what}")

    cluster = cluster_module.Cluster(rng("cluster"))
    servers = {}
    for number, skew in enumerate(_SKEWS):
        url = f"https://squidex-{number}.example.com"
        servers[url] = squidex.Server(url, rng(url), skew=skew)
    judge = judge_module.Judge(cluster, servers)
    settings = process.Settings(plan.keys_interval, plan.relist_interval)
    operator = process.Process(cluster, servers, rng("process"), settings, loss=0.0001)
    operator.gateway.answers_lost = 0.002
    folk = people.People(cluster, servers, judge, rng("people"))
    return Run(plan, cluster, servers, judge, operator, folk, weather.Weather(judge, operator, rng("weather")))


async def _populate(run: Run, rng: random.Random) -> None:
    """In batches, over the first hour; for every hundredth somebody's Secret is in the way for a while."""
    plan, urls = run.plan, list(run.servers)
    occupied = []
    for number in range(plan.clients):
        key = Key(f"team-{number % 20}", f"app-{number}")
        if number % 100 == 50:
            run.people.occupy(key)
            occupied.append(key)
        often = number % min(_OFTEN, plan.clients // 2) == 0
        refresh = {3: {"renewBefore": "72h"}, 7: {"renewBeforePercentage": 50}}.get(number % 10, {})
        run.people.create(
            key,
            rng.choices(urls, _SHARES)[0],
            probe="1h" if often else "168h",
            labelled=number % 5 != 0,
            refresh=refresh,
        )
        if number % 500 == 499:
            await asyncio.sleep(HOUR * 500 / plan.clients)
    began = virtual.now()
    await asyncio.sleep(max(0.0, min(2 * DAY, plan.days * DAY - CALM) - began))
    for key in occupied:
        run.judge.trouble(key, 0.0, residue=150.0)
        run.people.give_way(key)


def _events(run: Run, rng: random.Random, until: float) -> list[Coroutine[Any, Any, None]]:
    sky, servers = run.weather, list(run.servers.values())
    events = [sky.of_server(server) for server in servers]
    events += [sky.of_api_server(), sky.of_process(), sky.of_clock(), _people_act(run, until)]
    for server in servers[:4]:
        events += [sky.replace_key(server, at) for at in sorted(rng.uniform(DAY, until) for _ in range(2))]
    # The issuer is noticed by probes alone: early enough for the last of them.
    events.append(sky.change_issuer(servers[4], rng.uniform(DAY, until - 8 * DAY)))
    events.append(sky.shorten(servers[3], until / 3, until / 3 + 10 * DAY, 2 * DAY))
    return events


async def _people_act(run: Run, until: float) -> None:
    rng = random.Random(f"{run.plan.seed}/act")
    acts: set[asyncio.Task[None]] = set()
    rate = run.plan.clients * run.plan.acts_per_client / until
    try:
        while True:
            await asyncio.sleep(rng.expovariate(rate))
            if virtual.now() > until - 4 * DAY:
                break  # what takes them days must be done when it is calm
            acts.add(_start(run.people.act(rng.choice(run.judge.clients() or [Key("", "")]))))
            acts = {act for act in acts if not act.done()}
        await asyncio.gather(*acts)
    finally:
        await _stop(list(acts))


async def _inspect(run: Run) -> None:
    """Once a day, is there a due time for every SquidexClient?"""
    while True:
        await asyncio.sleep(DAY)
        logger.info("day %d", virtual.now() // DAY)
        t = run.process.tools
        if t is None or not run.process.listed:
            continue
        for key in t.inventory.records:
            if key not in t.queue._due and key not in t.queue._running:
                run.stranded.append(f"{virtual.now():.0f} s: {key}")


def _start(what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(what)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """End them; what went wrong in one of them is not swallowed."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
