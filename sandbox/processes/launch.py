"""Runs as `python -I -S launch.py GUARD_FD OWNER_PID PROGRAM ARGS…` and becomes PROGRAM.

Between the fork of a program and the moment somebody remembers its pid, the owner may die. So the program
announces itself, before it is the program: the guard (see guard.py) knows it from the first instant. On Linux
the kernel is asked, too, to kill the program when its parent ends; that survives even a SIGKILL of the owner
and the guard together.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Linux only: SIGKILL for this process when the thread that started it ends (prctl(2))."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)


def main(guard_fd: int, owner: int, argv: list[str]) -> None:
    """Announce this pid to the guard, then turn into the program."""
    os.write(guard_fd, b"+%d\n" % os.getpid())
    os.set_inheritable(guard_fd, False)
    if sys.platform == "linux":
        die_with_parent(owner)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
