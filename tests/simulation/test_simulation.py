"""Ninety days of sixty SquidexClients, in a world where everything goes wrong: `make simulate` does thousands.

The keys are asked for, and everything is listed, less often than by default, and the queue looks at the clock less often: the
rules are the same, and it takes seconds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from squidex_operator.engine import queue
from squidex_operator.policy import backoff, schedule
from tests.simulation import scenario

if TYPE_CHECKING:
    from squidex_operator.api import resource

SMALL = scenario.Plan(
    clients=60,
    days=90,
    keys_interval=dt.timedelta(hours=2),
    relist_interval=dt.timedelta(hours=24),
    acts_per_client=0.5,
)
TINY = dataclasses.replace(SMALL, clients=20, days=60)


@pytest.fixture(autouse=True)
def _seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LONGEST_SLEEP", dt.timedelta(minutes=15))


@pytest.mark.parametrize("seed", [1, 2])
def test_no_consumer_reads_a_dead_token_for_longer_than_it_takes_to_notice(seed: int) -> None:
    figures = scenario.simulate(dataclasses.replace(SMALL, seed=seed))
    assert not figures.violations, figures.text()


def test_a_seed_gives_the_same_run_again() -> None:
    first, second = (scenario.simulate(dataclasses.replace(TINY, days=30)).table for _ in range(2))
    for table in (first, second):
        del table["seconds it took"]
    assert first == second


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
    figures = scenario.simulate(TINY)
    assert any(complaint in violation for violation in figures.violations), figures.text()
