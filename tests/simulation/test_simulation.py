"""Ninety days of sixty SquidexClients, in a world where everything goes wrong: `make simulate` does thousands.

The keys and the tokens are asked about, and everything is listed, less often than there, and the queue looks at the clock less
often: the rules are the same, and it takes seconds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from squidex_operator.policy import backoff, schedule
from tests.simulation import figures, scenario

if TYPE_CHECKING:
    from squidex_operator.api import resource

pytestmark = pytest.mark.usefixtures("seldom")

SMALL = scenario.Plan(
    clients=60,
    days=90,
    probes=((30, "1h"), (1, "72h")),
    keys_interval=dt.timedelta(hours=2),
    relist_interval=dt.timedelta(hours=24),
    acts_per_client=0.5,
)
TINY = dataclasses.replace(SMALL, clients=20, days=60)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_consumer_reads_a_dead_token_for_longer_than_it_takes_to_notice(seed: int) -> None:
    found = scenario.simulate(dataclasses.replace(SMALL, seed=seed))
    assert not found.violations, found.text()


def test_a_seed_gives_the_same_run_again() -> None:
    first, second = (scenario.simulate(dataclasses.replace(TINY, days=30)) for _ in range(2))
    assert dataclasses.replace(first, wall=0) == dataclasses.replace(second, wall=0)


def test_the_parts_of_a_world_have_all_of_it() -> None:
    plan = dataclasses.replace(TINY, days=15, clients=40)
    parts = [scenario.simulate(part) for part in scenario.deal(plan)]
    whole = figures.total(parts)
    assert (whole.clients, whole.servers, whole.processes) == (40, 5, 2)
    assert all(part.clients > 5 and part.issued >= part.clients for part in parts)
    assert whole.issued == parts[0].issued + parts[1].issued
    assert whole.violations == parts[0].violations + parts[1].violations


Mutation = Callable[[pytest.MonkeyPatch], None]


def _renew_after_the_end(patch: pytest.MonkeyPatch) -> None:
    def due(issued_at: dt.datetime, expires_at: dt.datetime, refresh: resource.Refresh, uid: str) -> dt.datetime:
        return expires_at + dt.timedelta(minutes=1)

    patch.setattr(schedule, "renewal_due", due)


def _no_backoff(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backoff, "wait", lambda kind, count, draw: dt.timedelta(seconds=30))


def _no_keys(patch: pytest.MonkeyPatch) -> None:
    from squidex_operator.engine import servers

    patch.setattr(servers.Servers, "key_vanished", lambda *_: False)


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        pytest.param(_renew_after_the_end, "expired", id="a renewal rule that is late"),
        pytest.param(_no_backoff, "token requests on day", id="no backoff"),
        pytest.param(_no_keys, "key replaced", id="keys that nobody looks at"),
    ],
)
def test_it_notices_what_is_broken(mutate: Mutation, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    found = scenario.simulate(TINY)
    assert any(complaint in violation for violation in found.violations), found.text()
