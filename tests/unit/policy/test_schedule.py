"""When a token is renewed, how long it lives, and how often anything may be done."""

from __future__ import annotations

import datetime as dt

import pytest

from squidex_operator.api import resource
from squidex_operator.policy import schedule
from tests.unit.policy import situation

NOW = situation.NOW
UID = situation.UID


def hours(number: float) -> dt.timedelta:
    return dt.timedelta(hours=number)


@pytest.mark.parametrize(
    ("lifetime", "refresh", "left_at_least", "left_at_most"),
    [
        pytest.param(hours(720), {}, hours(240), hours(276), id="a third of 30 days is left, or 5 % more"),
        pytest.param(hours(1), {}, hours(1 / 3), hours(0.39), id="20 minutes of an hour are left"),
        pytest.param(
            dt.timedelta(minutes=6),
            {},
            dt.timedelta(minutes=2),
            dt.timedelta(seconds=138),
            id="a third is left of a token that lives for minutes",
        ),
        pytest.param(
            dt.timedelta(seconds=3),
            {},
            dt.timedelta(seconds=1),
            dt.timedelta(seconds=1.15),
            id="a third is left of a token that lives for seconds",
        ),
        pytest.param(hours(720), {"renewBefore": "72h"}, hours(72), hours(79.2), id="renewBefore is kept"),
        pytest.param(
            hours(720), {"renewBefore": "1s"}, dt.timedelta(minutes=5), dt.timedelta(seconds=300.1), id="5 minutes stay"
        ),
        pytest.param(
            hours(720), {"renewBefore": "647h"}, hours(647), hours(647 + 36), id="renewBefore just below nine tenths"
        ),
        pytest.param(
            hours(720), {"renewBefore": "648h"}, hours(240), hours(276), id="renewBefore of nine tenths is none"
        ),
        pytest.param(hours(1), {"renewBefore": "72h"}, hours(1 / 3), hours(0.39), id="renewBefore past the lifetime"),
        pytest.param(hours(720), {"renewBeforePercentage": 90}, hours(648), hours(684), id="90 percent are left"),
        pytest.param(
            hours(1),
            {"renewBeforePercentage": 1},
            dt.timedelta(minutes=5),
            dt.timedelta(minutes=8),
            id="1 % is too late",
        ),
    ],
)
def test_a_token_is_renewed_when_so_much_of_its_lifetime_is_left(
    lifetime: dt.timedelta, refresh: dict[str, object], left_at_least: dt.timedelta, left_at_most: dt.timedelta
) -> None:
    wanted = resource.Refresh.model_validate(refresh)
    for number in range(50):
        left = NOW + lifetime - schedule.renewal_due(NOW, NOW + lifetime, wanted, f"uid-{number}")
        assert left_at_least <= left <= left_at_most


def test_squidexclients_that_were_made_together_do_not_renew_together() -> None:
    due = {schedule.renewal_due(NOW, NOW + hours(720), resource.Refresh(), f"uid-{n}") for n in range(100)}
    assert len(due) == 100
    assert max(due) - min(due) > hours(24)


def test_a_fraction_is_the_same_in_every_process() -> None:
    # A literal: a hash that changed with the process, or with a release, would move all renewals.
    assert schedule.fraction("uid", "renewal") == pytest.approx(0.2065, abs=1e-4)
    assert schedule.fraction("uid", "probe") != schedule.fraction("uid", "renewal")


@pytest.mark.parametrize(
    ("lifetime", "runway"),
    [
        (hours(720), dt.timedelta(minutes=5)),
        (dt.timedelta(minutes=15), dt.timedelta(minutes=5)),
        (hours(0.1), hours(0.1) / 3),
    ],
    ids=["5 minutes", "5 minutes of 15", "a third of less"],
)
def test_consumers_have_a_runway(lifetime: dt.timedelta, runway: dt.timedelta) -> None:
    assert schedule.runway(lifetime) == runway


@pytest.mark.parametrize(
    ("now", "is_due"),
    [
        pytest.param(dt.timedelta(), False, id="just issued"),
        pytest.param(dt.timedelta(days=18), False, id="not old enough"),
        pytest.param(dt.timedelta(days=20), True, id="two thirds of its life are over"),
        pytest.param(
            dt.timedelta(hours=-2), False, id="the clock was two hours ahead: it is renewed in time all the same"
        ),
        pytest.param(dt.timedelta(days=-9), False, id="the clock was nine days ahead: just in time"),
        pytest.param(
            dt.timedelta(days=-12), True, id="the clock was twelve days ahead: it would be dead when it is due"
        ),
        pytest.param(dt.timedelta(days=-400), True, id="the clock was a year ahead"),
    ],
)
def test_a_token_is_due(now: dt.timedelta, is_due: bool) -> None:
    issued = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    found = schedule.is_due(issued + now, issued, issued + dt.timedelta(days=30), resource.Refresh(), "uid")
    assert found is is_due


