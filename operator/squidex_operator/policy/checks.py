"""Is a new token needed? An ordered list of small checks: the first that is violated gives the cause.

The order matters where several are violated at once: what says most about the token comes first.
"""

import datetime as dt
from collections.abc import Callable

from squidex_operator.api import reasons, resource
from squidex_operator.policy import credentials, observed, render, schedule

Check = Callable[[dt.datetime, observed.Observed, resource.Spec], reasons.Cause | None]


def token_needed(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> reasons.Cause | None:
    """Why a new token is needed, or None. What is in the target's place must have been looked at."""
    return next((cause for check in _CHECKS if (cause := check(now, o, spec))), None)


def target(o: observed.Observed) -> observed.TargetSeen | None:
    """The target, where there is one that was looked at."""
    return o.target if isinstance(o.target, observed.TargetSeen) else None


def renewal_due(o: observed.Observed, spec: resource.Spec) -> dt.datetime | None:
    """When the token in the target is to be renewed."""
    seen = target(o)
    if seen is None or seen.issued_at is None or seen.expires_at is None:
        return None
    return schedule.renewal_due(seen.issued_at, seen.expires_at, spec.refresh, o.client.uid)


def is_due(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> bool:
    """Whether that time has come; or the token will be dead before, since the clock was set back."""
    seen = target(o)
    if seen is None or seen.issued_at is None or seen.expires_at is None:
        return False
    return schedule.is_due(now, seen.issued_at, seen.expires_at, spec.refresh, o.client.uid)


def published_before(o: observed.Observed) -> bool:
    """A token was written for this SquidexClient before: the status says so, which is enough for a cause's name."""
    return bool(o.client.status.get("lastRefreshTime"))


def spec_changed(o: observed.Observed) -> bool:
    """The spec was edited since the last report."""
    return o.client.status.get("observedGeneration") != o.client.generation


def is_refused(o: observed.Observed) -> bool:
    """The server refused the very token that is in the target."""
    seen = target(o)
    return (
        seen is not None
        and o.probed is not None
        and o.probed.data_hash == seen.data_hash
        and o.probed.verdict is observed.Verdict.REFUSED
    )


def same_credentials(o: observed.Observed, spec: resource.Spec) -> bool:
    """Only the credentials Secret's metadata changed since the token was fetched: the id and the secret are the same."""
    seen = target(o)
    return (
        seen is not None
        and isinstance(o.credentials, credentials.CredentialsSeen)
        and o.fetched_with is not None
        and o.fetched_with.fingerprint == o.credentials.fingerprint
        and render.inputs_of(spec, o.fetched_with) == seen.inputs_hash
    )


def names_another(seen: observed.TargetSeen, client_id: str) -> bool:
    """Whether the token in the target says that it is another client's. One that does not say is held by its hash alone."""
    return seen.token_client_id not in ("", client_id)


def _missing(_now: dt.datetime, o: observed.Observed, _spec: resource.Spec) -> reasons.Cause | None:
    if target(o) is not None:
        return None
    if o.former_targets:
        return reasons.Cause.TARGET_RENAMED
    return reasons.Cause.TARGET_DELETED if published_before(o) else reasons.Cause.FIRST_TOKEN


def _damaged(_now: dt.datetime, o: observed.Observed, _spec: resource.Spec) -> reasons.Cause | None:
    # Without all of its annotations nothing proves what the token is, or how long it lives.
    seen = target(o)
    whole = seen is not None and seen.token_intact and seen.issued_at and seen.expires_at and seen.inputs_hash
    return None if whole else reasons.Cause.TARGET_DAMAGED


def _of_another_client(_now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> reasons.Cause | None:
    # The server would accept it, and yet it is not ours: somebody else's rights in our pods.
    seen = target(o)
    if seen is None or not isinstance(o.credentials, credentials.CredentialsSeen):
        return None
    if render.inputs_of(spec, o.credentials) != seen.inputs_hash or not names_another(seen, o.credentials.client_id):
        return None
    return reasons.Cause.TARGET_DAMAGED


def _inputs_changed(_now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> reasons.Cause | None:
    seen = target(o)
    if seen is not None and seen.url != spec.base_url:
        # Whatever is known of the credentials: it is the token of another server.
        return reasons.Cause.SPEC_CHANGED
    if seen is None or not isinstance(o.credentials, credentials.CredentialsSeen):
        return None
    if render.inputs_of(spec, o.credentials) == seen.inputs_hash or same_credentials(o, spec):
        return None
    # After an attempt that failed, the edit is reported on already: then the Secret is the same, so it was the spec.
    same_secret = o.fetched_with is not None and _version(o.fetched_with) == _version(o.credentials)
    return reasons.Cause.SPEC_CHANGED if same_secret or spec_changed(o) else reasons.Cause.CREDENTIALS_CHANGED


def _version(seen: credentials.CredentialsSeen) -> tuple[str, str]:
    return seen.uid, seen.resource_version


def _expired(now: dt.datetime, o: observed.Observed, _spec: resource.Spec) -> reasons.Cause | None:
    seen = target(o)
    return reasons.Cause.EXPIRED if seen and seen.expires_at and now >= seen.expires_at else None


def _refused(_now: dt.datetime, o: observed.Observed, _spec: resource.Spec) -> reasons.Cause | None:
    return reasons.Cause.REFUSED if is_refused(o) else None


def _key_replaced(_now: dt.datetime, o: observed.Observed, _spec: resource.Spec) -> reasons.Cause | None:
    return reasons.Cause.KEY_REPLACED if o.key_vanished else None


def _due(now: dt.datetime, o: observed.Observed, spec: resource.Spec) -> reasons.Cause | None:
    return reasons.Cause.EXPIRING if is_due(now, o, spec) else None


_CHECKS: tuple[Check, ...] = (
    _missing,  # nothing else can be said of a Secret that is not there
    _damaged,  # nothing in it can be relied on
    _of_another_client,  # whole, and not ours
    _inputs_changed,  # ours, but what the user asks for is another token
    _expired,  # the right one, dead for certain
    _refused,  # the server says that it is dead
    _key_replaced,  # dead, or about to be
    _due,  # good, and getting old
)
