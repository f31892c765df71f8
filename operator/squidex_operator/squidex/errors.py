"""What can go wrong with Squidex.

SquidexError            carries a Problem: reason, kind, a message fit for a status, and what Retry-After asked for
 +-- RejectedError      the server said no to what the user gave us: a person must change something
 +-- UnavailableError   the server, or the way to it, is in trouble: it will pass
 +-- UnclearError       an answer that is not Squidex's: a proxy, a wrong URL, a captive page
"""

import datetime as dt

from squidex_operator.api import reasons
from squidex_operator.policy import backoff


class SquidexError(Exception):
    """A request to Squidex failed. Its text never holds a secret, a token or a part of an answer's body."""

    kind: backoff.Kind

    def __init__(self, reason: reasons.Reason, message: str, *, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(message)
        self.problem = backoff.Problem(self.kind, reason, message, retry_after)


class RejectedError(SquidexError):
    """A person must change something."""

    kind = backoff.Kind.PERMANENT


class UnavailableError(SquidexError):
    """It will pass."""

    kind = backoff.Kind.TRANSIENT


class UnclearError(SquidexError):
    """It does not say."""

    kind = backoff.Kind.UNKNOWN
