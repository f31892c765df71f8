"""How long to wait after a failure, by what kind of failure it was.

| kind | what it is | first wait | longest wait |
|---|---|---|---|
| PERMANENT | a person must change something: a wrong secret, an unknown scope | 4-5 h | 4-5 h: at most 6 token requests a day |
| TRANSIENT | the outside world is in trouble: 5xx, time-outs, 429 | 5-10 s | 5-10 min |
| UNKNOWN | an answer that does not say: HTML, a redirect, a proxy's 403 | 15-30 s | 30-60 min |
| CLUSTER | something in the cluster is missing or in the way, or its API server is: no token request | 5-10 s | 1-2 min |

A wait is drawn from [d, 2d) ("full jitter" over a floor), so that clients that failed together do not come back together.
See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
"""

import dataclasses
import datetime as dt
import enum

from squidex_operator.api import reasons

MAX_COUNT = 1_000_000
"""Failures are not counted further: `status.failures` is an int32, and somebody may have written into it."""

MAX_RETRY_AFTER = dt.timedelta(hours=1)
"""A server may ask for more, but a typo in a proxy's configuration must not stop renewals for a week."""


class Kind(enum.Enum):
    """What kind of failure: decides how long to wait."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"
    CLUSTER = "cluster"


@dataclasses.dataclass(frozen=True, slots=True)
class _Pace:
    first: dt.timedelta
    cap: dt.timedelta
    spread: float


_PACES = {
    Kind.PERMANENT: _Pace(dt.timedelta(hours=4), dt.timedelta(hours=4), 0.25),
    Kind.TRANSIENT: _Pace(dt.timedelta(seconds=5), dt.timedelta(minutes=5), 1.0),
    Kind.UNKNOWN: _Pace(dt.timedelta(seconds=15), dt.timedelta(minutes=30), 1.0),
    Kind.CLUSTER: _Pace(dt.timedelta(seconds=5), dt.timedelta(minutes=1), 1.0),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong, in words fit for a status: never a secret, never a token."""

    kind: Kind
    reason: reasons.Reason
    message: str
    retry_after: dt.timedelta | None = None
    """What the server asked for (RFC 9110, 10.2.3)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A problem with its history: how often in a row, when, and when to try again."""

    problem: Problem
    count: int
    at: dt.datetime
    next_attempt: dt.datetime
    generation: int
    inputs_hash: str
    """What was tried: another spec or other credentials end the wait. Empty where there were no credentials."""
    fingerprint: str = dataclasses.field(default="", repr=False)
    """Of the id and the secret that were tried (see CredentialsSeen): new metadata on their Secret ends no wait."""

    def is_waiting(self, now: dt.datetime) -> bool:
        """Whether the wait is under way. Not of a failure of the future: the clock was set back, its time may be years away."""
        return self.at <= now < self.next_attempt

    def tried(self, inputs_hash: str, fingerprint: str) -> bool:
        """Whether the attempt was made with the same id and secret, or with this very version of their Secret."""
        return self.inputs_hash == inputs_hash or bool(fingerprint and self.fingerprint == fingerprint)


def wait(kind: Kind, count: int, draw: float) -> dt.timedelta:
    """How long to wait after the `count`-th failure in a row (from 1). `draw` is random in [0, 1)."""
    pace = _PACES[kind]
    # Bounded below: a count that somebody wrote into the status must not make a wait of nothing. Bounded above: 2**30 times
    # the first wait is past every cap, and the count of a year must not overflow.
    delay = min(pace.cap, pace.first * float(2 ** min(max(count - 1, 0), 30)))
    return delay * (1 + pace.spread * draw)


def next_failure(
    previous: Failure | None,
    problem: Problem,
    *,
    now: dt.datetime,
    generation: int,
    inputs_hash: str,
    draw: float,
    fingerprint: str = "",
) -> Failure:
    """The failure after `previous`, with the time of the next attempt.

    Another kind of problem starts to count anew; so does another spec, or other credentials: whoever is correcting something
    does not wait for the mistakes before.
    """
    streak = 1
    if previous is not None and previous.problem.kind is problem.kind and previous.generation == generation:
        known = previous.inputs_hash and inputs_hash
        if not known or previous.tried(inputs_hash, fingerprint):
            streak = min(max(previous.count, 0), MAX_COUNT) + 1
    delay = wait(problem.kind, streak, draw)
    if problem.retry_after is not None:
        delay = max(delay, min(problem.retry_after, MAX_RETRY_AFTER))
    return Failure(problem, streak, now, now + delay, generation, inputs_hash, fingerprint)
