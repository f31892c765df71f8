"""How long to wait after a failure."""

from __future__ import annotations

import datetime as dt

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import backoff
from tests.unit.policy import situation

NOW = situation.NOW
Kind = backoff.Kind


def problem(kind: Kind = Kind.TRANSIENT, retry_after: float | None = None) -> backoff.Problem:
    asked = None if retry_after is None else dt.timedelta(seconds=retry_after)
    return backoff.Problem(kind, reasons.Reason.SERVER_ERROR, "It did not work.", asked)


def after(previous: backoff.Failure | None, what: backoff.Problem, **changes: object) -> backoff.Failure:
    given = {"now": NOW, "generation": 1, "inputs_hash": "abc", "draw": 0.0, **changes}
    return backoff.next_failure(previous, what, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "count", "shortest", "longest"),
    [
        pytest.param(Kind.PERMANENT, 1, 4 * 3600, 5 * 3600, id="a person has to act: hours"),
        pytest.param(Kind.PERMANENT, 50, 4 * 3600, 5 * 3600, id="a person has still to act: no more than hours"),
        pytest.param(Kind.TRANSIENT, 1, 5, 10, id="trouble outside: seconds"),
        pytest.param(Kind.TRANSIENT, 2, 10, 20, id="trouble outside, again: twice as long"),
        pytest.param(Kind.TRANSIENT, 20, 300, 600, id="trouble outside for long: minutes"),
        pytest.param(Kind.UNKNOWN, 1, 15, 30, id="an answer that says nothing: seconds"),
        pytest.param(Kind.UNKNOWN, 20, 1800, 3600, id="an answer that says nothing, for long: an hour"),
        pytest.param(Kind.CLUSTER, 1, 5, 10, id="something is missing in the cluster: seconds"),
        pytest.param(Kind.CLUSTER, 20, 60, 120, id="something is missing in the cluster for long: two minutes"),
        pytest.param(Kind.TRANSIENT, 2**31, 300, 600, id="a count of years"),
        pytest.param(Kind.TRANSIENT, 0, 5, 10, id="a count of nothing"),
        pytest.param(Kind.TRANSIENT, -(2**31), 5, 10, id="a count below nothing, scribbled into a status"),
    ],
)
def test_a_wait_goes_by_kind_and_count(kind: Kind, count: int, shortest: float, longest: float) -> None:
    assert backoff.wait(kind, count, 0.0).total_seconds() == shortest
    assert backoff.wait(kind, count, 1.0).total_seconds() == longest


def test_a_permanent_problem_costs_at_most_six_requests_a_day() -> None:
    assert dt.timedelta(days=1) / backoff.wait(Kind.PERMANENT, 1, 0.0) <= 6


def test_the_first_failure() -> None:
    found = after(None, problem())
    assert (found.count, found.at, found.next_attempt) == (1, NOW, NOW + dt.timedelta(seconds=5))
    assert (found.generation, found.inputs_hash) == (1, "abc")


@pytest.mark.parametrize(
    ("before", "changes", "count"),
    [
        pytest.param({}, {}, 4, id="the same again counts on"),
        pytest.param({"kind": Kind.PERMANENT}, {}, 1, id="another kind counts anew"),
        pytest.param({}, {"generation": 2}, 1, id="another spec counts anew"),
        pytest.param({}, {"inputs_hash": "def"}, 1, id="other credentials count anew"),
        pytest.param({}, {"inputs_hash": ""}, 4, id="credentials that were not looked at count on"),
        pytest.param({"inputs_hash": ""}, {}, 4, id="credentials that had not been looked at count on"),
        pytest.param({"count": -5}, {}, 1, id="a count below nothing, scribbled into a status, counts anew"),
        pytest.param({"count": 2**31 - 1}, {}, 1_000_001, id="a count never leaves what the status can hold"),
    ],
)
def test_failures_are_counted(before: dict[str, object], changes: dict[str, object], count: int) -> None:
    previous = situation.failure(**{"inputs_hash": "abc", **before})  # type: ignore[arg-type]
    assert after(previous, problem(), **changes).count == count


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        pytest.param(120.0, 120.0, id="what the server asks for"),
        pytest.param(1.0, 5.0, id="not less than our own wait"),
        pytest.param(-50.0, 5.0, id="not a time in the past"),
        pytest.param(1e9, 3600.0, id="not more than an hour"),
    ],
)
def test_retry_after_is_honoured_within_bounds(asked: float, waited: float) -> None:
    assert after(None, problem(retry_after=asked)).next_attempt - NOW == dt.timedelta(seconds=waited)
