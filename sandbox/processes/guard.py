"""Runs as `python -I -S guard.py FOLDER`: ends the programs and removes the folder when their owner is gone.

Its standard input is a pipe whose other end only the owner holds. Lines `+PID` and `-PID` say what runs; the
end of the pipe (a SIGKILL of the owner gives that, too) or the line `end` means: clean up. It works on every
Unix and costs one sleeping process.
"""

import contextlib
import os
import shutil
import signal
import sys


def watch() -> set[int]:
    """Read announcements until the owner is gone; return the pids that should be gone as well."""
    pids: set[int] = set()
    for line in sys.stdin:
        sign, number = line[:1], line[1:].strip()
        if sign == "+":
            pids.add(int(number))
        elif sign == "-":
            pids.discard(int(number))
        else:
            break
    return pids


def main(folder: str) -> None:
    """Wait, then kill each program (it leads its own process group) and remove the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for pid in watch():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for _ in range(5):  # a program that is just dying may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110  (no pathlib: this must start fast)
            return


if __name__ == "__main__":
    main(sys.argv[1])
