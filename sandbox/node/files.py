"""What containerd, CNI and the kubelet are told: what differs from a production node, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.node.binaries import NodeBinaries
    from sandbox.node.network import Network

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:1"
BRIDGE = "cni0"
EVICTION_SIGNALS = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")

CONTAINERD = """\
version = 3
root = "{dir}/containerd"
state = "/run/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
  # Not every root may lower the score of a process (CAP_SYS_RESOURCE); runc would end with an error.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{programs}"]
  conf_dir = "{dir}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "{programs}/containerd-shim-runc-v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
"""


@dataclass(frozen=True)
class Files:
    """Where things are inside the node's folder."""

    dir: Path

    @property
    def containerd(self) -> Path:
        """containerd's configuration."""
        return self.dir / "containerd.toml"

    @property
    def kubelet(self) -> Path:
        """The kubelet's configuration."""
        return self.dir / "kubelet.json"

    @property
    def kubelet_root(self) -> Path:
        """Where the kubelet keeps the pods' volumes: pods/UID/volumes/…"""
        return self.dir / "kubelet"

    @property
    def resolv(self) -> Path:
        """The pods' resolv.conf: there is no DNS in this cluster."""
        return self.dir / "resolv.conf"

    def write(self, binaries: NodeBinaries, network: Network, *, runc: Path, pki: Path, sync_frequency: str) -> None:
        """Write them all. `pki` has kubelet.crt, kubelet.key and ca.crt."""
        (self.dir / "cni").mkdir()
        self.kubelet_root.mkdir()
        self.resolv.write_text("# The sandbox's cluster has no DNS: use addresses, or hostAliases.\n")
        self.containerd.write_text(
            CONTAINERD.format(dir=self.dir, socket=SOCKET, pause=PAUSE, programs=binaries.folder, runc=runc)
        )
        (self.dir / "cni" / "10-sandbox.conflist").write_text(json.dumps(_cni(network), indent=2))
        self.kubelet.write_text(json.dumps(self._kubelet(network, pki, sync_frequency), indent=2))

    def _kubelet(self, network: Network, pki: Path, sync_frequency: str) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "address": network.node,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(pki / "kubelet.key"),
            "syncFrequency": sync_frequency,
            "resolvConf": str(self.resolv),
            "podLogsDir": "/var/log/pods",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            # No cgroups for classes of pods and none for the system: fewer controllers of the machine are needed.
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            # There are no Services but one, which needs no rules: see network.py.
            "makeIPTablesUtilChains": False,
            # The disk is a developer's: how full it is is not our business.
            "evictionHard": dict.fromkeys(
                ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"
            ),
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "shutdownGracePeriod": "0s",
        }


def _cni(network: Network) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": network.pods}]], "dataDir": "/run/cni"},
    }
    return {"cniVersion": "1.0.0", "name": "sandbox", "plugins": [bridge]}
