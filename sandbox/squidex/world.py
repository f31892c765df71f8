"""Everything the switches can change, in one place: who exists, which keys, what time it is, which faults."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox.squidex.counts import Counts
from sandbox.squidex.directory import Directory
from sandbox.squidex.faults import Faults
from sandbox.squidex.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.squidex.keys import SigningKey

LIFETIME = 30 * 24 * 3600
"""Seconds a Squidex token lives."""


@dataclass(frozen=True, slots=True)
class Start:
    """What the server was started with, and returns to when its state is deleted."""

    clients: Mapping[str, str | None]
    key: SigningKey
    issuer: str | None = None
    lifetime: int = LIFETIME


@dataclass(slots=True)
class World:
    """The state behind the answers."""

    start: Start
    own_url: str = ""
    """Where the server listens, without a trailing slash; the default issuer follows from it."""
    issuer_setting: str | None = None
    lifetime: int = LIFETIME
    clock_offset: float = 0.0
    base_path: str = ""
    web_page: bool = False
    identityserver4: bool = False
    directory: Directory = field(init=False)
    keys: KeyRing = field(init=False)
    faults: Faults = field(default_factory=Faults)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        """Begin as started."""
        self.reset()

    def reset(self) -> None:
        """Turn every switch back to where it was at the start, and every count to zero."""
        self.issuer_setting = self.start.issuer
        self.lifetime = self.start.lifetime
        self.clock_offset = 0.0
        self.base_path = ""
        self.web_page = False
        self.identityserver4 = False
        self.directory = Directory(self.start.clients)
        self.keys = KeyRing(self.start.key)
        self.faults.replace([])
        self.counts.reset()

    @property
    def issuer(self) -> str:
        """The public base URL that tokens name, with a trailing slash unless it was set without."""
        return self.issuer_setting or f"{self.own_url}{self.base_path}/"

    def now(self) -> float:
        """Return the server's idea of the time, in seconds since the epoch."""
        return time.time() + self.clock_offset

    def http_date(self, seconds_ahead: float = 0) -> str:
        """Return the server's time, or one ahead of it, as HTTP writes it."""
        return email.utils.formatdate(self.now() + seconds_ahead, usegmt=True)
