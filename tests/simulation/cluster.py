"""A Kubernetes API server as a model: Secrets and SquidexClients, versions that grow, who manages what, and watches.

Stored bodies are never changed in place: each write stores a new one, so that what was read or reported stays as it was.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from squidex_operator.api import names
from squidex_operator.policy import render
from tests.simulation import virtual

if TYPE_CHECKING:
    import random

Body = dict[str, Any]

CLIENTS = "clients"
SECRETS = "secrets"

Listener = Callable[[str, str, Body], None]
"""Kind of object, kind of event, body."""


class Key(NamedTuple):
    """Namespace and name."""

    namespace: str
    name: str


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who manages a field, and how (https://kubernetes.io/docs/reference/using-api/server-side-apply/)."""

    manager: str
    applies: bool


class Cluster:
    """What is stored."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects: dict[str, dict[Key, Body]] = {CLIENTS: {}, SECRETS: {}}
        self.listeners: list[Listener] = []
        """Watches: of Secrets, those with a role."""
        self.observers: list[Callable[[str, Key, Body | None], None]] = []
        """Told of everything, at once: the judge."""
        self.terminating: set[str] = set()
        self.owners: dict[str, dict[str, Owner]] = {}
        """For each Secret, by uid: who manages each of its fields."""
        self._owned: collections.defaultdict[str, set[Key]] = collections.defaultdict(set)
        self._alive: set[str] = set()
        """uids of SquidexClients."""
        self._version = 1000

    def get(self, what: str, key: Key) -> Body | None:
        """An object as it is now."""
        return self.objects[what].get(key)

    def create(self, what: str, body: Mapping[str, Any], manager: str = "someone") -> Body:
        """Store a new object."""
        metadata = {
            **body["metadata"],
            "uid": str(uuid.UUID(int=self.rng.getrandbits(128))),
            "generation": 1,
            "creationTimestamp": render.format_time(virtual.true_time()),
        }
        stored = self._store(what, {**body, "metadata": metadata}, "ADDED")
        self.owners[metadata["uid"]] = dict.fromkeys(fields(stored), Owner(manager, applies=False))
        return stored

    def update(self, what: str, key: Key, *, manager: str = "someone", **changes: Any) -> Body | None:
        """Replace top-level members of an object, as `kubectl edit` does."""
        old = self.get(what, key)
        if old is None:
            return None
        new = {**old, **changes}
        if "spec" in changes and changes["spec"] != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        before, after = fields(old), fields(new)
        for field in {**before, **after}:
            if before.get(field) != after.get(field):
                self.owners[old["metadata"]["uid"]][field] = Owner(manager, applies=False)
        return self.replace(what, key, new)

    def replace(self, what: str, key: Key, new: Body) -> Body:
        """Store a new version; the same one where nothing is different, which is no write."""
        old = self.objects[what][key]
        if {**new, "metadata": {**new["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}} == old:
            return old
        if what == SECRETS and has_role(old) and not has_role(new):
            stored = self._store(what, new, "")
            self._notify(what, "DELETED", stored)
            return stored
        return self._store(what, new, "ADDED" if what == SECRETS and not has_role(old) else "MODIFIED")

    def delete(self, what: str, key: Key) -> None:
        """Remove an object, and later what it owned."""
        old = self.objects[what].pop(key, None)
        if old is None:
            return
        self._version += 1
        self._tell(what, key, None)
        if what == CLIENTS or has_role(old):
            self._notify(what, "DELETED", _versioned(old, self._version))
        if what == CLIENTS:
            self._alive.discard(old["metadata"]["uid"])
            self._collect_later(old["metadata"]["uid"])

    def _collect_later(self, uid: str) -> None:
        virtual.call_later(self.rng.uniform(0.05, 10), lambda: self._collect(uid))

    def _collect(self, uid: str) -> None:
        """Garbage collection: what names owners, and none that lives, goes."""
        for key in sorted(self._owned.get(uid, ())):
            body = self.objects[SECRETS].get(key)
            owners = {owner["uid"] for owner in (body or {}).get("metadata", {}).get("ownerReferences") or []}
            if owners and not owners & self._alive:
                self.delete(SECRETS, key)

    def _store(self, what: str, body: Body, event: str) -> Body:
        self._version += 1
        stored = _versioned(body, self._version)
        metadata = stored["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        self.objects[what][key] = stored
        if what == CLIENTS:
            self._alive.add(metadata["uid"])
        for owner in metadata.get("ownerReferences") or []:
            self._owned[owner["uid"]].add(key)
            if owner["uid"] not in self._alive:
                self._collect_later(owner["uid"])  # it was dead already
        self._tell(what, key, stored)
        if event and (what == CLIENTS or has_role(stored)):
            self._notify(what, event, stored)
        return stored

    def _tell(self, what: str, key: Key, body: Body | None) -> None:
        for observer in self.observers:
            observer(what, key, body)

    def _notify(self, what: str, event: str, body: Body) -> None:
        for listener in list(self.listeners):
            listener(what, event, body)


def has_role(body: Mapping[str, Any]) -> bool:
    """Whether the operator's watch of Secrets selects this one."""
    return names.LABEL_ROLE in (body["metadata"].get("labels") or {})


def fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Secret that managers can hold, flat."""
    metadata = body["metadata"]
    parts = {"data": body, "labels": metadata, "annotations": metadata}
    flat = {f"{part}.{key}": value for part, where in parts.items() for key, value in (where.get(part) or {}).items()}
    flat |= {f"owner.{owner['uid']}": owner for owner in metadata.get("ownerReferences") or []}
    return flat


def _versioned(body: Body, version: int) -> Body:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
