"""What to do next for one SquidexClient. Pure: the same observation at the same time gives the same decision.

Reconcile calls `decide`, does what it says, observes again, and so on until the answer is to wait.
"""

import dataclasses
import datetime as dt
import enum

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff, checks, credentials, observed, render

TARGET_DELETING_RECHECK = dt.timedelta(seconds=30)
"""A target that is being deleted is waited for by its event; this is for the event that never comes."""

_OF_WRITING = {reasons.Reason.TARGET_CONFLICT, reasons.Reason.TARGET_REFUSED, reasons.Reason.KUBERNETES_ERROR}

_WRONG_TOKEN = {reasons.Cause.TARGET_DAMAGED, reasons.Cause.SPEC_CHANGED, reasons.Cause.CREDENTIALS_CHANGED}
"""What is in the target is not, or not for certain, the token that is asked for: it must not be written again as if it were."""


class Subject(enum.Enum):
    """What can be looked at with one GET."""

    TARGET = "target"
    CREDENTIALS = "credentials"
    NAMESPACE = "namespace"


class Source(enum.Enum):
    """Where the token to publish comes from."""

    PENDING = "pending"
    TARGET = "target"
    FORMER = "former"


@dataclasses.dataclass(frozen=True)
class Stop:
    """Nothing, until the SquidexClient changes."""

    problem: backoff.Problem


@dataclasses.dataclass(frozen=True)
class Look:
    """Look at something before deciding."""

    subject: Subject


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Fetch a token, ask the server about it; it is pending then."""

    cause: reasons.Cause


@dataclasses.dataclass(frozen=True)
class Publish:
    """Write a token that there is already to the target."""

    cause: reasons.Cause
    source: Source
    name: str = ""
    """The Secret's name, for `Source.FORMER`."""


@dataclasses.dataclass(frozen=True)
class Remove:
    """Delete a former target."""

    former: observed.TargetSeen


@dataclasses.dataclass(frozen=True)
class Probe:
    """Ask the server about the token in the target."""


@dataclasses.dataclass(frozen=True)
class Blocked:
    """Something in the cluster is missing or in the way."""

    problem: backoff.Problem


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing before this time; None: nothing until an event."""

    until: dt.datetime | None
    settled: bool = False
    """Everything is as it should be: what failed before is history."""


Decision = Stop | Look | Fetch | Publish | Remove | Probe | Blocked | Wait


def decide(now: dt.datetime, o: observed.Observed) -> Decision:
    """The next step for a SquidexClient.

    Args:
        now: aware UTC.
        o: what is known; each `Look` fills in one more part of it.
    """
    if o.client.deleting or o.namespace_terminating is True:
        return Stop(terminating())
    spec = o.client.spec
    if spec is None:
        return Stop(invalid_spec(o.client.spec_error))
    if o.target is observed.UNKNOWN:
        return Look(Subject.TARGET)
    seen = checks.target(o)
    if seen is None and o.claimed:
        return Blocked(not_owned(o))
    if seen is not None and not is_ours(o, seen):
        return Blocked(not_owned(o))
    if seen is not None and seen.deleting:
        return Wait(now + TARGET_DELETING_RECHECK)
    if seen is not None and seen.secret_type not in ("", spec.target.type):
        return Blocked(other_type(spec, seen))
    if _credentials_doubtful(now, o, spec):
        return Look(Subject.CREDENTIALS)

    need = checks.token_needed(now, o, spec)
    step = _acquire(now, o, spec, need) if need else None
    # While a new token cannot be had, the old one is still looked after.
    step = step or _tend(now, o, spec, need)
    if step is not None:
        return step
    if need and isinstance(o.credentials, backoff.Problem):
        return Blocked(o.credentials)
    settled = need is None and not o.former_targets and (seen is None or _drift(o, spec, seen) is None)
    return Wait(_next_time(now, o, spec, need), settled=settled)


def is_ours(o: observed.Observed, seen: observed.TargetSeen) -> bool:
    """Whether the Secret in the target's place may be written to.

    It names this SquidexClient, or it is what a deleted SquidexClient left behind (then its token may be used again). While an
    owner reference still names the other one, it is not left behind: garbage collection is about to delete it, or that
    SquidexClient lives where this operator does not look.
    """
    if o.client.uid in (seen.client_uid, *seen.owner_uids):
        # An annotation that names another one which lives wins over an owner reference somebody copied.
        return not (o.other_owner and seen.client_uid != o.client.uid)
    return bool(seen.client_uid) and seen.labelled and not o.other_owner and not seen.owner_uids


def is_held(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> bool:
    """Whether the next attempt has to wait for the last failure's time."""
    return o.failure is not None and o.failure.is_waiting(now) and failure_applies(o, spec)


