"""A run: the world is made, things happen to it until the last days, which are calm, and it is judged."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import durationpy

from tests.simulation import cluster as cluster_module
from tests.simulation import figures, people, process, squidex, virtual, weather
from tests.simulation import judge as judge_module
from tests.simulation.cluster import Key
from tests.simulation.virtual import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)


STEADY = 4 * DAY
"""So long before the end everything has settled."""
_SETTLES = 4 * DAY
"""So long does everything take to settle that needs no probe: people who are late with half of what they do, long waits."""

SHARES = (8, 5, 3, 2, 1)
"""Of the SquidexClients, by server."""
_SKEWS = (0.0, 40.0, -300.0, 7200.0, 0.0)
"""Seconds that the clock of each server is ahead."""
_TO_BE_REPLACED = (0, 1, 2, 3)
_TO_BE_SHORTENED = 3
_TO_CHANGE_ISSUER = 4
"""What else happens to which server."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be simulated."""

    seed: int = 1
    clients: int = 10_000
    days: float = 90
    servers: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Those that take part, with their SquidexClients; two at least, for those who move."""
    probes: tuple[tuple[int, str], ...] = ((500, "10m"), (100, "1h"), (1, "24h"))
    """One SquidexClient in so many is probed so often. By default it would be each of them every hour."""
    keys_interval: dt.timedelta = dt.timedelta(minutes=15)
    relist_interval: dt.timedelta = dt.timedelta(hours=6)
    acts_per_client: float = 0.5
    """What people do, over the whole time."""

    @property
    def longest_probe(self) -> str:
        """The longest interval of all."""
        return self.probes[-1][1]

    @property
    def calm(self) -> float:
        """Seconds before the end from which on nothing more happens: what only a probe can find must have been found."""
        return STEADY + _SETTLES + durationpy.from_str(self.longest_probe).total_seconds()


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


def deal(plan: Plan) -> list[Plan]:
    """The same in two parts that know nothing of each other: whole servers, an operator for each part."""
    return [dataclasses.replace(plan, servers=servers) for servers in ((0, 4), (1, 2, 3))]


async def _simulate(plan: Plan) -> figures.Figures:
    started = time.perf_counter()
    run = _world(plan)
    end = plan.days * DAY
    happening = [_start(run.process.run()), _start(_populate(run)), _start(_inspect(run))]
    eventful = [_start(each) for each in _events(run, end - plan.calm)]
    await asyncio.sleep(max(0.0, end - plan.calm))
    await _stop(eventful)
    run.process.gateway.answers_lost = run.process.delivery.loss = 0.0
    await asyncio.sleep(end - virtual.now())
    run.judge.finish()
    run.wall = time.perf_counter() - started
    await _stop(happening)
    return figures.of(run, steady=STEADY)


def _world(plan: Plan) -> Run:
    def rng(what: str) -> random.Random:
        return random.Random(f"{plan.seed}/{plan.servers}/{what}")

    cluster = cluster_module.Cluster(rng("cluster"))
    servers = {url: squidex.Server(url, rng(url), skew=_SKEWS[n]) for n in plan.servers for url in [_url(n)]}
    judge = judge_module.Judge(cluster, servers)
    settings = process.Settings(plan.keys_interval, plan.relist_interval)
    operator = process.Process(cluster, servers, rng("process"), settings, loss=0.0001)
    operator.gateway.answers_lost = 0.002
    folk = people.People(cluster, servers, judge, rng("people"))
    return Run(plan, cluster, servers, judge, operator, folk, weather.Weather(judge, operator, rng("weather")))


async def _populate(run: Run) -> None:
    """In batches, over the first hour; for every hundredth somebody's Secret is in the way for a while."""
    plan = run.plan
    # The same for all parts of a world: who is not in this one is in another.
    rng = random.Random(f"{plan.seed}/population")
    occupied = []
    for number in range(plan.clients):
        server = rng.choices(range(len(SHARES)), SHARES)[0]
        if server in plan.servers:
            key = Key(f"team-{number % 20}", f"app-{number}")
            if number % 100 == 50:
                run.people.occupy(key)
                occupied.append(key)
            refresh = {3: {"renewBefore": "72h"}, 7: {"renewBeforePercentage": 50}}.get(number % 10, {})
            probe = next(interval for each, interval in plan.probes if number % each == 0)
            run.people.create(key, _url(server), probe=probe, labelled=number % 5 != 0, refresh=refresh)
        if number % 500 == 499:
            await asyncio.sleep(HOUR * 500 / plan.clients)
    began = virtual.now()
    await asyncio.sleep(max(0.0, min(2 * DAY, plan.days * DAY - plan.calm) - began))
    for key in occupied:
        run.judge.trouble(key, 0.0, residue=150.0)
        run.people.give_way(key)


def _url(number: int) -> str:
    return f"https://squidex-{number}.example.com"


def _events(run: Run, until: float) -> list[Coroutine[Any, Any, None]]:
    sky, rng = run.weather, random.Random(f"{run.plan.seed}/{run.plan.servers}/events")
    events = [sky.of_server(server) for server in run.servers.values()]
    events += [sky.of_api_server(), sky.of_process(), sky.of_clock(), _people_act(run, until)]
    for number in run.plan.servers:
        server = run.servers[_url(number)]
        if number in _TO_BE_REPLACED:
            events += [sky.replace_key(server, at) for at in sorted(rng.uniform(DAY, until) for _ in range(2))]
        if number == _TO_CHANGE_ISSUER:
            # It is noticed by probes alone, twice an interval at the latest.
            events.append(sky.change_issuer(server, rng.uniform(DAY, until - _SETTLES)))
        if number == _TO_BE_SHORTENED:
            events.append(sky.shorten(server, until / 3, until / 3 + 10 * DAY, 2 * DAY))
    return events


async def _people_act(run: Run, until: float) -> None:
    rng = random.Random(f"{run.plan.seed}/{run.plan.servers}/act")
    acts: set[asyncio.Task[None]] = set()
    shares = sum(SHARES[number] for number in run.plan.servers) / sum(SHARES)
    rate = run.plan.clients * shares * run.plan.acts_per_client / until
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
        logger.info("servers %s: day %d", ",".join(map(str, run.plan.servers)), virtual.now() // DAY)
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
