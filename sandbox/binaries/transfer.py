"""One file over HTTP, with the checksum it must have."""

from __future__ import annotations

import hashlib
import http
import http.client
import re
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from sandbox.binaries.model import Unavailable
from sandbox.binaries.progress import Progress, megabytes, say

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 4
PIECE = 1 << 18
SMALL = 1 << 20
NETWORK = (OSError, http.client.HTTPException)


def fetch_text(url: str, *, patience: float) -> str:
    """A small file, or Unavailable within `patience` seconds.

    In a thread of its own: a name that does not resolve and an address that swallows packets have no common
    timeout.
    """
    outcome: list[str | Exception] = []

    def work() -> None:
        try:
            with urllib.request.urlopen(url, timeout=patience) as answer:
                outcome.append(answer.read(SMALL).decode())
        except (*NETWORK, ValueError) as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        raise Unavailable(f"{url}: no answer within {patience:g} s")
    if isinstance(outcome[0], Exception):
        raise Unavailable(f"{url}: {_reason(outcome[0])}") from outcome[0]
    return outcome[0]


def fetch(url: str, target: Path, *, sha256: str, label: str, stall: float) -> None:
    """Download to `target`, which is only there when it is whole and right; raises Unavailable.

    What is there of an earlier try (TARGET.part) is continued. When the whole then has the wrong checksum, it
    may have been the earlier part's fault: once more from the beginning.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists() and part.stat().st_size > 0
    while True:
        _complete(url, part, label=label, stall=stall)
        found = checksum(part)
        if found == sha256:
            part.replace(target)
            return
        part.unlink()
        if not resumed:
            raise Unavailable(f"{url}: SHA-256 is {found}, published is {sha256}; the file was removed")
        say(f"{label}: the resumed download has a wrong checksum, starting again")
        resumed = False


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(url: str, part: Path, *, label: str, stall: float) -> None:
    """Load until the server says that this is all; a broken connection is continued where it broke."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _load(url, part, label=label, stall=stall)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise Unavailable(f"{url}: {_reason(error)}") from error
            error.close()
            part.unlink(missing_ok=True)  # the part is longer than the file
        except NETWORK as error:
            if attempt == ATTEMPTS:
                raise Unavailable(f"{url}: {_reason(error)}") from error
        else:
            return
    raise Unavailable(f"{url}: the server refuses to send the file from its beginning")


def _load(url: str, part: Path, *, label: str, stall: float) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=stall) as answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # this server does not resume
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = Progress(label, total=total)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            done = start
            while piece := answer.read(PIECE):
                file.write(piece)
                done += len(piece)
                bar.update(done)
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)
    bar.finish(megabytes(done))


def _reason(error: Exception) -> str:
    """What a person needs to know of an error; an HTTP error is also an open connection, closed here."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"HTTP {error.code}"
    reason: Any = getattr(error, "reason", error)
    return re.sub(r"^\[Errno -?\d+\] ", "", str(reason)) or type(error).__name__
