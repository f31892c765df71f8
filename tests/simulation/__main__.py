"""python -m tests.simulation: ninety days of ten thousand SquidexClients, in minutes."""

from __future__ import annotations

import argparse
import logging
import sys

from tests.simulation import scenario


def main() -> int:
    """Simulate, print the figures; 1 where a promise was broken."""
    plan = scenario.Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--clients", type=int, default=plan.clients)
    parser.add_argument("--days", type=float, default=plan.days, help="at least 30")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    figures = scenario.simulate(scenario.Plan(seed=given.seed, clients=given.clients, days=given.days))
    sys.stdout.write(figures.text() + "\n")
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
