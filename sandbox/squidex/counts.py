"""What was asked, how often and how: for tests and benchmarks that check a client's behaviour.

Nothing here is secret: ids and names only, never a secret, a token or any other parameter's value.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG_ROWS = 20_000

NO_ANSWER = 0
"""Status of a request that got none: the connection was reset, or the client gave up."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answered request."""

    number: int
    seconds: float
    """Since the server's start, by the monotonic clock."""
    endpoint: str
    client: str | None
    status: int
    app: str | None = None


class Tally:
    """Requests to one endpoint."""

    def __init__(self) -> None:
        self.total = 0
        self.by_status: Counter[int] = Counter()

    def add(self, status: int) -> None:
        """Count one answer."""
        self.total += 1
        self.by_status[status] += 1

    def document(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return {"total": self.total, "byStatus": _by_status(self.by_status)}


class Counts:
    """All counts since the start or the last reset."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._in_flight: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget everything but the requests that are being answered right now."""
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._clients: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._apps: Counter[str] = Counter()
        self._rows: deque[Row] = deque(maxlen=LOG_ROWS)
        self._number = 0
        self._most = Counter(self._in_flight)
        self._last_token_request: dict[str, Any] | None = None

    def began(self, endpoint: str) -> None:
        """Note that a request came in."""
        for name in (endpoint, "all"):
            self._in_flight[name] += 1
            self._most[name] = max(self._most[name], self._in_flight[name])

    def ended(self, endpoint: str, client: str | None, app: str | None, status: int) -> None:
        """Note how a request was answered."""
        for name in (endpoint, "all"):
            self._in_flight[name] -= 1
        self._number += 1
        self._tallies[endpoint].add(status)
        if endpoint == "token":
            self._clients[client or ""][status] += 1
        if endpoint == "probe" and app is not None:
            self._apps[app] += 1
        seconds = round(time.monotonic() - self._began, 6)
        self._rows.append(Row(self._number, seconds, endpoint, client, status, app))

    def token_request(self, content_type: str, headers: Iterable[str], parameters: Iterable[str]) -> None:
        """Remember how the last token request was sent, without any value."""
        self._last_token_request = {
            "contentType": content_type,
            "headers": list(headers),
            "parameters": list(parameters),
        }

    def document(self) -> dict[str, Any]:
        """Return every count as JSON has it."""
        token, probe = self._tallies["token"].document(), self._tallies["probe"].document()
        token["byClient"] = {client: _by_status(seen) for client, seen in sorted(self._clients.items())}
        token["lastRequest"] = self._last_token_request
        probe["byApp"] = dict(sorted(self._apps.items()))
        others = {
            name: tally.document()
            for name, tally in sorted(self._tallies.items())
            if name not in ("token", "probe", "jwks")
        }
        return {
            "token": token,
            "probe": probe,
            "jwks": self._tallies["jwks"].document(),
            **others,
            "inFlight": {name: count for name, count in self._in_flight.items() if count},
            "maxInFlight": dict(self._most),
        }

    def rows(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the log's rows whose number is greater than `after`, the oldest first."""
        return [
            {
                "number": row.number,
                "seconds": row.seconds,
                "endpoint": row.endpoint,
                "client": row.client,
                "status": row.status,
                "app": row.app,
            }
            for row in self._rows
            if row.number > after
        ]


def _by_status(seen: Counter[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(seen.items())}