def is_waiting(now: dt.datetime, o: observed.Observed) -> bool:
    """Whether a token is needed, and the wait after the last failure is under way."""
    spec = o.client.spec
    return spec is not None and is_held(now, o, spec) and checks.token_needed(now, o, spec) is not None


def failure_applies(o: observed.Observed, spec: resource.Spec) -> bool:
    """Whether the last failure says anything about the next attempt: not when spec or credentials changed since."""
    if o.failure is None or o.failure.generation != o.client.generation:
        return False
    if o.failure.problem.reason is reasons.Reason.TARGET_NOT_OWNED:
        # Whoever asks has a target that is ours, or none.
        return False
    if isinstance(o.credentials, credentials.CredentialsSeen):
        return o.failure.tried(render.inputs_of(spec, o.credentials), o.credentials.fingerprint)
    return True


def _credentials_doubtful(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> bool:
    if o.credentials_due is not None and now >= o.credentials_due:
        return True
    if isinstance(o.credentials, credentials.CredentialsSeen) and o.watched_credentials is not None:
        # The watch may have told a change while the answer of an older version was under way.
        return o.watched_credentials != (o.credentials.uid, o.credentials.resource_version)
    if o.credentials is not observed.UNKNOWN:
        return False
    available = o.client.condition(reasons.ConditionType.CREDENTIALS_AVAILABLE)
    if checks.spec_changed(o) or available.get("status") != "True":
        return True
    seen = checks.target(o)
    if o.watched_credentials is None or seen is None or seen.opaque:
        return False
    # After a restart nothing was looked at; the annotation tells whether a labelled Secret changed meanwhile.
    return render.inputs_hash(spec, seen.token_client_id, *o.watched_credentials) != seen.inputs_hash


def _acquire(now: dt.datetime, o: observed.Observed, spec: resource.Spec, need: reasons.Cause) -> Decision | None:
    """A step towards a new token; None while there is nothing to do but wait."""
    if o.credentials is observed.UNKNOWN:
        return Look(Subject.CREDENTIALS)
    if isinstance(o.credentials, backoff.Problem):
        return None
    if is_held(now, o, spec):
        return None
    inputs = render.inputs_of(spec, o.credentials)
    if o.pending is not None and o.pending.inputs_hash == inputs and now < o.pending.expires_at:
        return Publish(need, Source.PENDING)
    if checks.target(o) is None and (former := _usable_former(now, o, inputs)):
        return Publish(reasons.Cause.TARGET_RENAMED, Source.FORMER, former.name)
    if need is reasons.Cause.REFUSED and o.probe_due is not None and now >= o.probe_due:
        # One 401 is no proof: after a wait the old token is asked about again before another is fetched.
        return Probe()
    # A refused token whose key has surely vanished is dead.
    doubtful = need is reasons.Cause.REFUSED and not o.key_vanished
    allowed = (o.fetch_allowed, o.replacement_allowed if doubtful else None)
    if any(time is not None and now < time for time in allowed):
        return None
    if o.namespace_terminating is observed.UNKNOWN and need is not reasons.Cause.FIRST_TOKEN:
        # Its Secrets may be gone before the SquidexClient is: no token for a namespace that goes.
        return Look(Subject.NAMESPACE)
    return Fetch(need)


def _usable_former(now: dt.datetime, o: observed.Observed, inputs: str) -> observed.TargetSeen | None:
    for former in o.former_targets:
        if former.token_intact and former.inputs_hash == inputs and former.expires_at and now < former.expires_at:
            return former
    return None


def _tend(now: dt.datetime, o: observed.Observed, spec: resource.Spec, need: reasons.Cause | None) -> Decision | None:
    """Look after the token that is in the target."""
    seen = checks.target(o)
    if seen is None or not seen.token_intact or seen.issued_at is None or seen.expires_at is None:
        return None
    if need not in _WRONG_TOKEN and not _writing_is_held(now, o, spec) and (cause := _drift(o, spec, seen)):
        return Publish(cause, Source.TARGET)
    if need is None and not _writing_is_held(now, o, spec):
        for former in o.former_targets:
            return Remove(former)
    # A token of another server is not shown to this one.
    alive = now < seen.expires_at and seen.url == spec.base_url
    if alive and o.probe_due is not None and now >= o.probe_due:
        return Probe()
    return None


def _writing_is_held(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> bool:
    """After a write that failed, the next one waits; a failure of Squidex holds up no repair."""
    if o.meanwhile is not None and o.meanwhile.generation == o.client.generation and o.meanwhile.is_waiting(now):
        return True
    return o.failure is not None and o.failure.problem.reason in _OF_WRITING and is_held(now, o, spec)


def _drift(o: observed.Observed, spec: resource.Spec, seen: observed.TargetSeen) -> reasons.Cause | None:
    """The token is right, what is around it is not."""
    if not seen.data_intact:
        return reasons.Cause.TARGET_DAMAGED
    if seen.client_uid != o.client.uid:
        return reasons.Cause.ADOPTED
    if o.client.uid not in seen.owner_uids or not seen.labelled:
        return reasons.Cause.TARGET_DRIFTED
    if (
        isinstance(o.credentials, credentials.CredentialsSeen)
        and render.inputs_of(spec, o.credentials) != seen.inputs_hash
        and checks.same_credentials(o, spec)
    ):
        return reasons.Cause.TARGET_DRIFTED
    return None


def _next_time(
    now: dt.datetime, o: observed.Observed, spec: resource.Spec, need: reasons.Cause | None
) -> dt.datetime | None:
    seen = checks.target(o)
    times = [
        checks.renewal_due(o, spec),
        seen.expires_at if seen else None,
        o.credentials_due,
        o.probe_due,
        o.keys_disagree_until,
        o.failure.next_attempt if o.failure else None,
        o.meanwhile.next_attempt if o.meanwhile else None,
        o.fetch_allowed if need else None,
        o.replacement_allowed if need is reasons.Cause.REFUSED else None,
    ]
    return min((time for time in times if time is not None and time > now), default=None)


def terminating() -> backoff.Problem:
    """The SquidexClient or its namespace goes: nothing is fetched for it."""
    return backoff.Problem(
        backoff.Kind.CLUSTER,
        reasons.Reason.TERMINATING,
        "The SquidexClient or its namespace is being deleted: no token is fetched for it.",
    )


def invalid_spec(error: str) -> backoff.Problem:
    """The spec cannot be read, though the API server let it in: an older CRD is installed."""
    return backoff.Problem(
        backoff.Kind.PERMANENT,
        reasons.Reason.INVALID_SPEC,
        f"The spec cannot be used: {error}. Correct it; is the CRD of this version of the operator installed?",
    )


def not_owned(o: observed.Observed) -> backoff.Problem:
    """Somebody else's Secret is in the target's place, or will be."""
    seen = checks.target(o)
    if o.other_owner or (seen is None and o.claimed):
        whose = "belongs to another SquidexClient"
    elif was_left_behind(o):
        whose = "belongs to a SquidexClient that was deleted just now, or that another operator looks after,"
    else:
        whose = "was not made by the operator"
    return backoff.Problem(
        backoff.Kind.CLUSTER,
        reasons.Reason.TARGET_NOT_OWNED,
        f"Secret {o.client.target_name!r} {whose} and is left alone. "
        "Choose another spec.target.name, or delete that Secret if nobody needs it.",
    )


def was_left_behind(o: observed.Observed) -> bool:
    """The Secret in the target's place still names an owner that is not known here: most often one that was deleted, and
    garbage collection comes by in a moment."""
    seen = checks.target(o)
    return seen is not None and bool(seen.client_uid and seen.owner_uids) and not o.other_owner


def other_type(spec: resource.Spec, seen: observed.TargetSeen) -> backoff.Problem:
    """A Secret that was left behind has another type, and a Secret's type cannot be changed."""
    return backoff.Problem(
        backoff.Kind.CLUSTER,
        reasons.Reason.TARGET_REFUSED,
        f"Secret {seen.name!r} is of type {seen.secret_type!r} and spec.target.type is {spec.target.type!r}: a Secret's type "
        "cannot be changed. Delete the Secret, and it is written anew, or choose another spec.target.name.",
    )
