"""The four programs and their versions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MODULE = REPOSITORY / "sandbox" / "gomodule"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


class Unavailable(Exception):  # noqa: N818
    """One source cannot deliver; the message says why, the next source is tried."""


@dataclass(frozen=True)
class Versions:
    """Without the leading v."""

    kubernetes: str
    etcd: str


def pinned(module: Path = MODULE) -> Versions:
    """The versions in go.mod: what is built and what is downloaded cannot differ."""
    return Versions(required(module, "k8s.io/kubernetes"), required(module, "go.etcd.io/etcd/server/v3"))


def required(module: Path, path: str) -> str:
    """The version of a module that another one's go.mod requires, without the leading v."""
    text = (module / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(path)} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} does not require {path}")
    return found.group(1)


KUBERNETES = pinned().kubernetes


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


def missing(folder: Path, programs: Iterable[str] = PROGRAMS) -> list[str]:
    """The programs that a folder does not hold."""
    return [name for name in programs if not (folder / name).is_file() or not os.access(folder / name, os.X_OK)]
