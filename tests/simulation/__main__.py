"""python -m tests.simulation: ninety days of ten thousand SquidexClients, in minutes."""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import logging
import multiprocessing
import os
import sys
import time

from tests.simulation import figures, scenario


def main() -> int:
    """Simulate, print the figures; 1 where a promise was broken."""
    plan = scenario.Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--clients", type=int, default=plan.clients)
    parser.add_argument("--days", type=float, default=plan.days, help="at least 30")
    parser.add_argument(
        "--operators",
        type=int,
        choices=(1, 2),
        default=min(2, os.cpu_count() or 1),
        help="two share the servers, and take half the time on two cores; one has all of them",
    )
    given = parser.parse_args()
    whole = scenario.Plan(seed=given.seed, clients=given.clients, days=given.days)
    plans = scenario.deal(whole) if given.operators == 2 else [whole]
    began = time.perf_counter()
    told = functools.partial(logging.basicConfig, format="%(message)s", level=logging.INFO)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(plans), spawn, initializer=told) as pool:
        found = figures.total(list(pool.map(scenario.simulate, plans)))
    found.wall = time.perf_counter() - began
    sys.stdout.write(found.text() + "\n")
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
