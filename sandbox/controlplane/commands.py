"""The command lines of the three programs: what differs from a production cluster, and why."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.controlplane.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.binaries import Binaries

ISSUER = "https://kubernetes.default.svc.cluster.local"

# What the control plane itself asks is left out: tests count what others do. ResponseStarted is the only line
# that a watch which still runs has; a finished one has two, told apart by their auditID (see audit.py).
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system", "system:nodes"]
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*", "/metrics"]
- level: Metadata
"""


@dataclass(frozen=True)
class Site:
    """Where the API server listens, on any free port unless one is named, and which addresses Services have.

    `nodes` says that kubelets are going to ask it, and it them.
    """

    address: str = LOOPBACK
    port: int = 0
    services: str = "10.96.0.0/16"
    nodes: bool = False

    @property
    def service_address(self) -> str:
        """That of the Service "kubernetes"."""
        return str(ipaddress.ip_network(self.services)[1])


@dataclass(frozen=True)
class Files:
    """Where things are inside the control plane's folder."""

    dir: Path

    @property
    def etcd_socket(self) -> Path:
        """A socket in a folder that only this user can enter: no port to clash, and nobody else reads."""
        return self.dir / "etcd.sock"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return self.dir / "audit.jsonl"

    @property
    def audit_policy(self) -> Path:
        """What is audited."""
        return self.dir / "audit-policy.yaml"

    def pki(self, name: str) -> Path:
        """A certificate or key."""
        return self.dir / "pki" / name


def etcd(binaries: Binaries, files: Files) -> list[str | Path]:
    """One member, on Unix sockets, that never waits for the disk: its data need not survive the machine."""
    client, peer = f"unix://{files.etcd_socket}", f"unix://{files.dir / 'peer.sock'}"
    return [
        binaries.etcd,
        "--name=sandbox",
        f"--data-dir={files.dir / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=sandbox={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(binaries: Binaries, files: Files, site: Site, *, port: int, audit: bool) -> list[str | Path]:
    """RBAC, ServiceAccount tokens and the audit log as in a cluster; on loopback unless there are nodes."""
    arguments: list[str | Path] = [
        binaries.kube_apiserver,
        f"--bind-address={site.address}",
        f"--secure-port={port}",
        "--permit-port-sharing",  # see ports.py
        f"--advertise-address={site.address}",  # else a machine without default route fails
        "--endpoint-reconciler-type=none",  # a loopback address is no valid endpoint
        f"--etcd-servers=unix://{files.etcd_socket}",
        f"--tls-cert-file={files.pki('apiserver.crt')}",
        f"--tls-private-key-file={files.pki('apiserver.key')}",
        f"--client-ca-file={files.pki('ca.crt')}",
        f"--authorization-mode={'Node,RBAC' if site.nodes else 'RBAC'}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={files.pki('service-accounts.pub')}",
        f"--service-account-signing-key-file={files.pki('service-accounts.key')}",
        f"--service-cluster-ip-range={site.services}",
        "--max-requests-inflight=1600",  # benchmarks measure the operator, not our own throttling
        "--max-mutating-requests-inflight=800",
        "--profiling=false",
    ]
    if site.nodes:
        arguments += [
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",  # pod security says where, as in a cluster
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={files.pki('ca.crt')}",
            f"--kubelet-client-certificate={files.pki('admin.crt')}",
            f"--kubelet-client-key={files.pki('admin.key')}",
        ]
    if audit:
        arguments += [
            f"--audit-policy-file={files.audit_policy}",
            f"--audit-log-path={files.audit_log}",
            "--audit-log-mode=blocking",  # the line is there before the answer is: counts are exact
            "--audit-log-maxsize=0",  # never rotated
        ]
    return arguments


def controller_manager(binaries: Binaries, files: Files, kubeconfig: Path) -> list[str | Path]:
    """All controllers but the one that gives nodes addresses; no port of its own."""
    return [
        binaries.kube_controller_manager,
        f"--kubeconfig={kubeconfig}",
        "--controllers=*,-node-ipam-controller",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={files.pki('service-accounts.key')}",
        f"--root-ca-file={files.pki('ca.crt')}",
        "--leader-elect=false",
        "--secure-port=0",
        "--concurrent-gc-syncs=5",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
