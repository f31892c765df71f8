"""The API server without kubectl: for what is asked a hundred times, or while something else goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from sandbox.environment import Sandbox

Object = dict[str, Any]

_PLURALS = {"SquidexClient": "squidexclients", "Secret": "secrets", "ConfigMap": "configmaps", "Namespace": "namespaces",
            "Deployment": "deployments"}  # fmt: skip


def connect(sandbox: Sandbox) -> httpx.Client:
    """A client with the administrator's rights."""
    plane = sandbox.control_plane
    return httpx.Client(base_url=plane.url, verify=plane.admin_context, trust_env=False, timeout=20)


def path(body: Object) -> str:
    """Where an object is."""
    return f"{collection(body)}/{body['metadata']['name']}"


def collection(body: Object) -> str:
    """Where its like are."""
    version = body["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = body["metadata"].get("namespace")
    return (
        f"{root}/namespaces/{namespace}/{_PLURALS[body['kind']]}" if namespace else f"{root}/{_PLURALS[body['kind']]}"
    )
