"""The four programs and their versions."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KUBERNETES = "1.37.2"
ETCD = "3.7.0"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


@dataclass(frozen=True)
class Binaries:
    """A complete set, all in one folder."""

    folder: Path

    @property
    def etcd(self) -> Path:
        """The store."""
        return self.folder / "etcd"

    @property
    def kube_apiserver(self) -> Path:
        """The API."""
        return self.folder / "kube-apiserver"

    @property
    def kube_controller_manager(self) -> Path:
        """Garbage collection, namespace deletion, ServiceAccounts."""
        return self.folder / "kube-controller-manager"

    @property
    def kubectl(self) -> Path:
        """The command line client."""
        return self.folder / "kubectl"


def missing(folder: Path) -> list[str]:
    """The programs that a folder does not hold."""
    return [
        name for name in PROGRAMS if not os.access(folder / name, os.X_OK) or not (folder / name).is_file()
    ]


def target() -> tuple[str, str]:
    """This machine as Go and the release pages call it: ("linux", "arm64")."""
    machine = platform.machine().lower()
    architecture = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        machine, machine
    )
    return platform.system().lower(), architecture
