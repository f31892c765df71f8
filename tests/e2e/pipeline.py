"""What Argo CD and Flux do with a folder of manifests: compare a dry run with what is there, apply where they differ, prune."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e import api

if TYPE_CHECKING:
    import httpx

Object = dict[str, Any]

_NOT_COMPARED = ("managedFields", "resourceVersion")
"""Times and versions. Nor is the status, as it is a subresource; all else is, the generation too."""


@dataclass
class Pipeline:
    """One application of a tool. It marks what it applies, and takes what carries its mark for its own."""

    connection: httpx.Client
    manager: str
    labels: dict[str, str]
    annotations: dict[str, str]
    desired: list[Object] = field(default_factory=list)
    inventory: dict[str, Object] = field(default_factory=dict)
    """What the last sync applied, by path."""

    def want(self, objects: list[Object]) -> None:
        """Take these for what is in Git."""
        self.desired = []
        for original in objects:
            body = copy.deepcopy(original)
            body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), **self.labels}
            body["metadata"]["annotations"] = {**body["metadata"].get("annotations", {}), **self.annotations}
            self.desired.append(body)

    def diff(self) -> list[str]:
        """What a sync would change: paths of fields, or of objects that are missing."""
        found: list[str] = []
        for body in self.desired:
            live = self.connection.get(api.path(body))
            if live.status_code == 404:
                found.append(f"{api.path(body)} is missing")
                continue
            would_be = self._apply(body, dry_run=True)
            name = f"{body['kind']}/{body['metadata']['name']}"
            found += [f"{name}{path}" for path in _differences(_compared(live.json()), _compared(would_be))]
        return found

    def sync(self) -> None:
        """Apply what is desired, and delete what was applied before and is not desired any more, or carries the mark."""
        applied = {api.path(body): self._apply(body) for body in self.desired}
        for path in {*self.inventory, *self._marked()} - applied.keys():
            self.connection.delete(path, params={"propagationPolicy": "Background"}).raise_for_status()
        self.inventory = applied

    def _marked(self) -> set[str]:
        found: set[str] = set()
        for body in self.desired:
            listed = self.connection.get(api.collection(body)).raise_for_status().json()
            for item in listed["items"]:
                metadata = item["metadata"]
                labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
                if self.labels.items() <= labels.items() and self.annotations.items() <= annotations.items():
                    found.add(f"{api.collection(body)}/{metadata['name']}")
        return found

    def _apply(self, body: Object, *, dry_run: bool = False) -> Object:
        answer = self.connection.patch(
            api.path(body),
            content=json.dumps(body),
            headers={"Content-Type": "application/apply-patch+yaml"},
            params={"fieldManager": self.manager, "force": "true", **({"dryRun": "All"} if dry_run else {})},
        )
        found: Object = answer.raise_for_status().json()
        return found


def argo_cd(connection: httpx.Client) -> Pipeline:
    """Argo CD tracks by a label, by an annotation, or by both."""
    tracking = {"argocd.argoproj.io/tracking-id": "shop:squidex-operator.io/SquidexClient:shop/shop-token"}
    return Pipeline(connection, "argocd-controller", {"app.kubernetes.io/instance": "shop"}, tracking)


def flux(connection: httpx.Client) -> Pipeline:
    """Flux labels what it applies, and remembers it in an inventory."""
    labels = {"kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    return Pipeline(connection, "kustomize-controller", labels, {})


def _compared(body: Object) -> Object:
    metadata = {key: value for key, value in body["metadata"].items() if key not in _NOT_COMPARED}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in _differences(one.get(key), other.get(key), f"{path}.{key}")
        ]
    return [] if one == other else [path]
