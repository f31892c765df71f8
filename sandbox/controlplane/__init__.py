"""etcd, kube-apiserver and kube-controller-manager on this machine: `ControlPlane`."""

from sandbox.controlplane.audit import AuditEvent
from sandbox.controlplane.plane import ControlPlane
from sandbox.controlplane.prometheus import Sample

__all__ = ["AuditEvent", "ControlPlane", "Sample"]
