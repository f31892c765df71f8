"""The namespaces that a node lives in, seen from outside: start them, run something in them, end them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError, said
from sandbox.node.cgroups import Cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.processes import Household, Program

INSIDE = Path(__file__).with_name("inside.py")
ENTER = Path(__file__).with_name("enter.py")
PYTHON = (sys.executable, "-I", "-S")
HOSTNAME = "sandbox-node"
# Written to by choice of the node's programs: https://kubernetes.io/docs/reference/node/kubelet-files/
COVERED = ("/var/lib", "/var/log")
HIDDEN = ("/run", *COVERED)
# A kubelet sets these for the whole machine. It does not where they have the value already, and in the cell they seem to.
KERNEL_SETTINGS = {
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/vm/panic_on_oom": "0",
    "/proc/sys/kernel/panic": "10",
    "/proc/sys/kernel/panic_on_oops": "1",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000",
}
TIMEOUT = 20.0


def run_in(
    household: Path,
    *args: str | Path,
    input: str | None = None,  # noqa: A002  (as subprocess.run calls it)
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program in the cell of a household, perhaps another process's, to its end; raises SandboxError if `check`."""
    command = [str(part) for part in (*PYTHON, ENTER, household / "cell" / "setup.json", *args)]
    done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise SandboxError(f"in the node, {' '.join(map(str, args))}: {said(done)}")
    return done


class Cell:
    """Made in a household, which ends it: see inside.py for how nothing is left then."""

    def __init__(self, home: Household) -> None:
        """Describe it; nothing runs yet."""
        self._home = home
        self.dir = home.dir / "cell"
        self._setup = self.dir / "setup.json"
        self._pid_file = self.dir / "pid"
        self.cgroups = Cgroups(home.dir.name)
        self.program = home.program("cell", [*PYTHON, INSIDE, self._setup])

    @property
    def pid(self) -> int:
        """The first process in it, as the machine counts."""
        try:
            return int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            raise SandboxError("the node's namespaces are not there") from None

    def start(self) -> None:
        """Make cgroups and namespaces; raises SandboxError."""
        for hidden in HIDDEN:
            if self._home.dir.is_relative_to(hidden):
                raise SandboxError(
                    f"TMPDIR must not be below {hidden} for a node: that folder has another content in it"
                )
        self.dir.mkdir()
        for folder in self.cgroups.folders:
            self._home.end_cgroup(folder)
        self.cgroups.make()
        self._setup.write_text(json.dumps(self._describe()))
        self.program.start()
        self.program.wait_until(
            lambda: self._pid_file.exists() and self._pid_file.read_text() != "", timeout=TIMEOUT, what="its namespaces"
        )

    def _describe(self) -> dict[str, object]:
        overlays = {}
        for path in COVERED:
            folders = {name: self.dir / f"{Path(path).name}-{name}" for name in ("upper", "work")}
            for folder in folders.values():
                folder.mkdir()
            overlays[path] = {name: str(folder) for name, folder in folders.items()}
        settings = {}
        for path, value in KERNEL_SETTINGS.items():
            file = self.dir / path.replace("/", "_")
            file.write_text(f"{value}\n")
            settings[path] = str(file)
        return {
            "hostname": HOSTNAME,
            "overlays": overlays,
            "kernel_settings": settings,
            "pid_file": str(self._touch(self._pid_file)),
            **self.cgroups.setup(),
        }

    @staticmethod
    def _touch(path: Path) -> Path:
        path.touch()
        return path

    def command(self, *args: str | Path) -> list[str | Path]:
        """The command line that runs a program in it."""
        return [*PYTHON, ENTER, self._setup, *args]

    def program_inside(self, name: str, argv: list[str | Path], *, env: Mapping[str, str] | None = None) -> Program:
        """A program of the household that runs in it; it is not started yet."""
        return self._home.program(name, self.command(*argv), env=env)

    def run(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002  (as subprocess.run calls it)
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end; raises SandboxError if `check`."""
        return run_in(self._home.dir, *args, input=input, check=check)
