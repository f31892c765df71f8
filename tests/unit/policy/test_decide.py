"""What to do next: one table for each part of the answer."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, credentials, decide, observed, render
from tests.unit.policy import situation

NOW = situation.NOW
Cause = reasons.Cause
Reason = reasons.Reason
Subject = decide.Subject
UNKNOWN = observed.UNKNOWN
MINUTE = dt.timedelta(minutes=1)
AGO, SOON = NOW - MINUTE, NOW + MINUTE
EXPIRED = situation.ISSUED + situation.MONTH

client, failure, seen, spec, target = (
    situation.client,
    situation.failure,
    situation.seen,
    situation.spec,
    situation.target,
)
OTHER = dataclasses.replace(situation.CREDENTIALS, resource_version="8", fingerprint="second")
TOUCHED = dataclasses.replace(situation.CREDENTIALS, resource_version="8")
MISSING = credentials.missing(spec().credentials_secret_ref)
NEVER_REPORTED = client(status={})
NEVER_LOOKED_AT = client(
    status={
        "observedGeneration": 1,
        "conditions": [situation.condition("CredentialsAvailable", "False", "CredentialsMissing")],
    }
)
REFUSED = situation.probed(observed.Verdict.REFUSED)
FORMER = target(name="former")
ELSEWHERE = client(spec=spec(url="https://b.example"), generation=2)
DAMAGED = target(data_intact=False, token_intact=False)


def publish(cause: Cause, source: decide.Source, name: str = "") -> decide.Publish:
    return decide.Publish(cause, source, name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Nothing is done.
        pytest.param(
            {"client": client(deleting=True)}, decide.Stop(decide.terminating()), id="a SquidexClient that goes"
        ),
        pytest.param({"namespace_terminating": True}, decide.Stop(decide.terminating()), id="a namespace that goes"),
        pytest.param(
            {"client": client(spec=None, spec_error="spec.url: bad")},
            decide.Stop(decide.invalid_spec("spec.url: bad")),
            id="a spec that cannot be read",
        ),
        # Look first.
        pytest.param({"target": UNKNOWN}, decide.Look(Subject.TARGET), id="a target that was not looked at"),
        pytest.param({"credentials_due": NOW}, decide.Look(Subject.CREDENTIALS), id="credentials are due"),
        pytest.param({"credentials_due": AGO}, decide.Look(Subject.CREDENTIALS), id="credentials were due"),
        pytest.param(
            {"client": client(generation=2), "credentials": UNKNOWN},
            decide.Look(Subject.CREDENTIALS),
            id="an edited spec and credentials that were not looked at",
        ),
        pytest.param(
            {"client": NEVER_LOOKED_AT, "credentials": UNKNOWN},
            decide.Look(Subject.CREDENTIALS),
            id="credentials of which the report says that they are missing",
        ),
        pytest.param(
            {"credentials": UNKNOWN, "watched_credentials": ("uid-of-credentials", "8")},
            decide.Look(Subject.CREDENTIALS),
            id="a restart, and labelled credentials that changed meanwhile",
        ),
        pytest.param(
            {"target": None, "credentials": UNKNOWN},
            decide.Look(Subject.CREDENTIALS),
            id="a token is needed: with what?",
        ),
        pytest.param(
            {"target": None, "namespace_terminating": UNKNOWN},
            decide.Look(Subject.NAMESPACE),
            id="a deleted target: does the namespace go?",
        ),
        # A token is needed.
        pytest.param({"target": None}, decide.Fetch(Cause.TARGET_DELETED), id="a deleted target"),
        pytest.param(
            {"target": None, "client": NEVER_REPORTED, "namespace_terminating": UNKNOWN},
            decide.Fetch(Cause.FIRST_TOKEN),
            id="the first token costs no look at the namespace",
        ),
        pytest.param({"target": DAMAGED}, decide.Fetch(Cause.TARGET_DAMAGED), id="a damaged token"),
        pytest.param({"credentials": OTHER}, decide.Fetch(Cause.CREDENTIALS_CHANGED), id="other credentials"),
        pytest.param({"probed": REFUSED}, decide.Fetch(Cause.REFUSED), id="a refused token"),
        pytest.param({"probed": REFUSED, "probe_due": SOON}, decide.Fetch(Cause.REFUSED), id="refused, asked just now"),
        pytest.param({"probed": REFUSED, "probe_due": NOW}, decide.Probe(), id="refused a while ago: ask once more"),
        pytest.param({"key_vanished": True}, decide.Fetch(Cause.KEY_REPLACED), id="a replaced key"),
        pytest.param({"key_vanished": True, "fetch_allowed": NOW}, decide.Fetch(Cause.KEY_REPLACED), id="allowed now"),
        pytest.param(
            {"key_vanished": True, "fetch_allowed": SOON}, decide.Wait(SOON), id="a flood of fetches is stopped"
        ),
        pytest.param(
            {"probed": REFUSED, "probe_due": None, "replacement_allowed": SOON},
            decide.Wait(SOON),
            id="refused like the one before: replicas disagree, and another would not help",
        ),
        pytest.param(
            {"probed": REFUSED, "replacement_allowed": NOW}, decide.Fetch(Cause.REFUSED), id="refused, and time to try"
        ),
        pytest.param(
            {"probed": REFUSED, "probe_due": None, "replacement_allowed": SOON, "key_vanished": True},
            decide.Fetch(Cause.REFUSED),
            id="refused, and its key has surely vanished",
        ),
        pytest.param(
            {"credentials": OTHER, "probed": REFUSED, "replacement_allowed": SOON},
            decide.Fetch(Cause.CREDENTIALS_CHANGED),
            id="other credentials wait for no replicas",
        ),
        # A token is there already.
        pytest.param(
            {"target": None, "pending": situation.pending()},
            publish(Cause.TARGET_DELETED, decide.Source.PENDING),
            id="a pending token is written",
        ),
        pytest.param(
            {"target": None, "pending": situation.pending(), "fetch_allowed": SOON, "namespace_terminating": UNKNOWN},
            publish(Cause.TARGET_DELETED, decide.Source.PENDING),
            id="a pending token needs no leave to be fetched",
        ),
        pytest.param(
            {"target": None, "pending": situation.pending(OTHER)},
            decide.Fetch(Cause.TARGET_DELETED),
            id="a pending token of other credentials is not written",
        ),
        pytest.param(
            {"target": None, "pending": situation.pending(expires_at=NOW)},
            decide.Fetch(Cause.TARGET_DELETED),
            id="a pending token that has expired is not written",
        ),
        pytest.param(
            {"pending": situation.pending(), "probe_due": SOON},
            decide.Wait(SOON, settled=True),
            id="a pending token that nobody needs any more is not written",
        ),
        pytest.param(
            {"target": None, "former_targets": (FORMER,)},
            publish(Cause.TARGET_RENAMED, decide.Source.FORMER, "former"),
            id="a renamed target takes its token along",
        ),
        pytest.param(
            {"target": None, "former_targets": (dataclasses.replace(FORMER, token_intact=False),)},
            decide.Fetch(Cause.TARGET_RENAMED),
            id="but not a damaged one",
        ),
        pytest.param(
            {"target": None, "former_targets": (dataclasses.replace(FORMER, expires_at=NOW),)},
            decide.Fetch(Cause.TARGET_RENAMED),
            id="nor an expired one",
        ),
        pytest.param(
            {"target": None, "former_targets": (dataclasses.replace(FORMER, expires_at=None),)},
            decide.Fetch(Cause.TARGET_RENAMED),
            id="nor one of unknown age",
        ),
        pytest.param(
            {"target": None, "former_targets": (FORMER,), "credentials": OTHER},
            decide.Fetch(Cause.TARGET_RENAMED),
            id="nor one of other credentials",
        ),
        pytest.param(
            {"target": DAMAGED, "former_targets": (FORMER,)},
            decide.Fetch(Cause.TARGET_DAMAGED),
            id="nor over a target that is there",
        ),
        # The token is right, what is around it is not.
        pytest.param(
            {"target": target(data_intact=False)},
            publish(Cause.TARGET_DAMAGED, decide.Source.TARGET),
            id="a damaged key beside the token",
        ),
        pytest.param(
            {"target": target(labelled=False)}, publish(Cause.TARGET_DRIFTED, decide.Source.TARGET), id="no labels"
        ),
        pytest.param(
            {"target": target(owner_uids=frozenset())},
            publish(Cause.TARGET_DRIFTED, decide.Source.TARGET),
            id="no owner reference",
        ),
        pytest.param(
            {"target": target(client_uid="")}, publish(Cause.ADOPTED, decide.Source.TARGET), id="no uid, but ours"
        ),
        pytest.param(
            {"target": target(client_uid=situation.OTHER_UID, owner_uids=frozenset())},
            publish(Cause.ADOPTED, decide.Source.TARGET),
            id="what a deleted SquidexClient left behind",
        ),
        pytest.param(
            {"credentials": TOUCHED}, publish(Cause.TARGET_DRIFTED, decide.Source.TARGET), id="a new version is noted"
        ),
        pytest.param(
            {"credentials": MISSING, "target": target(labelled=False)},
            publish(Cause.TARGET_DRIFTED, decide.Source.TARGET),
            id="no credentials are needed to mend labels",
        ),
        # A former target goes when the new one is as it should be.
        pytest.param({"former_targets": (FORMER,)}, decide.Remove(FORMER), id="a former target is removed"),
        pytest.param(
            {"former_targets": (FORMER,), "target": target(labelled=False)},
            publish(Cause.TARGET_DRIFTED, decide.Source.TARGET),
            id="after the new one was mended",
        ),
        pytest.param(
            {"former_targets": (FORMER,), "probed": REFUSED, "fetch_allowed": SOON},
            decide.Wait(SOON),
            id="and not while the new one is refused",
        ),
        # Ask the server.
        pytest.param({"probe_due": NOW}, decide.Probe(), id="a probe is due"),
        pytest.param({"probe_due": SOON}, decide.Wait(SOON, settled=True), id="a probe is not due"),
        pytest.param(
            {"probe_due": NOW, "key_vanished": True, "fetch_allowed": SOON},
            decide.Probe(),
            id="the old token is asked about while no new one can be had",
        ),
        # Blocked.
        pytest.param(
            {"target": None, "credentials": MISSING}, decide.Blocked(MISSING), id="needed, and no credentials"
        ),
        pytest.param(
            {"probed": REFUSED, "credentials": MISSING, "probe_due": NOW},
            decide.Probe(),
            id="no credentials, but a token to ask about",
        ),
        pytest.param(
            {"target": None, "credentials": MISSING, "former_targets": (FORMER,)},
            decide.Blocked(MISSING),
            id="renamed, and no credentials to compare with",
        ),
        # Wait.
        pytest.param(
            {"target": target(deleting=True)},
            decide.Wait(NOW + decide.TARGET_DELETING_RECHECK),
            id="a target that goes",
        ),
        pytest.param(
            {"credentials": MISSING, "probe_due": SOON}, decide.Wait(SOON, settled=True), id="credentials went"
        ),
        pytest.param(
            {"credentials": UNKNOWN, "watched_credentials": ("uid-of-credentials", "7"), "probe_due": SOON},
            decide.Wait(SOON, settled=True),
            id="a restart costs nothing",
        ),
        pytest.param(
            {"credentials": UNKNOWN, "probe_due": SOON},
            decide.Wait(SOON, settled=True),
            id="a restart with credentials that are not watched costs nothing either",
        ),
        pytest.param(
            {
                "credentials": UNKNOWN,
                "probe_due": SOON,
                "watched_credentials": ("other", "9"),
                "target": target(opaque=True),
            },
            decide.Wait(SOON, settled=True),
            id="an opaque token does not tell whether its credentials changed",
        ),
    ],
)
def test_the_next_step(changes: dict[str, Any], expected: decide.Decision) -> None:
    assert decide.decide(NOW, seen(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        pytest.param({}, True, id="ours by annotation and by owner reference"),
        pytest.param({"client_uid": ""}, True, id="ours by owner reference alone"),
        pytest.param({"owner_uids": frozenset()}, True, id="ours by annotation alone"),
        pytest.param({"client_uid": "", "owner_uids": frozenset()}, False, id="nobody's: foreign"),
        pytest.param({"client_uid": "", "owner_uids": frozenset(), "labelled": False}, False, id="a user's Secret"),
        pytest.param(
            {"client_uid": situation.OTHER_UID, "owner_uids": frozenset()}, True, id="left behind by one that is gone"
        ),
        pytest.param(
            {"client_uid": situation.OTHER_UID, "owner_uids": frozenset(), "labelled": False},
            False,
            id="left behind, but without our labels",
        ),
        pytest.param(
            {"client_uid": situation.OTHER_UID, "owner_uids": frozenset({situation.OTHER_UID})},
            False,
            id="its owner is gone, and garbage collection is about to follow",
        ),
        pytest.param(
            {"client_uid": situation.OTHER_UID, "owner_uids": frozenset({situation.UID, situation.OTHER_UID})},
            True,
            id="ours and a dead one's by owner references",
        ),
    ],
)
def test_whose_a_secret_is(changes: dict[str, Any], ours: bool) -> None:
    o = seen(target=target(**changes))
    assert decide.is_ours(o, target(**changes)) is ours
    blocked = decide.decide(NOW, o)
    assert isinstance(blocked, decide.Blocked) is not ours
    if isinstance(blocked, decide.Blocked):
        assert blocked.problem.reason is Reason.TARGET_NOT_OWNED


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        pytest.param({"client_uid": situation.OTHER_UID, "owner_uids": frozenset()}, False, id="annotation"),
        pytest.param({"client_uid": situation.OTHER_UID}, False, id="its annotation, our copied owner reference"),
        pytest.param(
            {"owner_uids": frozenset({situation.OTHER_UID})}, True, id="our annotation, a copied owner reference"
        ),
        pytest.param({"client_uid": "", "owner_uids": frozenset({situation.OTHER_UID})}, False, id="owner reference"),
        pytest.param(
            {"client_uid": "", "owner_uids": frozenset({situation.UID, situation.OTHER_UID})},
            False,
            id="both owner references, and no annotation",
        ),
    ],
)
def test_a_secret_of_another_squidexclient_that_lives(changes: dict[str, Any], ours: bool) -> None:
    assert decide.is_ours(seen(other_owner=True), target(**changes)) is ours


@pytest.mark.parametrize(
    ("changes", "whose"),
    [
        pytest.param(
            {"target": target(client_uid="", owner_uids=frozenset())}, "was not made by the operator", id="a user's"
        ),
        pytest.param(
            {"target": target(client_uid=situation.OTHER_UID), "other_owner": True},
            "belongs to another SquidexClient",
            id="another one's",
        ),
        pytest.param({"target": None, "claimed": True}, "belongs to another SquidexClient", id="to be another one's"),
        pytest.param(
            {"target": target(client_uid=situation.OTHER_UID, owner_uids=frozenset({situation.OTHER_UID}))},
            "belongs to a SquidexClient that was deleted just now, or that another operator looks after,",
            id="of one that is not known",
        ),
    ],
)
def test_a_secret_that_is_not_ours_is_left_alone_and_the_message_says_what_to_do(
    changes: dict[str, Any], whose: str
) -> None:
    found = decide.decide(NOW, seen(**changes))
    assert isinstance(found, decide.Blocked)
    assert (found.problem.kind, found.problem.reason) == (backoff.Kind.CLUSTER, Reason.TARGET_NOT_OWNED)
    assert found.problem.message == (
        f"Secret 'shop' {whose} and is left alone. "
        "Choose another spec.target.name, or delete that Secret if nobody needs it."
    )


def test_a_target_that_is_ours_is_ours_whoever_claims_it() -> None:
    assert decide.decide(NOW, seen(claimed=True, probe_due=SOON)) == decide.Wait(SOON, settled=True)


def test_a_secret_of_another_type_is_not_written_to_and_the_message_says_what_to_do() -> None:
    found = decide.decide(NOW, seen(target=target(secret_type="example.com/token")))
    assert isinstance(found, decide.Blocked)
    assert found.problem.reason is Reason.TARGET_REFUSED
    assert found.problem.message == (
        "Secret 'shop' is of type 'example.com/token' and spec.target.type is 'Opaque': a Secret's type cannot be changed. "
        "Delete the Secret, and it is written anew, or choose another spec.target.name."
    )


# After a failure.

WRITING = failure(Reason.TARGET_CONFLICT, backoff.Kind.CLUSTER)
LATER = failure().next_attempt


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"failure": failure(), "key_vanished": True}, decide.Wait(LATER), id="the next fetch waits"),
        pytest.param({"failure": failure(), "target": None}, decide.Wait(LATER), id="whatever it is needed for"),
        pytest.param(
            {"failure": failure(), "target": None, "pending": situation.pending()},
            decide.Wait(LATER),
            id="and so does a write",
        ),
        pytest.param(
            {"failure": failure(next_attempt=NOW), "key_vanished": True},
            decide.Fetch(Cause.KEY_REPLACED),
            id="until its time has come",
        ),
        pytest.param(
            {"failure": failure(generation=2), "key_vanished": True},
            decide.Fetch(Cause.KEY_REPLACED),
            id="or another spec is there",
        ),
        pytest.param(
            {"failure": failure(inputs_hash="former"), "key_vanished": True},
            decide.Fetch(Cause.KEY_REPLACED),
            id="or other credentials are",
        ),
        pytest.param(
            {"failure": failure(inputs_hash=""), "key_vanished": True},
            decide.Fetch(Cause.KEY_REPLACED),
            id="or credentials are, where there were none",
        ),
        pytest.param(
            {
                "failure": failure(at=NOW + dt.timedelta(days=365), next_attempt=NOW + dt.timedelta(days=366)),
                "target": None,
            },
            decide.Fetch(Cause.TARGET_DELETED),
            id="or the clock was set back to before it",
        ),
        pytest.param(
            {"failure": failure(Reason.TARGET_NOT_OWNED, backoff.Kind.CLUSTER), "target": None},
            decide.Fetch(Cause.TARGET_DELETED),
            id="or the foreign Secret that was in the way is gone",
        ),
        pytest.param(
            {"failure": failure(), "target": target(labelled=False)},
            publish(Cause.TARGET_DRIFTED, decide.Source.TARGET),
            id="a failure of Squidex holds up no repair",
        ),
        pytest.param(
            {"failure": WRITING, "target": target(labelled=False)}, decide.Wait(LATER), id="a failure of writing does"
        ),
        pytest.param(
            {"failure": dataclasses.replace(WRITING, next_attempt=NOW), "target": target(labelled=False)},
            publish(Cause.TARGET_DRIFTED, decide.Source.TARGET),
            id="until its time has come for writing, too",
        ),
        pytest.param(
            {"failure": WRITING, "target": target(labelled=False), "credentials": UNKNOWN},
            decide.Wait(LATER),
            id="even while the credentials are not known",
        ),
        pytest.param(
            {"failure": failure(), "probe_due": SOON},
            decide.Wait(SOON, settled=True),
            id="it is history when all is well",
        ),
    ],
)
def test_after_a_failure(changes: dict[str, Any], expected: decide.Decision) -> None:
    assert decide.decide(NOW, seen(**changes)) == expected


# While a token for something else is in the target, and the right one cannot be had.


@pytest.mark.parametrize("probe_due", [None, NOW], ids=["no probe is due", "a probe is due"])
def test_a_token_is_not_shown_to_another_server_nor_written_as_if_it_were_that_ones(probe_due: Any) -> None:
    drifted = target(labelled=False, data_intact=False)
    held = failure(generation=2, inputs_hash=render.inputs_of(spec(url="https://b.example"), situation.CREDENTIALS))
    o = seen(client=ELSEWHERE, target=drifted, probe_due=probe_due, failure=held)
    assert decide.decide(NOW, o) == decide.Wait(LATER)


@pytest.mark.parametrize(
    "drifted", [target(labelled=False), target(inputs_hash="", labelled=False)], ids=["of others", "of unknown origin"]
)
def test_a_token_of_other_credentials_is_not_written_as_if_it_were_of_these(drifted: Any) -> None:
    held = failure(inputs_hash=render.inputs_of(spec(), OTHER))
    assert decide.decide(NOW, seen(credentials=OTHER, target=drifted, failure=held)) == decide.Wait(LATER)


def test_a_token_of_another_server_is_not_kept_for_want_of_credentials() -> None:
    assert decide.decide(NOW, seen(client=ELSEWHERE, target=target(), credentials=MISSING)) == decide.Blocked(MISSING)


# When to come back.


def test_what_is_due_first_is_waited_for() -> None:
    renewal = decide.decide(NOW, seen())
    assert isinstance(renewal, decide.Wait)
    assert renewal.settled
    assert renewal.until is not None
    assert dt.timedelta(days=17) < renewal.until - NOW <= dt.timedelta(days=19)
    for changes in ({"credentials_due": SOON}, {"probe_due": SOON}, {"keys_disagree_until": SOON}):
        assert decide.decide(NOW, seen(**changes)) == decide.Wait(SOON, settled=True)
    for changes in ({"failure": failure(next_attempt=SOON)},):
        assert decide.decide(NOW, seen(**changes)) == decide.Wait(SOON, settled=True)


def test_an_expiry_is_come_back_for_when_renewal_fails() -> None:
    moment = EXPIRED - MINUTE
    held = failure(at=moment, next_attempt=moment + dt.timedelta(hours=5))
    assert decide.decide(moment, seen(failure=held)) == decide.Wait(EXPIRED)


def test_a_dead_token_is_not_asked_about() -> None:
    held = failure(at=EXPIRED, next_attempt=EXPIRED + MINUTE)
    assert decide.decide(EXPIRED, seen(failure=held, probe_due=AGO)) == decide.Wait(EXPIRED + MINUTE)


def test_only_an_event_helps_where_nothing_is_due() -> None:
    held = failure(Reason.KUBERNETES_ERROR, at=EXPIRED, next_attempt=EXPIRED + MINUTE)
    waits = decide.decide(EXPIRED, seen(target=None, failure=held, claimed=False))
    assert waits == decide.Wait(EXPIRED + MINUTE)


def test_a_repair_that_waits_is_not_settled() -> None:
    found = decide.decide(NOW, seen(failure=WRITING, target=target(labelled=False)))
    assert isinstance(found, decide.Wait)
    assert not found.settled


@pytest.mark.parametrize(
    ("problem", "reason", "words"),
    [
        (decide.terminating(), Reason.TERMINATING, "is being deleted"),
        (decide.invalid_spec("spec.url: bad"), Reason.INVALID_SPEC, "cannot be used: spec.url: bad. Correct it"),
    ],
)
def test_a_stop_says_why(problem: backoff.Problem, reason: Reason, words: str) -> None:
    assert problem.reason is reason
    assert words in problem.message
