"""The engine with everything around it replaced: a clock, an API server that only keeps objects, and a Squidex that only grants.

For what the engine does when something happens between two steps. What an API server or a Squidex really does is tested
against real ones, in tests/e2e and tests/unit/squidex.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import dataclasses
import datetime as dt
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sandbox.controlplane import certificates
from squidex_operator.engine import hosts, inventory, queue, reconcile, servers, tools, trust, watch
from squidex_operator.kube import errors as kube_errors
from squidex_operator.observe import metrics
from squidex_operator.squidex import answers, keys, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

START = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
MONTH = 30 * 24 * 3600
URL = "https://squidex.test"
NAMESPACE = "shop"
CA = certificates.Authority("a CA").cert.decode()
Body = dict[str, Any]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> dt.datetime:
        return self.at

    def advance(self, **units: float) -> None:
        self.at += dt.timedelta(**units)


class Hooks:
    """What a test wants to happen at the next call of a method: an error, or something done before or after it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.before: defaultdict[str, list[Callable[[], object] | Exception]] = defaultdict(list)
        self.after: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)

    async def enter(self, name: str, what: str = "") -> None:
        self.calls.append(f"{name} {what}".strip())
        await asyncio.sleep(0)
        if self.before[name]:
            step = self.before[name].pop(0)
            if isinstance(step, Exception):
                raise step
            step()

    async def leave(self, name: str) -> None:
        if self.after[name]:
            self.after[name].pop(0)()
        await asyncio.sleep(0)

    def count(self, name: str) -> int:
        return sum(1 for call in self.calls if call.split()[0] == name)


