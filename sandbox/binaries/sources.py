"""The ways to get the programs, in order."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox import places
from sandbox.binaries.model import ETCD, KUBERNETES, Binaries, missing, target
from sandbox.errors import BinariesNotFound


def find() -> Binaries:
    """The first complete set of programs; raises BinariesNotFound."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and not missing(Path(assets)):
        return Binaries(Path(assets))
    cached = places.cache() / "bin" / "-".join((KUBERNETES, ETCD, *target()))
    if not missing(cached):
        return Binaries(cached)
    raise BinariesNotFound(f"no programs in {cached}")
