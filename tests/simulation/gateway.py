"""The operator's way to the model of the API server: the methods of `kube.gateway.Gateway`, with its errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from squidex_operator.api import names
from squidex_operator.kube import errors
from squidex_operator.kube import gateway as gateway_module
from tests.simulation import cluster as cluster_module
from tests.simulation import virtual
from tests.simulation.cluster import CLIENTS, SECRETS, Body, Key

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping


class Gateway(gateway_module.Gateway):
    """Requests to the model; slow, away, or with answers that get lost, as the model says."""

    def __init__(self, cluster: cluster_module.Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self.down = False
        self.latency = (0.002, 0.03)
        self.answers_lost = 0.0
        """How often what was asked is done, and the answer gets lost."""
        self.writes: list[tuple[float, str, Key]] = []
        """Time, what, name: every write that changed something."""
        self.reads = 0
        self.failing: dict[str, errors.KubeError] = {}
        """Method -> what it raises."""

    async def get_secret(self, namespace: str, name: str) -> Body:
        await self._travel("get_secret")
        self.reads += 1
        return self._found(SECRETS, Key(namespace, name))

    async def get_config_map(self, namespace: str, name: str) -> Body:
        await self._travel("get_config_map")
        raise errors.NotFoundError("no ConfigMaps here")

    async def get_namespace(self, name: str) -> Body:
        await self._travel("get_namespace")
        gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if name in self._cluster.terminating else {}
        return {"kind": "Namespace", "metadata": {"name": name, **gone}}

    async def create_secret(self, namespace: str, body: Body) -> Body:
        await self._travel("create_secret")
        key = Key(namespace, body["metadata"]["name"])
        if namespace in self._cluster.terminating:
            raise errors.TerminatingError("the namespace is being deleted")
        if self._cluster.get(SECRETS, key) is not None:
            raise errors.AlreadyExistsError("it exists already")
        stored = self._cluster.create(SECRETS, body, names.FIELD_MANAGER)
        self.writes.append((virtual.now(), "secret", key))
        return await self._answer(stored)

    async def apply_secret(self, namespace: str, name: str, body: Body, *, force: bool = False) -> Body:
        await self._travel("apply_secret")
        key = Key(namespace, name)
        old = self._cluster.get(SECRETS, key)
        wanted = body["metadata"]
        seen = (wanted.get("uid"), wanted.get("resourceVersion"))
        if old is None or seen != (old["metadata"]["uid"], old["metadata"]["resourceVersion"]):
            raise errors.StaleError("it changed meanwhile")
        owners = self._cluster.owners[wanted["uid"]]
        mine = cluster_module.Owner(names.FIELD_MANAGER, applies=True)
        before, applied = cluster_module.fields(old), cluster_module.fields(body)
        held = {owners.get(f, mine) for f, value in applied.items() if f in before and before[f] != value} - {mine}
        if held and not force:
            managers = sorted({owner.manager for owner in held})
            by_hand = not any(owner.applies for owner in held)
            raise errors.ManagerConflictError("conflict", managers=managers, by_hand=by_hand)
        for field in applied:
            owners[field] = mine
        stored = self._cluster.replace(SECRETS, key, _merged(old, body))
        if stored is not old:
            self.writes.append((virtual.now(), "secret", key))
        return await self._answer(stored)

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        await self._travel("delete_secret")
        key = Key(namespace, name)
        metadata = self._found(SECRETS, key)["metadata"]
        if (metadata["uid"], metadata["resourceVersion"]) != (uid, resource_version):
            raise errors.StaleError("it changed meanwhile")
        self._cluster.delete(SECRETS, key)
        self.writes.append((virtual.now(), "delete", key))

    async def patch_status(self, namespace: str, name: str, uid: str, patch: Mapping[str, Any]) -> Body:
        await self._travel("patch_status")
        key = Key(namespace, name)
        old = self._found(CLIENTS, key)
        if old["metadata"]["uid"] != uid:
            raise errors.StaleError("it is another one")
        status = {**(old.get("status") or {}), **patch}
        status = {name: value for name, value in status.items() if value is not None}
        stored = self._cluster.replace(CLIENTS, key, {**old, "status": status})
        if stored is not old:
            self.writes.append((virtual.now(), "status", key))
        return await self._answer(stored)

    async def create_event(self, namespace: str, body: Body) -> None:
        await self._travel("create_event")
        self.writes.append((virtual.now(), "event", Key(namespace, body["involvedObject"]["name"])))

    async def list_clients(self, namespace: str | None) -> AsyncIterator[Body]:
        async for body in self._list_all(CLIENTS):
            yield body

    async def list_secrets(self, namespace: str | None) -> AsyncIterator[Body]:
        async for body in self._list_all(SECRETS):
            if cluster_module.has_role(body):
                yield body

    async def is_served(self) -> bool:
        await self._travel("is_served")
        return True

    async def _list_all(self, what: str) -> AsyncIterator[Body]:
        await self._travel("list")
        # All pages are of the moment of the first.
        for count, body in enumerate(list(self._cluster.objects[what].values())):
            if count and count % gateway_module.PAGE == 0:
                await self._travel("list")
            yield body

    def _found(self, what: str, key: Key) -> Body:
        found = self._cluster.get(what, key)
        if found is None:
            raise errors.NotFoundError("not found")
        return found

    async def _travel(self, method: str) -> None:
        await asyncio.sleep(self._rng.uniform(*self.latency))
        if self.down:
            raise errors.UnavailableError("The Kubernetes API server cannot be reached.")
        if method in self.failing:
            raise self.failing[method]

    async def _answer(self, body: Body) -> Body:
        await asyncio.sleep(self._rng.uniform(*self.latency))
        if self.answers_lost and self._rng.random() < self.answers_lost:
            raise errors.UnavailableError("The Kubernetes API server cannot be reached (PATCH: the answer is lost).")
        return body


def _merged(old: Body, applied: Body) -> Body:
    metadata, wanted = old["metadata"], applied["metadata"]
    owners = {owner["uid"]: owner for owner in [*(metadata.get("ownerReferences") or []), *wanted["ownerReferences"]]}
    maps = {part: {**(metadata.get(part) or {}), **wanted[part]} for part in ("labels", "annotations")}
    return {
        **old,
        "data": {**(old.get("data") or {}), **applied["data"]},
        "metadata": {**metadata, **maps, "ownerReferences": list(owners.values())},
    }
