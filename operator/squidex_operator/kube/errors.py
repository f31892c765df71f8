"""What can go wrong with Kubernetes.

KubeError                     carries a Problem: reason, kind, a message fit for a status
 +-- NotFoundError            404
 +-- AlreadyExistsError       409 on create: somebody else's object is there
 +-- StaleError               409: the object is another one, or a newer one, than the one that was looked at
 +-- ManagerConflictError     409 on apply: another field manager holds a field of ours
 +-- RefusedError             403, 422, another 4xx: the request itself is not wanted
 |    +-- TerminatingError    403: the namespace is going
 |    +-- NotAllowedError     403: RBAC does not let the operator's ServiceAccount do it
 +-- UnavailableError         401, 429, 5xx, a time-out, no connection: it will pass
"""

import datetime as dt
from collections.abc import Sequence

from squidex_operator.api import reasons
from squidex_operator.policy import backoff


class KubeError(Exception):
    """A request to the API server failed. Its text never holds a part of the object that was sent."""

    kind = backoff.Kind.CLUSTER
    reason = reasons.Reason.KUBERNETES_ERROR

    def __init__(self, message: str, *, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(message)
        self.problem = backoff.Problem(self.kind, self.reason, message, retry_after)


class NotFoundError(KubeError):
    """There is no such object."""


class AlreadyExistsError(KubeError):
    """The object to create is there already."""


class StaleError(KubeError):
    """What was looked at has changed meanwhile."""


class ManagerConflictError(KubeError):
    """Another field manager holds a field that we apply."""

    reason = reasons.Reason.TARGET_CONFLICT

    def __init__(self, message: str, *, managers: Sequence[str], by_hand: bool) -> None:
        super().__init__(message)
        self.managers = tuple(managers)
        self.by_hand = by_hand
        """All of them changed it with an update (`kubectl edit`, `kubectl patch`), none applies it as its own."""


class RefusedError(KubeError):
    """The API server, or an admission plugin, does not want it."""

    kind = backoff.Kind.UNKNOWN


class TerminatingError(RefusedError):
    """The namespace is going."""

    reason = reasons.Reason.TERMINATING


class NotAllowedError(RefusedError):
    """RBAC does not let the operator do it. The right may come back any moment, and asking again is cheap."""

    kind = backoff.Kind.CLUSTER


class UnavailableError(KubeError):
    """The API server cannot answer now."""
