"""Watches every target Secret through the consumers' eyes: from when to when did it not hold a token that works?"""

from __future__ import annotations

import base64
import collections
import dataclasses
from typing import TYPE_CHECKING, Any

from squidex_operator.api import names
from tests.simulation import cluster as cluster_module
from tests.simulation import squidex, virtual
from tests.simulation.cluster import SECRETS, Body, Key

if TYPE_CHECKING:
    from collections.abc import Mapping

FOREVER = float("inf")

GOOD = "good"
MISSING = "missing"
WRONG = "wrong"
EXPIRED = "expired"
KEY = "key replaced"
ISSUER = "issuer changed"


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What a consumer has of a target."""

    kind: str
    since: float
    dies: float = FOREVER
    """When a good token expires."""
    lifetime: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a target held no token that works."""

    client: Key
    server: str
    kind: str
    begin: float
    end: float
    lifetime: float = 0.0
    """Of the token that expired."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """A time in which the operator cannot do its work, or must wait for what was in its way before."""

    begin: float
    end: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Expected:
    uid: str
    server: str
    target: Key
    client_id: str


class Judge:
    """Told by the cluster and the servers of every change, at once."""

    def __init__(self, cluster: cluster_module.Cluster, servers: Mapping[str, squidex.Server]) -> None:
        self._cluster = cluster
        self._servers = servers
        self._expected: dict[Key, _Expected] = {}
        self._by_target: collections.defaultdict[Key, set[Key]] = collections.defaultdict(set)
        self._states: dict[Key, State] = {}
        self.gaps: list[Gap] = []
        self.client_ids: dict[Key, str] = {}
        """Whose tokens a SquidexClient asks for."""
        self.troubles: collections.defaultdict[object, list[Trouble]] = collections.defaultdict(list)
        """By server, by SquidexClient, or under None for all."""
        cluster.observers.append(self._stored)
        for server in servers.values():
            server.changed = self._server_changed

    def trouble(self, where: object, begin: float, *, residue: float) -> None:
        """What began then ends now; what had to wait for it comes back within the residue, in seconds."""
        self.troubles[where].append(Trouble(begin, virtual.now() + residue))

    def finish(self) -> None:
        """Take stock at the end."""
        for key in list(self._states):
            self._assess(key, last=True)

    def state(self, key: Key) -> str:
        """What a consumer has now."""
        state = self._states[key]
        return EXPIRED if virtual.now() >= state.dies else state.kind

    def clients(self) -> list[Key]:
        """All SquidexClients that there are."""
        return list(self._expected)

    def server_of(self, key: Key) -> str:
        """The base URL of a SquidexClient's server."""
        return self._expected[key].server

    def excess(self, gap: Gap, allowed: float, *, since: float | None = None) -> float:
        """Seconds of a gap beyond what is allowed, where nothing outside kept the operator from its work."""
        begin = gap.begin if since is None else since
        where = (None, gap.server, gap.client)
        troubles = sorted(
            (t for w in where for t in self.troubles.get(w, ()) if t.end > begin and t.begin < gap.end),
            key=lambda t: t.begin,
        )
        beyond, at = 0.0, begin
        for trouble in troubles:
            beyond += max(0.0, trouble.begin - at - allowed)
            at = max(at, trouble.end)
        return beyond + max(0.0, gap.end - at - allowed)

    def _stored(self, what: str, key: Key, body: Body | None) -> None:
        if what == SECRETS:
            for client in sorted(self._by_target.get(key, ())):
                self._assess(client)
            return
        old = self._expected.get(key)
        if body is None:
            if old is not None:
                self._close(key)
                del self._expected[key], self._states[key]
                self._by_target[old.target].discard(key)
            return
        spec = body["spec"]
        target = Key(key.namespace, spec.get("target", {}).get("name") or key.name)
        new = _Expected(body["metadata"]["uid"], spec["url"].rstrip("/"), target, self.client_ids[key])
        if new == old:
            return
        if old is not None:
            self._by_target[old.target].discard(key)
        self._expected[key] = new
        self._by_target[target].add(key)
        self._assess(key)

    def _server_changed(self, server: squidex.Server) -> None:
        for key, expected in self._expected.items():
            if expected.server == server.base_url:
                self._assess(key)

    def _assess(self, key: Key, *, last: bool = False) -> None:
        new, old = self._look(self._expected[key]), self._states.get(key)
        if old is not None and not last and new.kind == old.kind and new.kind != GOOD:
            return
        self._close(key)
        self._states[key] = new

    def _close(self, key: Key) -> None:
        old, now = self._states.get(key), virtual.now()
        if old is None:
            return
        server = self._expected[key].server
        if old.kind != GOOD and now > old.since:
            self.gaps.append(Gap(key, server, old.kind, old.since, now))
        elif old.kind == GOOD and now > old.dies:
            self.gaps.append(Gap(key, server, EXPIRED, old.dies, now, old.lifetime))

    def _look(self, expected: _Expected) -> State:
        now = virtual.now()
        body = self._cluster.get(SECRETS, expected.target)
        annotations: Mapping[str, Any] = (body or {}).get("metadata", {}).get("annotations") or {}
        if body is None or annotations.get(names.ANNOTATION_CLIENT_UID) != expected.uid:
            return State(MISSING, now)
        server = self._servers[expected.server]
        token = base64.b64decode((body.get("data") or {}).get(names.KEY_TOKEN, "")).decode()
        facts = server.tokens.get(token)
        if facts is None or facts.client_id != expected.client_id:
            return State(WRONG, now)
        if not server.accepts(facts):
            return State(ISSUER if facts.issuer != server.issuer else KEY, now)
        dies = server.dies_at(facts)
        if now >= dies:
            return State(EXPIRED, now)
        return State(GOOD, now, dies, facts.lifetime)