@pytest.mark.parametrize(
    ("expires_in", "expires", "server_now", "seconds"),
    [
        pytest.param(3600, None, None, 3600, id="an opaque token lives as long as the answer says"),
        pytest.param(None, None, None, 3600, id="nothing is said: an hour"),
        pytest.param(3600, 1600, 1000, 600, id="the smaller one counts, exp"),
        pytest.param(300, 1600, 1000, 300, id="the smaller one counts, expires_in"),
        pytest.param(None, 5600, None, 600, id="without the server's clock, exp is measured on ours"),
        pytest.param(None, 1600, 1000, 600, id="a server whose clock is an hour behind"),
        pytest.param(1e12, None, None, 366 * 86400, id="longer than a year"),
        pytest.param(None, 900, 1000, 0, id="dead on arrival"),
        pytest.param(0, None, None, 0, id="no time at all"),
        pytest.param(-1, None, None, 0, id="a negative time"),
        pytest.param(-9e14, None, None, 0, id="a negative time that no timedelta can hold"),
        pytest.param(3600, -9e14, 1000, 0, id="a negative exp that no timedelta can hold"),
        pytest.param(9e14, 9e14, 1000, 366 * 86400, id="times that no timedelta can hold"),
    ],
)
def test_a_lifetime_is_what_was_granted(
    expires_in: float | None, expires: float | None, server_now: float | None, seconds: float
) -> None:
    granted = schedule.lifetime_granted(expires_in=expires_in, expires=expires, server_now=server_now, now=5000)
    assert granted.total_seconds() == seconds


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    bucket = schedule.Bucket(rate=0.5, burst=3)
    times = []
    for _ in range(6):
        at, bucket = bucket.take(NOW)
        times.append((at - NOW).total_seconds())
    assert times == [0, 0, 0, 2, 4, 6]


def test_a_bucket_is_full_again_after_a_while() -> None:
    bucket = schedule.Bucket(rate=1, burst=2)
    for _ in range(5):
        _, bucket = bucket.take(NOW)
    later = NOW + hours(1)
    first, bucket = bucket.take(later)
    second, bucket = bucket.take(later)
    third, _ = bucket.take(later)
    assert [(at - later).total_seconds() for at in (first, second, third)] == [0, 0, 1]


def test_a_look_at_a_bucket_takes_nothing() -> None:
    bucket = schedule.Bucket(rate=1, burst=1)
    assert bucket.take(NOW)[0] == bucket.take(NOW)[0] == NOW


def test_a_clock_that_was_set_back_does_not_close_a_bucket_for_a_year() -> None:
    bucket = schedule.Bucket(rate=1, burst=1)
    wrong = NOW + dt.timedelta(days=365)
    _, bucket = bucket.take(wrong)
    _, bucket = bucket.take(wrong)
    at, bucket = bucket.take(NOW)
    assert at - NOW == dt.timedelta(seconds=2)
    assert bucket.take(NOW + dt.timedelta(seconds=10))[0] == NOW + dt.timedelta(seconds=10)


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_a_slot_is_less_than_an_interval_away_and_no_restart_moves_it(hours: int) -> None:
    interval, now = dt.timedelta(hours=hours), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    slot = schedule.next_slot(now, interval, "uid-1", "probe")
    assert now < slot <= now + interval
    assert schedule.next_slot(slot - dt.timedelta(seconds=1), interval, "uid-1", "probe") == slot
    assert schedule.next_slot(slot, interval, "uid-1", "probe") == slot + interval
    assert schedule.next_slot(now, interval, "uid-2", "probe") != slot


def test_a_turn_that_is_put_back_is_somebody_elses() -> None:
    bucket = schedule.Bucket(rate=1, burst=1)
    assert bucket.put_back() == bucket
    _, once = bucket.take(NOW)
    second, twice = once.take(NOW)
    assert second == NOW + dt.timedelta(seconds=1)
    assert twice.put_back().take(NOW)[0] == second
