"""The command lines of the three programs: what differs from a production cluster, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.controlplane.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.binaries import Binaries

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
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
  users: ["system:apiserver", "system:kube-controller-manager"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*", "/metrics"]
- level: Metadata
"""


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


def apiserver(binaries: Binaries, files: Files, *, port: int, audit: bool) -> list[str | Path]:
    """RBAC, ServiceAccount tokens and the audit log as in a cluster; on loopback, without nodes."""
    arguments: list[str | Path] = [
        binaries.kube_apiserver,
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        "--permit-port-sharing",  # see ports.py
        f"--advertise-address={LOOPBACK}",  # else a machine without default route fails
        "--endpoint-reconciler-type=none",  # a loopback address is no valid endpoint
        f"--etcd-servers=unix://{files.etcd_socket}",
        f"--tls-cert-file={files.pki('apiserver.crt')}",
        f"--tls-private-key-file={files.pki('apiserver.key')}",
        f"--client-ca-file={files.pki('ca.crt')}",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={files.pki('service-accounts.pub')}",
        f"--service-account-signing-key-file={files.pki('service-accounts.key')}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--max-requests-inflight=1600",  # benchmarks measure the operator, not our own throttling
        "--max-mutating-requests-inflight=800",
        "--profiling=false",
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
