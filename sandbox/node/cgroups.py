"""The cell's cgroups: one folder in each hierarchy (version 1) or one folder (version 2), and all that is made below them."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.processes.guard import remove_cgroup

MOUNTS = Path("/proc/self/mountinfo")
ROOT = Path("/sys/fs/cgroup")
PREFIX = "squidex-node"
SWEEP_PATIENCE = 1.0
"""Seconds: those whom it is about were killed long ago."""
NO_OPTIONS = {"rw", "ro", "noprefix", "xattr"}


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy; `options` is what mounts it again, empty for version 2."""

    folder: Path
    options: str

    @property
    def unified(self) -> bool:
        """Whether it is of version 2."""
        return not self.options


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """What containers are put in here: all hierarchies of version 1, or the one of version 2; raises SandboxError.

    A machine may have both ("hybrid"): then the one of version 2 has no controllers, and is left out.
    """
    old: dict[str, Hierarchy] = {}
    new: list[Hierarchy] = []
    for line in (mountinfo if mountinfo is not None else MOUNTS.read_text()).splitlines():
        before, _, after = line.partition(" - ")
        place, (kind, _, options) = before.split()[4], after.split()[:3]
        if kind == "cgroup":
            kept = ",".join(option for option in options.split(",") if option not in NO_OPTIONS)
            text = f"none,{kept}" if kept.startswith("name=") else kept
            old.setdefault(text, Hierarchy(Path(place), text))
        elif kind == "cgroup2":
            new.append(Hierarchy(Path(place), ""))
    if old:
        return list(old.values())
    if new:
        return new[:1]
    raise SandboxError(f"no cgroups are mounted at {ROOT}: a node cannot run here")


class Cgroups:
    """The folders of one cell."""

    def __init__(self, name: str) -> None:
        """Choose them; nothing is made yet."""
        self._hierarchies = hierarchies()
        self.folders = [hierarchy.folder / name for hierarchy in self._hierarchies]
        self.unified = self._hierarchies[0].unified

    def make(self) -> None:
        """Make the folders; raises SandboxError."""
        try:
            for folder in self.folders:
                folder.mkdir()
                for setting in ("cpuset.cpus", "cpuset.mems"):  # of version 1: empty, nobody may enter
                    if not self.unified and (folder / setting).exists():
                        (folder / setting).write_text((folder.parent / setting).read_text())
            if self.unified:
                (self.folders[0] / "init").mkdir()
        except OSError as error:
            raise SandboxError(f"no cgroup for the node can be made: {error}") from error

    def setup(self) -> dict[str, Any]:
        """What inside.py and enter.py need to know."""
        join = [str(folder / "cgroup.procs") for folder in self.folders]
        mounts = {hierarchy.folder.name: hierarchy.options for hierarchy in self._hierarchies}
        described = {"unified": self.unified, "hierarchies": mounts}
        if not self.unified:
            return {"cgroups": described, "join": join, "after": [], "enter": join}
        # Version 2: a cgroup that has children with controllers has no processes of its own.
        (folder,) = self.folders
        inner = str(folder / "init" / "cgroup.procs")
        controllers = (folder / "cgroup.controllers").read_text().split()
        enable = " ".join(f"+{name}" for name in controllers)
        after = [[inner, "0"], [str(folder / "cgroup.subtree_control"), enable]]
        return {"cgroups": described, "join": join, "after": after, "enter": [inner]}


def sweep() -> list[str]:
    """Remove the cgroups of nodes whose owner was killed together with its guard; returns their names."""
    gone = set()
    for hierarchy in hierarchies():
        for folder in hierarchy.folder.glob(f"{PREFIX}-*"):
            owner = owner_of(folder.name)
            if owner is not None and not Path(f"/proc/{owner}").exists():
                with contextlib.suppress(OSError):
                    remove_cgroup(str(folder), patience=SWEEP_PATIENCE)
                    gone.add(folder.name)
    return sorted(gone)


def owner_of(name: str) -> int | None:
    """The pid in the name of a node's folder or cgroup."""
    found = re.fullmatch(rf"{PREFIX}-(\d+)-[0-9a-f]+", name)
    return int(found[1]) if found else None
