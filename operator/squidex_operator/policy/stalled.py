"""Does it help to wait? What the condition `Stalled` says, and with it kstatus, Flux and Argo CD: a status that is not ready
and not stalled is read as in progress, one that is stalled as failed (docs/adr/0015).
"""

import datetime as dt

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, decide, observed, render

PATIENCE = dt.timedelta(minutes=10)
"""Longer than a Secret of a GitOps pipeline takes to come, or a server to restart; a Deployment's progress deadline as well."""

_UP_TO_A_PERSON = {
    reasons.Reason.INVALID_SPEC,
    reasons.Reason.TARGET_NOT_OWNED,
    reasons.Reason.TARGET_CONFLICT,
    reasons.Reason.TARGET_REFUSED,
}
"""Beside what is PERMANENT. What is missing is not among them: something else may be about to bring it."""


def problem(now: dt.datetime, o: observed.Observed, stopped: backoff.Problem | None) -> backoff.Problem | None:
    """What a person has to look at, where there is no token that can be used; None while waiting may help.

    Args:
        now: aware UTC.
        o: what is known at the end of a reconcile.
        stopped: why nothing is done, where nothing is done.
    """
    if stopped is not None:
        return stopped if stopped.reason in _UP_TO_A_PERSON else None
    failure = o.failure
    if failure is None or not _says_something(o, failure):
        return None
    permanent = failure.problem.kind is backoff.Kind.PERMANENT or failure.problem.reason in _UP_TO_A_PERSON
    if permanent and not (failure.problem.reason is reasons.Reason.TARGET_NOT_OWNED and decide.was_left_behind(o)):
        return failure.problem
    failing = o.client.condition(reasons.ConditionType.REFRESH_FAILING)
    since = render.parse_time(failing.get("lastTransitionTime")) if failing.get("status") == "True" else None
    return failure.problem if since is not None and now - since >= PATIENCE else None


def _says_something(o: observed.Observed, failure: backoff.Failure) -> bool:
    """Not where spec or credentials were changed since, and the next attempt is still to be made."""
    if failure.problem.reason is reasons.Reason.TARGET_NOT_OWNED:
        return failure.generation == o.client.generation
    return o.client.spec is not None and decide.failure_applies(o, o.client.spec)
