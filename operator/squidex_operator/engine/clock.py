"""The wall clock, as a thing that tests can put in its place."""

import datetime as dt
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> dt.datetime:
        """Aware UTC."""
        ...


class WallClock:
    """The machine's clock."""

    def now(self) -> dt.datetime:
        """Aware UTC."""
        return dt.datetime.now(dt.UTC)
