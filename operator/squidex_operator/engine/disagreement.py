"""Servers whose replicas have different signing keys, or whose list of keys is cached: what was seen, and the longer waits.

Each new token of such a server is one more that half of it refuses.
"""

import datetime as dt

from squidex_operator.api import reasons
from squidex_operator.engine import attempt, inventory, tools
from squidex_operator.policy import backoff, observed, render

_SOON = dt.timedelta(hours=2)
"""A token that is refused so soon after its predecessor was: twice the longest wait between the two."""

_REFUSED_KEPT = dt.timedelta(hours=1)
"""How long a new token that was refused is asked about again before another is fetched: each stays in Squidex for good."""

_REFUSED_KEPT_IN_NEED = dt.timedelta(minutes=5)
"""The same where consumers have none that works: then a new one is fetched at each step of the backoff."""


def refused_before(t: tools.Tools, p: attempt.Pass, inputs: str) -> render.Grant | None:
    """The token that was refused when it was new, where it may be accepted by now."""
    kept, now = p.record.refused, t.now()
    if kept is None or kept.inputs_hash != inputs or not now < kept.grant.expires_at:
        return None
    age = abs(now - kept.grant.issued_at)
    if age > _REFUSED_KEPT:
        p.record.gave_up = False
        return None
    token = (p.spec.base_url, kept.grant.key_id, kept.grant.issued_at, now)
    if until(p.record, now) is None and t.servers.has_replaced(*token):
        # Its key may have been replaced just now; or the list of keys is another replica's. The next one will tell.
        doubt(t, p.record)
        return None
    seen = p.target_seen(t.inventory)
    if _is_dead(t, p, seen):
        return None if age > _REFUSED_KEPT_IN_NEED or t.servers.has_replaced(*token) else kept.grant
    if not p.record.gave_up and _is_refused(p, seen) and t.servers.has_surely_replaced(*token):
        # Once: were the next one refused as well, its key would not be the reason.
        p.record.gave_up = True
        return None
    return kept.grant


def _is_dead(t: tools.Tools, p: attempt.Pass, seen: observed.TargetSeen | observed.Unknown | None) -> bool:
    """Whether the target holds no token, or one that is dead for certain. A refusal alone is not that certain."""
    now = t.now()
    if not isinstance(seen, observed.TargetSeen) or not seen.token_intact or seen.issued_at is None:
        return True
    if seen.expires_at is None or now >= seen.expires_at:
        return True
    trusted = until(p.record, now) is None
    return trusted and t.servers.has_replaced(p.spec.base_url, seen.key_id, seen.issued_at, now)


def _is_refused(p: attempt.Pass, seen: observed.TargetSeen | observed.Unknown | None) -> bool:
    """Whether the server refused the target's token when it was last asked."""
    probed = p.record.probed
    if probed is None or not isinstance(seen, observed.TargetSeen):
        return False
    return probed.verdict is observed.Verdict.REFUSED and probed.data_hash == seen.data_hash


def note(t: tools.Tools, p: attempt.Pass, cause: reasons.Cause, grant: render.Grant) -> None:
    """A token was fetched and written. Where what is known of the keys does not fit, wait longer and longer for the next."""
    record, now = p.record, t.now()
    if cause not in (reasons.Cause.KEY_REPLACED, reasons.Cause.REFUSED):
        return
    if _is_recent(record, now) or t.servers.publishes(p.spec.base_url, grant.key_id) is False:
        doubt(t, record)
    else:
        record.key_noted_at, record.key_retries, record.key_retry_at = now, 0, None


def doubt(t: tools.Tools, record: inventory.Record) -> None:
    """The server says one thing and does another."""
    now = t.now()
    record.key_retries = record.key_retries + 1 if _is_recent(record, now) else 1
    record.key_noted_at = now
    record.key_retry_at = now + backoff.wait(backoff.Kind.UNKNOWN, record.key_retries + 4, t.draw())


def until(record: inventory.Record, now: dt.datetime) -> dt.datetime | None:
    """For how long the doubt lasts; None where all fits."""
    if not record.key_retries or record.key_noted_at is None or not _is_recent(record, now):
        return None
    return record.key_noted_at + _SOON


def _is_recent(record: inventory.Record, now: dt.datetime) -> bool:
    return record.key_noted_at is not None and abs(now - record.key_noted_at) < _SOON
