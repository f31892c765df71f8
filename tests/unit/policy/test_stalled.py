"""`Stalled`: whether a person has to act, or waiting may help."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, conditions, credentials, decide, observed
from tests.unit.policy import situation

NOW = situation.NOW
Kind = backoff.Kind
Reason = reasons.Reason

FOREIGN = situation.target(client_uid="", owner_uids=frozenset())
ORPHAN = situation.target(client_uid="gone", owner_uids=frozenset({"gone"}))
NOT_OWNED = situation.failure(Reason.TARGET_NOT_OWNED, Kind.CLUSTER)
WRONG_SECRET = situation.failure(Reason.INVALID_CLIENT, Kind.PERMANENT)
MISSING = situation.failure(Reason.CREDENTIALS_MISSING, Kind.CLUSTER)


def failing_since(minutes: float, **changes: Any) -> observed.Client:
    """A SquidexClient whose last report says that it has failed for so long."""
    since = situation.condition("RefreshFailing", "True", "ServerError")
    since["lastTransitionTime"] = (NOW - dt.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return situation.client(status={"conditions": [since]}, **changes)


def found(o: observed.Observed, stopped: backoff.Problem | None = None) -> tuple[str, str, str]:
    one = next(c for c in conditions.build(NOW, o, stopped=stopped)["conditions"] if c["type"] == "Stalled")
    return one["status"], one["reason"], one["message"]


USABLE = ("False", "TokenValid", "There is a token that can be used.")
GOES_ON = ("False", "Pending", "It is tried again without anybody's help.")


def stands(reason: str) -> tuple[str, str, str]:
    return ("True", reason, "It did not work.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, USABLE, id="all is well"),
        pytest.param({"failure": WRONG_SECRET}, USABLE, id="a token that works, and a wrong secret for the next one"),
        pytest.param({"target": None}, GOES_ON, id="the first token is being fetched"),
        pytest.param({"target": None, "failure": situation.failure()}, GOES_ON, id="Squidex is in trouble"),
        pytest.param({"target": None, "failure": MISSING}, GOES_ON, id="the credentials may be about to come"),
        pytest.param({"target": None, "failure": WRONG_SECRET}, stands("InvalidClient"), id="a wrong secret"),
        pytest.param({"target": FOREIGN, "failure": NOT_OWNED}, stands("TargetNotOwned"), id="a foreign Secret"),
        pytest.param(
            {"target": None, "failure": NOT_OWNED, "claimed": True}, stands("TargetNotOwned"), id="a claimed target"
        ),
        pytest.param(
            {"target": ORPHAN, "failure": NOT_OWNED, "other_owner": True},
            stands("TargetNotOwned"),
            id="a target of another SquidexClient",
        ),
        pytest.param(
            {"target": ORPHAN, "failure": NOT_OWNED}, GOES_ON, id="what garbage collection is about to delete"
        ),
        pytest.param(
            {"target": ORPHAN, "failure": NOT_OWNED, "client": failing_since(11)},
            stands("TargetNotOwned"),
            id="what nobody deletes after all",
        ),
        pytest.param(
            {"target": None, "failure": situation.failure(Reason.TARGET_REFUSED, Kind.CLUSTER)},
            stands("TargetRefused"),
            id="a quota",
        ),
        pytest.param(
            {"target": None, "failure": situation.failure(Reason.TARGET_CONFLICT, Kind.CLUSTER)},
            stands("TargetConflict"),
            id="another manager of our fields",
        ),
        pytest.param(
            {"target": None, "failure": situation.failure(), "client": failing_since(9.9)}, GOES_ON, id="not for long"
        ),
        pytest.param(
            {"target": None, "failure": situation.failure(), "client": failing_since(10)},
            stands("ServerError"),
            id="for ten minutes",
        ),
        pytest.param(
            {"target": None, "failure": situation.failure(), "client": failing_since(60, generation=2)},
            GOES_ON,
            id="for an hour, and then the spec was edited",
        ),
        pytest.param(
            {"target": FOREIGN, "failure": NOT_OWNED, "client": failing_since(60, generation=2)},
            GOES_ON,
            id="a foreign Secret, and then the spec was edited",
        ),
        pytest.param(
            {
                "target": None,
                "failure": WRONG_SECRET,
                "credentials": dataclasses.replace(situation.CREDENTIALS, resource_version="8", fingerprint="new"),
            },
            GOES_ON,
            id="a wrong secret, and then it was replaced",
        ),
        pytest.param(
            {"target": None, "failure": WRONG_SECRET, "client": situation.client(spec=None)},
            GOES_ON,
            id="a spec that was not read says nothing yet",
        ),
        pytest.param(
            {
                "target": None,
                "failure": situation.failure(),
                "client": situation.client(
                    status={"conditions": [{"type": "RefreshFailing", "status": "True", "lastTransitionTime": "noon"}]}
                ),
            },
            GOES_ON,
            id="since a time that somebody wrote into the status",
        ),
    ],
)
def test_stalled(changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found(situation.seen(**changes)) == expected


def test_a_spec_that_cannot_be_read_is_up_to_a_person() -> None:
    problem = decide.invalid_spec("spec.url: bad")
    assert found(situation.seen(target=None), problem) == ("True", "InvalidSpec", problem.message)


def test_what_is_being_deleted_is_not_stalled() -> None:
    assert found(situation.seen(target=None), decide.terminating()) == GOES_ON


def test_missing_credentials_are_waited_for_ten_minutes() -> None:
    # A Secret that External Secrets or Sealed Secrets is about to write must not make a pipeline give up.
    ref = situation.spec().credentials_secret_ref
    missing = dataclasses.replace(MISSING, problem=credentials.missing(ref), inputs_hash="")
    later = situation.seen(target=None, failure=missing, credentials=credentials.missing(ref), client=failing_since(10))
    assert found(later)[:2] == ("True", "CredentialsMissing")


def test_the_ten_minutes_are_one_change_of_the_status() -> None:
    failing = situation.seen(target=None, failure=situation.failure(), client=situation.client(status={}))
    status = conditions.build(NOW, failing)
    changes = []
    for minutes in range(60):
        later = dataclasses.replace(failing, client=situation.client(status=status))
        new = conditions.build(NOW + dt.timedelta(minutes=minutes), later)
        if conditions.merge_patch(status, new):
            changes.append(minutes)
        status = new
    assert changes == [10]
