"""Kubeconfig files, self-contained so that they may be copied elsewhere."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from sandbox.controlplane.certificates import KeyPair, write_private

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, *, server: str, ca: bytes, user: str, auth: KeyPair | str, namespace: str = "default") -> Path:
    """Write a kubeconfig (JSON is YAML) for `user`, who has a client certificate or a bearer token."""
    if isinstance(auth, KeyPair):
        credentials = {"client-certificate-data": _base64(auth.cert), "client-key-data": _base64(auth.key)}
    else:
        credentials = {"token": auth}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user, "namespace": namespace}}],
        "current-context": "sandbox",
    }
    write_private(path, json.dumps(config, indent=2).encode())
    return path


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
