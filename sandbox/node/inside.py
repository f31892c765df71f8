"""Runs as `python -I -S inside.py SETUP.json`: makes the cell, and is its first process.

The cell is a process, mount, network and cgroup namespace. When its first process ends, the kernel kills every other one in
it; with the last of them go the mounts and the network. So there is nothing to unmount and no interface to delete, however
this ends. Two processes: the outer one dies with its owner (see processes/launch.py), the inner one, PID 1 of the cell,
dies with the outer one.

What it changes on the machine is its cgroups and its folder, nothing else: paths that a kubelet and containerd write to
by their own choice are covered by overlays, and so are the kernel's settings that a kubelet would set.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any, NoReturn

libc = ctypes.CDLL(None, use_errno=True)

# linux/sched.h, linux/mount.h, linux/prctl.h: Python's os module knows some of them since 3.12.
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 2, 4, 8, 4096, 16384, 1 << 18, 1 << 20
PR_SET_PDEATHSIG = 1


def check(result: int, what: str) -> None:
    """Raise what the C library says."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def write(path: str, text: str) -> None:
    """Write a short text to a file that is there."""
    with open(path, "w") as file:  # noqa: PTH123  (no pathlib: this must start fast)
        file.write(text)


def cover(setup: dict[str, Any]) -> None:
    """Put the node's own folders over those that its programs write to."""
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for path, folders in setup["overlays"].items():
        upper, work = folders["upper"], folders["work"]
        mount("overlay", path, "overlay", 0, f"lowerdir={path},upperdir={upper},workdir={work}")
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path, file in setup["kernel_settings"].items():
        if os.path.exists(path):  # noqa: PTH110
            mount(file, path, None, MS_BIND)


def mount_cgroups(setup: dict[str, Any]) -> None:
    """The machine's kinds of cgroups, whose roots are the cell's own."""
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if setup["cgroups"]["unified"]:
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return
    mount("tmpfs", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
    for name, options in setup["cgroups"]["hierarchies"].items():
        os.mkdir(f"/sys/fs/cgroup/{name}")  # noqa: PTH102
        mount("cgroup", f"/sys/fs/cgroup/{name}", "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


def first_process(setup: dict[str, Any], ready: int) -> NoReturn:
    """PID 1 of the cell: set it up, say so, then reap whoever has lost its parent."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    cover(setup)
    mount_cgroups(setup)
    # A pod's volumes are mounted by the kubelet and have to be seen by containerd and, where asked for, by containers.
    mount(None, "/", None, MS_REC | MS_SHARED)
    name = setup["hostname"].encode()
    check(libc.sethostname(name, len(name)), "sethostname")
    os.write(ready, b"ready")  # breaks, and ends this one, when the outer one died before the kernel was asked
    os.close(ready)
    reap()


def reap() -> NoReturn:
    """Bury what has lost its parent, until SIGTERM."""
    waited = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if signal.sigwait(waited) == signal.SIGTERM:
            os._exit(0)


def main(setup_file: str) -> NoReturn:
    """Make the namespaces; write the pid of their first process beside the setup when they are ready."""
    with open(setup_file) as file:  # noqa: PTH123
        setup = json.load(file)
    for procs in setup["join"]:
        write(procs, "0")
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    check(libc.unshare(flags), "unshare")
    for procs, text in setup["after"]:
        write(procs, text)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        first_process(setup, writing)
    os.close(writing)
    if os.read(reading, 5) == b"ready":
        write(setup["pid_file"], str(child))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1])
