"""Runs as `python -I -S enter.py SETUP.json PROGRAM ARGS…`: runs PROGRAM in the cell, and ends as it does.

SIGTERM reaches both (they share a process group) and is for the program; this one waits for its end. SIGKILL of this one
kills the program, too.
"""

import ctypes
import json
import os
import signal
import sys
from typing import NoReturn

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
NAMESPACES = ("cgroup", "ipc", "uts", "net", "pid", "mnt")


def main(setup_file: str, argv: list[str]) -> NoReturn:
    """Join the cell's cgroups and namespaces, then fork: only a child is in another process namespace."""
    with open(setup_file) as file:  # noqa: PTH123  (no pathlib: this must start fast)
        setup = json.load(file)
    with open(setup["pid_file"]) as file:  # noqa: PTH123
        pid = int(file.read())
    for procs in setup["enter"]:
        with open(procs, "w") as file:  # noqa: PTH123
            file.write("0")
    opened = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]
    for namespace in opened:
        if libc.setns(namespace, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"setns: {os.strerror(code)}")
        os.close(namespace)
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
