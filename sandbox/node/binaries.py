"""The programs of a node: `find()` gives them, and builds what is missing.

They come from the same pinned Kubernetes as the control plane's, and from the modules of containerd and CNI pinned in
gomodule/. runc is the distribution's: it is the one that needs a C compiler and libseccomp.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.binaries import gobuild, sources
from sandbox.binaries.gobuild import Target
from sandbox.binaries.lock import exclusive
from sandbox.binaries.model import Unavailable, missing, pinned, required
from sandbox.binaries.settings import Settings
from sandbox.errors import BinariesNotFound
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

MODULE = REPOSITORY / "sandbox" / "node" / "gomodule"
CONTAINERD = "github.com/containerd/containerd/v2"
CNI = "github.com/containernetworking/plugins"
# Snapshotters that are not used here, whose C libraries or kernel modules a machine need not have.
TAGS = "no_btrfs,no_zfs,no_devmapper"
PROGRAMS = (
    "kubelet", "kube-scheduler", "containerd", "containerd-shim-runc-v2", "ctr", "bridge", "host-local", "loopback", "pause",
)  # fmt: skip


@dataclass(frozen=True)
class NodeBinaries:
    """A complete set, all in one folder."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        """The path of one of PROGRAMS."""
        if name not in PROGRAMS:
            raise KeyError(name)
        return self.folder / name


def programs_folder(settings: Settings) -> Path:
    """The folder of the cache for these versions and this kind of machine."""
    versions = (pinned(settings.module).kubernetes, required(MODULE, CONTAINERD), required(MODULE, CNI))
    return settings.cache / "bin" / "-".join(["node", *versions, settings.system, settings.architecture])


def find(settings: Settings | None = None) -> NodeBinaries:
    """The programs from the cache, or built, which may take minutes; raises BinariesNotFound."""
    settings = settings or Settings()
    folder = programs_folder(settings)
    if missing(folder, PROGRAMS):
        # The kubelet and the API server share most of their packages: together they compile half as long as one by one.
        sources.find(settings, keep_work=True)
        with exclusive(settings.cache / "lock"):
            _build(settings, folder)
    return NodeBinaries(folder)


def _build(settings: Settings, folder: Path) -> None:
    names = missing(folder, PROGRAMS)  # we may have waited for another process that built them
    all_targets = targets(settings)
    try:
        if names:
            chosen = {name: all_targets[name] for name in names}
            gobuild.build_targets(settings, chosen, folder, usually="5 minutes on 2 cores")
    except Unavailable as error:
        raise BinariesNotFound(
            f"The node needs {', '.join(names)}, and they could not be built: {error}\n"
            f"-> install a Go that is new enough, or let pip and Go download what they need, or copy {folder} "
            "from a machine of the same kind where it works"
        ) from error
    shutil.rmtree(settings.work, ignore_errors=True)


def targets(settings: Settings) -> dict[str, Target]:
    """What each program is built of."""
    kubernetes = gobuild.kubernetes_variables(settings)
    containerd = {f"{CONTAINERD}/version.Version": f"v{required(MODULE, CONTAINERD)}"}
    return {
        **{name: Target(f"k8s.io/kubernetes/cmd/{name}", settings.module, kubernetes) for name in PROGRAMS[:2]},
        **{name: Target(f"{CONTAINERD}/cmd/{name}", MODULE, containerd, TAGS) for name in PROGRAMS[2:5]},
        "bridge": Target(f"{CNI}/plugins/main/bridge", MODULE, {}),
        "host-local": Target(f"{CNI}/plugins/ipam/host-local", MODULE, {}),
        "loopback": Target(f"{CNI}/plugins/main/loopback", MODULE, {}),
        "pause": Target("./pause", MODULE, {}),
    }
