"""Says what takes long: what, how much, how long it usually takes. On standard error, so that output stays usable."""

from __future__ import annotations

import sys
import time

BAR = 30
REFRESH = 0.2  # seconds between two updates on a terminal
PLAIN_REFRESH = 15.0  # and in a log file, where each one is a line


def seconds(duration: float) -> str:
    """As people say it: "7s", "2m10s"."""
    minutes, rest = divmod(int(duration), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def megabytes(count: int) -> str:
    """A size, rounded."""
    return f"{count / 1e6:.1f} MB"


def say(text: str) -> None:
    """A line of its own."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One line that changes on a terminal; a new line now and then elsewhere."""

    def __init__(self, label: str, *, total: int | None = None) -> None:
        """`total` is in bytes; without it, only the time that has passed is shown."""
        self.label = label
        self.total = total
        self.done = 0
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next = self._started + (0 if self._terminal else PLAIN_REFRESH)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def update(self, done: int = 0) -> None:
        """Say how many bytes are there; cheap when called often."""
        self.done = done
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (REFRESH if self._terminal else PLAIN_REFRESH)
            self._write("\r\x1b[K" + self._text() if self._terminal else self._text() + "\n")

    def finish(self, result: str) -> None:
        """Replace the changing line by its result."""
        self._write(("\r\x1b[K" if self._terminal else "") + f"{self.label}: {result}\n")

    def _text(self) -> str:
        if self.total is None:
            return f"{self.label} {seconds(self.elapsed)}"
        share = min(self.done / self.total, 1) if self.total else 1
        bar = "#" * int(share * BAR)
        return f"{self.label} [{bar:<{BAR}}] {share:4.0%} of {megabytes(self.total)} {seconds(self.elapsed)}"

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
