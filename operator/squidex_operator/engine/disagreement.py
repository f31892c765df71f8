"""Servers whose replicas have different signing keys, or whose list of keys is cached: what was seen, and the longer waits.

Each new token of such a server is one more that half of it refuses.
"""

import datetime as dt

from squidex_operator.api import reasons
from squidex_operator.engine import attempt, inventory, tools
from squidex_operator.policy import backoff, render

_SOON = dt.timedelta(hours=2)
"""A token that is refused so soon after its predecessor was: twice the longest wait between the two."""


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