class Cluster(Hooks):
    """Stands in for the gateway. Objects have uids and versions; an apply is a merge."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[tuple[str, str], Body] = {}
        self.clients: dict[tuple[str, str], Body] = {}
        self.config_maps: dict[tuple[str, str], Body] = {}
        self.events: list[Body] = []
        self.terminating: set[str] = set()
        self.version = 100

    def stamp(self, body: Body, *, new: bool = False) -> Body:
        self.version += 1
        metadata = body.setdefault("metadata", {})
        metadata["resourceVersion"] = str(self.version)
        if new:
            metadata["uid"] = f"uid-{self.version}"
            metadata.setdefault("creationTimestamp", "2026-05-01T00:00:00Z")
        return copy.deepcopy(body)

    async def get_secret(self, namespace: str, name: str) -> Body:
        await self.enter("get_secret", name)
        found = copy.deepcopy(self.secrets.get((namespace, name)))
        await self.leave("get_secret")
        if found is None:
            raise kube_errors.NotFoundError(f"secret {name}: not found.")
        return found

    async def get_config_map(self, namespace: str, name: str) -> Body:
        await self.enter("get_config_map", name)
        try:
            return copy.deepcopy(self.config_maps[namespace, name])
        except KeyError:
            raise kube_errors.NotFoundError(f"config map {name}: not found.") from None

    async def get_namespace(self, name: str) -> Body:
        await self.enter("get_namespace", name)
        deleted = {"deletionTimestamp": "2026-05-01T00:00:00Z"} if name in self.terminating else {}
        return {"metadata": {"name": name, **deleted}}

    async def create_secret(self, namespace: str, body: Body) -> Body:
        name = body["metadata"]["name"]
        await self.enter("create_secret", name)
        if (namespace, name) in self.secrets:
            raise kube_errors.AlreadyExistsError(f"secret {name}: it exists already.")
        self.secrets[namespace, name] = copy.deepcopy(body)
        written = self.stamp(self.secrets[namespace, name], new=True)
        await self.leave("create_secret")
        return written

    async def apply_secret(self, namespace: str, name: str, body: Body, *, force: bool = False) -> Body:
        await self.enter("apply_secret", name)
        found, wanted = self.secrets.get((namespace, name)), body["metadata"]
        if found is None or any(found["metadata"][key] != wanted[key] for key in ("uid", "resourceVersion")):
            raise kube_errors.StaleError(f"secret {name}: it changed meanwhile.")
        for part in ("labels", "annotations"):
            found["metadata"].setdefault(part, {}).update(wanted[part])
        found["metadata"]["ownerReferences"] = copy.deepcopy(wanted["ownerReferences"])
        found["data"].update(body["data"])
        written = self.stamp(found)
        await self.leave("apply_secret")
        return written

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        await self.enter("delete_secret", name)
        found = self.secrets.get((namespace, name))
        if found is None:
            raise kube_errors.NotFoundError(f"secret {name}: not found.")
        if (found["metadata"]["uid"], found["metadata"]["resourceVersion"]) != (uid, resource_version):
            raise kube_errors.StaleError(f"secret {name}: it changed meanwhile.")
        del self.secrets[namespace, name]

    async def patch_status(self, namespace: str, name: str, uid: str, patch: Mapping[str, Any]) -> Body:
        await self.enter("patch_status", name)
        found = self.clients.get((namespace, name))
        if found is None:
            raise kube_errors.NotFoundError(f"{name}: not found.")
        if found["metadata"]["uid"] != uid:
            raise kube_errors.StaleError(f"{name}: it changed meanwhile.")
        status = found.setdefault("status", {})
        status.update(copy.deepcopy(dict(patch)))
        found["status"] = {key: value for key, value in status.items() if value is not None}
        written = self.stamp(found)
        await self.leave("patch_status")
        return written

    async def create_event(self, namespace: str, body: Body) -> None:
        await self.enter("create_event", body["reason"])
        self.events.append(body)

    async def list_clients(self, namespace: str | None) -> AsyncIterator[Body]:
        await self.enter("list_clients")
        found = [copy.deepcopy(body) for (where, _), body in self.clients.items() if namespace in (None, where)]
        await self.leave("list_clients")
        for body in found:
            yield body

    async def list_secrets(self, namespace: str | None) -> AsyncIterator[Body]:
        await self.enter("list_secrets")
        role = "squidex-operator.io/role"
        found = [
            copy.deepcopy(body)
            for (where, _), body in self.secrets.items()
            if namespace in (None, where) and role in (body["metadata"].get("labels") or {})
        ]
        await self.leave("list_secrets")
        for body in found:
            yield body


class Squidex(Hooks):
    """Stands in for the HTTP client: grants tokens, and answers probes and requests for keys."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.key = "key-1"
        self.published: list[str] | None = None
        self.refused: set[str] = set()
        self.probe_status = 200
        self.lifetime = MONTH
        self.granted: list[str] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def send(
        self,
        method: str,
        url: str,
        *,
        ca: str = "",
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> answers.Answer:
        self.asked.append((url, {**(form or {}), **(headers or {})}))
        if url.endswith(tokens.TOKEN_PATH):
            await self.enter("token", (form or {})["client_id"])
            token = self.token((form or {})["client_id"])
            self.granted.append(token)
            await self.leave("token")
            return self.answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})
        if url.endswith(keys.KEYS_PATH):
            await self.enter("keys")
            ids = self.published if self.published is not None else [self.key]
            return self.answer(200, {"keys": [{"kid": kid, "use": "sig"} for kid in ids]})
        await self.enter("probe")
        token = (headers or {})["Authorization"].removeprefix("Bearer ")
        if token in self.refused:
            return self.answer(401, {}, **{"www-authenticate": 'Bearer error="invalid_token"'})
        await self.leave("probe")
        return self.answer(self.probe_status, {})

    def token(self, client_id: str) -> str:
        now = int(self.clock.now().timestamp())
        header = {"alg": "RS256", "kid": self.key}
        payload = {"client_id": client_id, "exp": now + self.lifetime, "jti": len(self.granted)}
        return ".".join(encode(json.dumps(part)).rstrip("=") for part in (header, payload)) + ".c2ln"

    def answer(self, status: int, body: object, **headers: str) -> answers.Answer:
        return answers.Answer(URL, status, {"content-type": "application/json", **headers}, json.dumps(body).encode())


