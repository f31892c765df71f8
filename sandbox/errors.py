"""What can go wrong in the sandbox, as messages a person can act on.

SandboxError
├── BinariesNotFound   none of the ways to get the control plane's programs worked
├── ProgramFailed      a program ended or did not get ready in time
├── NodeUnavailable    this machine, or this user, cannot have a node
├── PackageMissing     a program of the distribution is missing and cannot be installed
├── ImageUnavailable   the operator's image cannot be built here
├── AlreadyRunning     a detached sandbox of this user runs
└── NotRunning         there is no detached sandbox to end
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a program that failed has said, which is never nothing."""
    return done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The end of it, for a line of ours."""
    return said(done).splitlines()[-1]


class SandboxError(Exception):
    """Anything the sandbox refuses or fails to do."""


class BinariesNotFound(SandboxError):  # noqa: N818
    """No source delivered kube-apiserver, kube-controller-manager, kubectl and etcd."""


class NodeUnavailable(SandboxError):  # noqa: N818
    """This machine cannot have a node, for a reason that is not the sandbox's: no root, no package, no cgroups."""


class PackageMissing(SandboxError):  # noqa: N818
    """A program of the distribution is missing, and apt-get cannot install it."""


class ImageUnavailable(SandboxError):  # noqa: N818
    """The operator's image cannot be built on this machine: no builder, no base image, no right."""


class AlreadyRunning(SandboxError):  # noqa: N818
    """A detached sandbox of this user runs already."""


class NotRunning(SandboxError):  # noqa: N818
    """No detached sandbox of this user runs."""


class ProgramFailed(SandboxError):  # noqa: N818
    """A program ended early or did not become ready: says which, why, its last lines and where its log is."""

    def __init__(self, name: str, why: str, *, tail: str = "", log: Path | None = None) -> None:
        """Build the message from its parts; `log` may be copied out of a folder that is about to go."""
        self.name = name
        self.why = why
        self.tail = tail
        self.log = log
        lines = [f"{name} {why}"]
        if tail:
            lines += [f"last lines of {name}:", *(f"  | {line}" for line in tail.splitlines())]
        if log is not None:
            lines.append(f"whole log: {log}")
        super().__init__("\n".join(lines))
