"""What may differ between machines, and between a test and the real thing."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import places
from sandbox.binaries.model import MODULE, pinned

KUBERNETES_RELEASES = "https://dl.k8s.io"
ETCD_RELEASES = "https://github.com/etcd-io/etcd/releases/download"


def _assets() -> Path | None:
    value = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(value) if value else None


def _system() -> str:
    return platform.system().lower()


def _architecture() -> str:
    """As Go and the release pages call it."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _kubernetes_releases() -> str:
    return os.environ.get("SANDBOX_KUBERNETES_RELEASES", KUBERNETES_RELEASES).rstrip("/")


def _etcd_releases() -> str:
    return os.environ.get("SANDBOX_ETCD_RELEASES", ETCD_RELEASES).rstrip("/")


@dataclass(frozen=True)
class Settings:
    """The defaults read the environment.

    `patience` is how many seconds a host has for its first answer, `stall` for each further piece of a
    download.
    """

    assets: Path | None = field(default_factory=_assets)
    cache: Path = field(default_factory=places.cache)
    kubernetes_releases: str = field(default_factory=_kubernetes_releases)
    etcd_releases: str = field(default_factory=_etcd_releases)
    module: Path = MODULE
    system: str = field(default_factory=_system)
    architecture: str = field(default_factory=_architecture)
    pip: tuple[str, ...] = (sys.executable, "-m", "pip")
    patience: float = 5
    stall: float = 20
    needed_space: int = 5 * 1024**3

    @property
    def programs(self) -> Path:
        """The folder of the cache for these versions and this kind of machine."""
        versions = pinned(self.module)
        name = f"{versions.kubernetes}-{versions.etcd}-{self.system}-{self.architecture}"
        return self.cache / "bin" / name

    @property
    def work(self) -> Path:
        """What is only needed until the programs are there: build cache, toolchain, partial downloads."""
        return self.cache / "work"
