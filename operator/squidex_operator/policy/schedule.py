"""When a token is renewed. This is the one file to read, and to change, for that rule.

Everything is computed from when the token was issued and how long it was granted for, never from what is left of it, so that
no number of reconciles moves the time. cert-manager's words are used: `renewBefore` and `renewBeforePercentage`.
"""

import dataclasses
import datetime as dt
import hashlib

from squidex_operator.api import resource

MIN_RUNWAY = dt.timedelta(minutes=5)
"""What consumers have at least before the old token dies: a kubelet may need two minutes to show a new Secret to a pod."""

MAX_LIFETIME = dt.timedelta(days=366)
ASSUMED_LIFETIME = dt.timedelta(hours=1)
"""For an opaque token whose answer does not say how long it lives (RFC 6749, 5.1 only recommends `expires_in`)."""


def fraction(uid: str, salt: str) -> float:
    """A number in [0, 1) that is always the same for a uid: jitter that no restart changes."""
    digest = hashlib.blake2b(f"{salt}:{uid}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def next_slot(now: dt.datetime, interval: dt.timedelta, uid: str, salt: str) -> dt.datetime:
    """The next of the times that lie an interval apart and are always the same for a uid.

    So a restart spreads work over the interval and yet postpones none of it, however often it happens.
    """
    first = dt.datetime.fromtimestamp(0, dt.UTC) + interval * fraction(uid, salt)
    return first + interval * ((now - first) // interval + 1)


def runway(lifetime: dt.timedelta) -> dt.timedelta:
    """How long before its death a token is replaced at the latest."""
    return min(MIN_RUNWAY, lifetime / 3)


def renewal_due(issued_at: dt.datetime, expires_at: dt.datetime, refresh: resource.Refresh, uid: str) -> dt.datetime:
    """When a token is to be renewed.

    At 2/3 of its lifetime, or `renewBefore` its end, or when `renewBeforePercentage` of its lifetime is left; earlier by a
    jitter of up to 5 % of the lifetime (and of up to a tenth of `renewBefore`), so that clients made together do not renew
    together. Always later than `issued_at` and at least `runway` before `expires_at`.
    A `renewBefore` of nine tenths of the lifetime or more is passed over: it would renew without end.
    """
    lifetime = expires_at - issued_at
    before = lifetime / 3
    jitter = lifetime * 0.05
    if refresh.renew_before is not None and refresh.renew_before < lifetime * 0.9:
        before = refresh.renew_before
        jitter = min(jitter, before / 10)
    elif refresh.renew_before_percentage is not None:
        before = lifetime * refresh.renew_before_percentage / 100
    before = max(before, runway(lifetime))
    return expires_at - before - jitter * fraction(uid, "renewal")


def is_due(
    now: dt.datetime, issued_at: dt.datetime, expires_at: dt.datetime, refresh: resource.Refresh, uid: str
) -> bool:
    """Whether a token is to be renewed now.

    One that was issued in the future was issued when the clock was ahead, and dies so much earlier than it says. Where that is
    more than what its renewal leaves to consumers, it would die first.
    """
    due = renewal_due(issued_at, expires_at, refresh, uid)
    return now >= due or issued_at - now > expires_at - due


def lifetime_granted(
    *, expires_in: float | None, expires: float | None, server_now: float | None, now: float
) -> dt.timedelta:
    """How long a new token lives: the smaller of the answer's `expires_in` and of the token's own `exp`.

    Args:
        expires_in: seconds, from the answer; None where it does not say, or says nonsense.
        expires: the JWT's `exp`, epoch seconds on the server's clock; None for an opaque token.
        server_now: the answer's `Date`, epoch seconds; None where there is none.
        now: our clock, epoch seconds, when the request was sent.

    `exp` is measured from the server's own clock, so that a server whose clock is hours off grants what it means to.
    A lifetime of zero means that the token was dead on arrival.
    """
    granted = [] if expires_in is None else [expires_in]
    if expires is not None:
        granted.append(expires - (server_now if server_now is not None else now))
    if not granted:
        return ASSUMED_LIFETIME
    # Bounded on both sides: a timedelta cannot hold what a server may write.
    return dt.timedelta(seconds=max(0.0, min(*granted, MAX_LIFETIME.total_seconds())))


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket without a clock of its own: `take` says when the caller may go, and gives the bucket after that.

    `rate` per second, `burst` at once. See GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm.
    """

    rate: float
    burst: int
    full_at: dt.datetime | None = None
    """When the bucket will be full again, or was."""
    taken_at: dt.datetime | None = None
    """When one was last taken."""

    def take(self, now: dt.datetime) -> tuple[dt.datetime, "Bucket"]:
        """Reserve one: the time from which it may be used, never before `now`, and the bucket without it."""
        interval = dt.timedelta(seconds=1 / self.rate)
        # A clock that was set back takes the bucket along: else nothing would be let through until it is there again.
        set_back = max(dt.timedelta(), (self.taken_at or now) - now)
        full_at = max(now, (self.full_at or now) - set_back)
        at = max(now, full_at - interval * (self.burst - 1))
        return at, Bucket(self.rate, self.burst, full_at + interval, now)

    def put_back(self) -> "Bucket":
        """The bucket with one more: a turn that was taken and will not be used."""
        if self.full_at is None:
            return self
        return dataclasses.replace(self, full_at=self.full_at - dt.timedelta(seconds=1 / self.rate))
