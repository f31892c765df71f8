"""A small world for tests of one thing: two servers, an operator with its own settings, and SquidexClients as needed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import itertools
import random
from typing import TYPE_CHECKING, Any

from squidex_operator.api import names
from tests.simulation import cluster as cluster_module
from tests.simulation import process, squidex, virtual
from tests.simulation.cluster import CLIENTS, SECRETS, Body, Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMESPACE = "shop"

CALM = process.Settings(keys_interval=dt.timedelta(hours=2), relist_interval=dt.timedelta(hours=12))
"""Fewer of the looks that a test is not about."""


class Lab:
    """What a test acts on."""

    def __init__(self, settings: process.Settings, make: type[squidex.Server] = squidex.Server) -> None:
        rng = random.Random(1)
        self.cluster = cluster_module.Cluster(rng)
        self.first, self.second = (
            make(f"https://{name}.example.com", random.Random(name)) for name in ("first", "second")
        )
        self.servers = {server.base_url: server for server in (self.first, self.second)}
        self.process = process.Process(self.cluster, self.servers, rng, settings)
        self.process.delivery.late = 0.0

    def create(self, name: str, server: squidex.Server, *, known: bool = True, **spec: Any) -> None:
        """A SquidexClient with labelled credentials; its server gets to know them, or has to do with what it knows."""
        if known:
            server.secrets[f"{name}:ci"] = "s3cr3t"
        self.credentials(name, "s3cr3t")
        reference = {"name": f"{name}-credentials"}
        body = {
            "kind": names.KIND,
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {"url": server.base_url, "credentialsSecretRef": reference, **spec},
        }
        self.cluster.create(CLIENTS, body)

    def credentials(self, name: str, secret: str) -> None:
        """Write the credentials Secret, anew or again."""
        data = {"clientId": _b64(f"{name}:ci"), "clientSecret": _b64(secret)}
        key = Key(NAMESPACE, f"{name}-credentials")
        if self.cluster.get(SECRETS, key) is not None:
            self.cluster.update(SECRETS, key, data=data)
            return
        metadata = {"namespace": NAMESPACE, "name": key.name, "labels": {names.LABEL_ROLE: names.ROLE_CREDENTIALS}}
        self.cluster.create(SECRETS, {"kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data})

    def edit(self, name: str, **spec: Any) -> None:
        """Change some of a SquidexClient's spec."""
        body = self._client(name)
        self.cluster.update(CLIENTS, Key(NAMESPACE, name), spec={**body["spec"], **spec})

    def pass_time(self, seconds: float) -> None:
        """So much later for everybody, at once: as if all machines had been suspended."""
        self.process.clock.offset += seconds
        for server in self.servers.values():
            server.skew += seconds

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Status and reason."""
        found = {
            c["type"]: (c["status"], c["reason"]) for c in self._client(name).get("status", {}).get("conditions", ())
        }
        return found.get(kind, ("", ""))

    def token(self, name: str) -> str:
        """The token in the target; empty where there is none."""
        body = self.cluster.get(SECRETS, Key(NAMESPACE, name)) or {}
        return base64.b64decode(body.get("data", {}).get(names.KEY_TOKEN, "")).decode()

    def works(self, name: str, server: squidex.Server) -> bool:
        """Whether the server accepts what is in the target."""
        return server.works(self.token(name))

    def writes(self, name: str) -> int:
        """How often the target was written."""
        return sum(what == "secret" and key.name == name for _, what, key in self.process.gateway.writes)

    async def until_works(self, name: str, server: squidex.Server, longest: float) -> float:
        """Wait until there is a token that works and nothing fails; how many seconds that took."""
        began = virtual.now()
        while not (self.works(name, server) and self.condition(name, "RefreshFailing")[0] == "False"):
            assert virtual.now() - began <= longest, f"no working token after {longest:g} s: {self._client(name)}"
            await asyncio.sleep(max(0.5, longest / 1000))
        return virtual.now() - began

    def _client(self, name: str) -> Body:
        body = self.cluster.get(CLIENTS, Key(NAMESPACE, name))
        assert body is not None
        return body


@contextlib.asynccontextmanager
async def running(
    settings: process.Settings | None = None, make: type[squidex.Server] = squidex.Server
) -> AsyncIterator[Lab]:
    """A world with an operator that runs in it."""
    lab = Lab(settings or process.Settings(), make)
    task = asyncio.create_task(lab.process.run())
    await asyncio.sleep(1)
    try:
        yield lab
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert lab.process.bugs == []
    assert not lab.process.ends


def count(server: squidex.Server, endpoint: str, since: float, until: float) -> int:
    """Requests that a server got."""
    return sum(name == endpoint and since <= at < until for at, name, _, _ in server.requests)


def is_backed_off(server: squidex.Server, since: float) -> bool:
    """Whether no two token requests since then came within five minutes."""
    times = [at for at, name, _, _ in server.requests if name == "token" and at >= since]
    return all(later - sooner >= 300 for sooner, later in itertools.pairwise(times))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
