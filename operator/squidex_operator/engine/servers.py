"""The signing keys of each Squidex: one request per interval and server, however many SquidexClients it has."""

import collections
import dataclasses
import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from squidex_operator.engine import inventory as inventory_module
from squidex_operator.policy import observed, schedule

logger = logging.getLogger(__name__)


class ServerKey(NamedTuple):
    """A Squidex in the queue, by its base URL."""

    base_url: str


_PAUSE = dt.timedelta(minutes=1)
"""Between two questions that somebody's refused token asks; they are the same question."""

_AHEAD = dt.timedelta(minutes=1)
"""A token that was issued so far in the future was issued before the clock was set back; less is two clocks."""

_PERIOD = dt.timedelta(minutes=4)
_PERIODS = 3
"""So many in a row, with no list that has a key, are believed where one list alone is not: however often lists come."""

_NAMED = 8
"""Keys in a log line."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The ids of the keys that a server published, and when it was asked."""

    ids: frozenset[str]
    at: dt.datetime


class Servers:
    """What is known of each server's keys."""

    def __init__(self, inventory: inventory_module.Inventory, *, interval: dt.timedelta) -> None:
        self._inventory = inventory
        self._interval = interval
        self._snapshots: dict[str, Snapshot] = {}
        self._periods: dict[str, collections.deque[Snapshot]] = {}
        """All keys of the lists in each of the last periods, and when it began."""
        self._known: set[str] = set()
        self._asked_at: dict[str, dt.datetime] = {}

    def begin(self, base_url: str) -> bool:
        """True where this server was not watched yet: the caller puts it into the queue."""
        if base_url in self._known:
            return False
        self._known.add(base_url)
        return True

    def soonest(self, base_url: str, now: dt.datetime) -> dt.datetime:
        """When a server may be asked before its time: a thousand refused tokens are one question a minute."""
        asked_at = self._asked_at.get(base_url)
        return now if asked_at is None or now < asked_at else max(now, asked_at + min(self._interval, _PAUSE))

    def clock_set_back(self) -> None:
        """Nobody can tell any more what was asked before a token was issued: all servers are to be asked anew."""
        self._snapshots.clear()
        self._periods.clear()

    def known(self) -> list[ServerKey]:
        """All servers that are watched."""
        return [ServerKey(base_url) for base_url in sorted(self._known)]

    def first_check(self, base_url: str, now: dt.datetime) -> dt.datetime:
        """When a server is asked first: soon, but not all servers at once after a restart."""
        return now + min(self._interval, dt.timedelta(seconds=30)) * schedule.fraction(base_url, "keys")

    def key_vanished(self, record: inventory_module.Record, seen: observed.TargetSeen, now: dt.datetime) -> bool:
        """Whether the key that signed the token in the target is no longer published.

        What was published before the token was issued says nothing about it; and where the server keeps signing with a
        key that it does not publish (replicas that disagree), tokens are not fetched faster than `key_retry_at` allows, or
        than a quarter of an hour of lists says the same.
        """
        if record.client.spec is None or seen.issued_at is None:
            return False
        base_url = record.client.spec.base_url
        if not self.has_replaced(base_url, seen.key_id, seen.issued_at, now):
            return False
        if record.key_retry_at is None or now >= record.key_retry_at:
            return True
        # All lists since the last contradiction end the wait: the replicas agree again, or a cache has an old one.
        since = max(seen.issued_at, record.key_noted_at or seen.issued_at)
        return self.has_surely_replaced(base_url, seen.key_id, since, now)

    def has_replaced(self, base_url: str, key_id: str, issued_at: dt.datetime, now: dt.datetime) -> bool:
        """Whether the key of a token was no longer published at some time after the token was issued."""
        snapshot = self._snapshots.get(base_url)
        if not key_id or snapshot is None or key_id in snapshot.ids:
            return False
        # A token of the future was issued before the clock was set back, and so before anything that is known here.
        return snapshot.at > issued_at or issued_at > now + _AHEAD

    def has_surely_replaced(self, base_url: str, key_id: str, since: dt.datetime, now: dt.datetime) -> bool:
        """The same of all lists in several periods after `since`: those of replicas that disagree take turns."""
        periods = self._periods.get(base_url, ())
        return (
            len(periods) == _PERIODS
            and self.has_replaced(base_url, key_id, since, now)
            and not any(key_id in each.ids or each.at <= since for each in periods)
        )

    def publishes(self, base_url: str, key_id: str) -> bool | None:
        """Whether the server publishes this key; None where it is not known."""
        snapshot = self._snapshots.get(base_url)
        return None if snapshot is None else key_id in snapshot.ids

    async def check(
        self,
        base_url: str,
        now: dt.datetime,
        fetch: Callable[[str], Awaitable[frozenset[str] | None]],
    ) -> tuple[list[inventory_module.Key], bool]:
        """Ask a server for its keys.

        Returns:
            The SquidexClients whose key has vanished, the token that expires first in front; and whether the server told.
        """
        self._asked_at[base_url] = now
        ids = await fetch(base_url)
        if ids is None:
            return [], False
        before = self._snapshots.get(base_url)
        periods = self._periods.setdefault(base_url, collections.deque(maxlen=_PERIODS))
        if periods and now - periods[-1].at < _PERIOD:
            periods[-1] = Snapshot(periods[-1].ids | ids, periods[-1].at)
        else:
            periods.append(Snapshot(ids, now))
        self._snapshots[base_url] = Snapshot(ids, now)
        vanished = []
        for key, record in self._inventory.of_server(base_url):
            seen = self._inventory.targets.get(inventory_module.Key(key.namespace, record.client.target_name))
            if seen is not None and seen.expires_at is not None and self.key_vanished(record, seen, now):
                vanished.append((seen.expires_at, key))
        if vanished and (before is None or before.ids != ids):
            # A server may publish hundreds.
            named = ",".join(sorted(ids)[:_NAMED]) + ("" if len(ids) <= _NAMED else f",… ({len(ids)})")
            logger.warning("signing keys replaced url=%s keys=%s tokens=%d", base_url, named, len(vanished))
        return [key for _, key in sorted(vanished)], True

    def next_check(self, base_url: str, now: dt.datetime) -> dt.datetime | None:
        """When to ask again; None where no SquidexClient is left."""
        if next(self._inventory.of_server(base_url), None) is None:
            self._snapshots.pop(base_url, None)
            self._periods.pop(base_url, None)
            self._known.discard(base_url)
            self._asked_at.pop(base_url, None)
            return None
        # A tenth of jitter keeps many servers from being asked in the same second for ever.
        return now + self._interval * (0.9 + 0.1 * schedule.fraction(base_url, str(now)))