@dataclasses.dataclass
class World:
    """Everything together, with one credentials Secret."""

    clock: Clock = dataclasses.field(default_factory=Clock)
    limits: inventory.Limits = dataclasses.field(default_factory=inventory.Limits)
    host_limits: hosts.HostLimits = dataclasses.field(default_factory=hosts.HostLimits)
    interval: dt.timedelta = dt.timedelta(minutes=10)

    def __post_init__(self) -> None:
        self.cluster = Cluster()
        self.squidex = Squidex(self.clock)
        seen = inventory.Inventory(self.limits)
        self.queue: queue.Queue[tools.QueueKey] = queue.Queue(self.clock, lane=seen.awaits_first_token_of)
        self.tools = tools.Tools(
            clock=self.clock,
            gateway=self.cluster,  # type: ignore[arg-type]
            http=self.squidex,  # type: ignore[arg-type]
            inventory=seen,
            queue=self.queue,
            hosts=hosts.Hosts(self.host_limits, self.queue.wake, self.clock.now, is_new=seen.awaits_first_token_of),
            servers=servers.Servers(seen, interval=dt.timedelta(minutes=5)),
            trust=trust.Trust(self.cluster),  # type: ignore[arg-type]
            metrics=metrics.Metrics(),
            draw=lambda: 0.0,
        )
        self.inventory = seen
        self.reconciler = reconcile.Reconciler(self.tools)
        self.watch = watch.Watch(
            self.tools, namespaces=[], relist_interval=self.interval, grace=dt.timedelta(milliseconds=1)
        )
        self.put_credentials()

    # What people do

    def put_credentials(self, secret: str = "s3cr3t", *, name: str = "credentials", labelled: bool = True) -> Body:
        labels = {"squidex-operator.io/role": "credentials"} if labelled else {}
        data = {"clientId": encode("shop:default"), "clientSecret": encode(secret)}
        body = self.cluster.secrets.setdefault((NAMESPACE, name), {"metadata": {"namespace": NAMESPACE, "name": name}})
        body["metadata"]["labels"], body["data"] = labels, data
        return self.tell_secret(self.cluster.stamp(body, new="uid" not in body["metadata"]), labelled=labelled)

    def put_client(self, name: str = "shop", **spec: Any) -> inventory.Key:
        body = self.cluster.clients.setdefault(
            (NAMESPACE, name), {"metadata": {"namespace": NAMESPACE, "name": name, "generation": 0}}
        )
        body["spec"] = {"url": URL, "credentialsSecretRef": {"name": "credentials"}, **spec}
        body["metadata"]["generation"] += 1
        self.watch.client_event("MODIFIED", self.cluster.stamp(body, new="uid" not in body["metadata"]))
        return inventory.Key(NAMESPACE, name)

    def delete_client(self, name: str = "shop") -> None:
        body = self.cluster.clients.pop((NAMESPACE, name))
        self.watch.client_event("DELETED", self.cluster.stamp(body))

    def delete_secret(self, name: str = "shop", *, told: bool = True) -> None:
        body = self.cluster.stamp(self.cluster.secrets.pop((NAMESPACE, name)))
        if told:
            self.watch.secret_event("DELETED", body)

    def damage_target(self) -> Body:
        """Somebody edits a key of the target that is not the token."""
        target = self.target()
        target["data"]["tokenType"] = encode("Basic")
        self.tell_secret(self.cluster.stamp(target))
        return target

    def tell_secret(self, body: Body, *, labelled: bool = True) -> Body:
        if labelled:
            self.watch.secret_event("MODIFIED", copy.deepcopy(body))
        return body

    # What the operator does

    async def settle(self, *, most: int = 100) -> None:
        """Work on what is due now, until nothing is."""
        for _ in range(most):
            due = sorted((at, str(key), key) for key, at in self.queue._due.items() if at <= self.clock.now())
            if not due:
                return
            key = due[0][2]
            self.queue._due.pop(key)
            await self.reconciler.work(key)
        raise AssertionError(f"still busy after {most} rounds: a hot loop, {self.queue._due}")

    def run(self) -> World:
        """`settle`, from a test that is not asynchronous."""
        asyncio.run(self.settle())
        return self

    # What is to be seen

    def due(self, key: inventory.Key) -> float | None:
        """Seconds until a key is due."""
        at = self.queue._due.get(key)
        return None if at is None else (at - self.clock.now()).total_seconds()

    def target(self, name: str = "shop") -> Body:
        return self.cluster.secrets[NAMESPACE, name]

    def token(self, name: str = "shop") -> str:
        return base64.b64decode(self.target(name)["data"]["token"]).decode()

    def status(self, name: str = "shop") -> Body:
        return self.cluster.clients[NAMESPACE, name].get("status", {})

    def condition(self, kind: str, name: str = "shop") -> tuple[str, str]:
        found = next(c for c in self.status(name)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
