"""Runs as `python -I -S guard.py FOLDER`: ends the programs and removes the folder when their owner is gone.

Its standard input is a pipe whose other end only the owner holds. Lines `+PID` and `-PID` say what runs, lines
`/PATH` name cgroups that have to go as well; the end of the pipe (a SIGKILL of the owner gives that, too) or the
line `end` means: clean up. It works on every Unix and costs one sleeping process.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

CGROUP_PATIENCE = 10.0  # seconds that the kernel may take to bury what was killed


def watch() -> tuple[set[int], list[str]]:
    """Read announcements until the owner is gone; return the pids and the cgroups that should be gone as well."""
    pids: set[int] = set()
    cgroups: list[str] = []
    for line in sys.stdin:
        sign, number = line[:1], line[1:].strip()
        if sign == "+":
            pids.add(int(number))
        elif sign == "-":
            pids.discard(int(number))
        elif sign == "/":
            cgroups.append(line.strip())
        else:
            break
    return pids, cgroups


def remove_cgroup(folder: str, patience: float = CGROUP_PATIENCE) -> None:
    """Remove a cgroup and those below it; raises OSError when a process stays in one of them."""
    deadline = time.monotonic() + patience
    for path, _, _ in os.walk(folder, topdown=False):
        while True:
            try:
                os.rmdir(path)  # noqa: PTH106  (no pathlib: this must start fast)
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                break


def main(folder: str) -> None:
    """Wait, then kill each program (it leads its own process group) and remove the cgroups and the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pids, cgroups = watch()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for cgroup in cgroups:
        with contextlib.suppress(OSError):
            remove_cgroup(cgroup)
    for _ in range(5):  # a program that is just dying may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110  (no pathlib: this must start fast)
            return


if __name__ == "__main__":
    main(sys.argv[1])
