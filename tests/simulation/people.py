"""What people do to a cluster: they edit, delete, rotate, move and damage, and are late with the other half of it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from squidex_operator.api import names
from tests.simulation import cluster as cluster_module
from tests.simulation import judge as judge_module
from tests.simulation import squidex, virtual
from tests.simulation.cluster import CLIENTS, SECRETS, Body, Key
from tests.simulation.virtual import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Mapping


class People:
    """Acts on one SquidexClient at a time."""

    def __init__(
        self,
        cluster: cluster_module.Cluster,
        servers: Mapping[str, squidex.Server],
        judge: judge_module.Judge,
        rng: random.Random,
    ) -> None:
        self._cluster = cluster
        self._servers = servers
        self._judge = judge
        self._rng = rng
        self.foreign: dict[Key, Body] = {}
        """Secrets of others in a target's place, as they were made."""
        self.needs: dict[Key, list[float]] = {}
        """When each SquidexClient needed a token for what people did."""
        self.edits: dict[Key, list[float]] = {}
        """Everything else that they did, and that may try again at once what waits."""
        self._acts: list[Callable[[Key], Coroutine[Any, Any, None]]] = [
            self._delete_target,
            self._damage_token,
            self._damage_other,
            self._strip_labels,
            self._annotate,
            self._edit_schedule,
            self._rotate,
            self._move,
            self._recreate,
            self._rename,
        ]

    def create(self, key: Key, base_url: str, *, probe: str, labelled: bool, refresh: Mapping[str, Any]) -> None:
        """A SquidexClient with its credentials, known to its server."""
        secret = f"{self._rng.getrandbits(160):x}"
        client_id = f"{key.name}:ci"
        self._servers[base_url].secrets[client_id] = secret
        self._judge.client_ids[key] = client_id
        labels = {names.LABEL_ROLE: names.ROLE_CREDENTIALS} if labelled else {}
        credentials = {
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"namespace": key.namespace, "name": f"{key.name}-credentials", "labels": labels},
            "data": {"clientId": _b64(client_id), "clientSecret": _b64(secret)},
        }
        self._cluster.create(SECRETS, credentials)
        spec = {
            "url": base_url,
            "credentialsSecretRef": {"name": f"{key.name}-credentials"},
            "probe": {"mode": "Auto", "interval": probe},
            "refresh": dict(refresh),
            "target": {"name": f"{key.name}-token"},
        }
        metadata = {"namespace": key.namespace, "name": key.name}
        self._cluster.create(CLIENTS, {"kind": names.KIND, "metadata": metadata, "spec": spec})
        self._need(key)

    def occupy(self, key: Key) -> None:
        """Somebody's own Secret in the target's place, before the SquidexClient is made."""
        metadata = {"namespace": key.namespace, "name": f"{key.name}-token", "labels": {"app": "theirs"}}
        body = {"kind": "Secret", "type": "Opaque", "metadata": metadata, "data": {"token": _b64("theirs")}}
        self.foreign[Key(key.namespace, f"{key.name}-token")] = self._cluster.create(SECRETS, body)

    def give_way(self, key: Key) -> None:
        """They delete it: from then on the target is the operator's."""
        target = Key(key.namespace, f"{key.name}-token")
        del self.foreign[target]
        self._cluster.delete(SECRETS, target)
        self._need(key)

    async def act(self, key: Key) -> None:
        """Do something to one."""
        if self._cluster.get(CLIENTS, key) is not None and self._target(key) not in self.foreign:
            await self._rng.choice(self._acts)(key)

    async def _delete_target(self, key: Key) -> None:
        self._need(key)
        self._cluster.delete(SECRETS, self._target(key))

    async def _damage_token(self, key: Key) -> None:
        self._set_data(key, names.KEY_TOKEN, _b64("not.a.token"))
        self._need(key)

    async def _damage_other(self, key: Key) -> None:
        self._set_data(key, names.KEY_URL, _b64("https://wrong.example.com"))

    async def _strip_labels(self, key: Key) -> None:
        body = self._cluster.get(SECRETS, self._target(key))
        if body is not None:
            metadata = {**body["metadata"], "labels": {"theirs": "yes"}}
            self._cluster.update(SECRETS, self._target(key), metadata=metadata)

    async def _annotate(self, key: Key) -> None:
        body = self._cluster.objects[CLIENTS][key]
        annotations = {**(body["metadata"].get("annotations") or {}), "note": f"{self._rng.getrandbits(32):x}"}
        self._cluster.update(CLIENTS, key, metadata={**body["metadata"], "annotations": annotations})

    async def _edit_schedule(self, key: Key) -> None:
        self._edit_spec(key, refresh={"renewBeforePercentage": self._rng.randint(20, 40)})

    async def _rotate(self, key: Key) -> None:
        """The client is deleted and made again in Squidex; the Secret follows when its owner has time for it."""
        server = self._servers[self._judge.server_of(key)]
        secret = f"{self._rng.getrandbits(160):x}"
        server.secrets[self._judge.client_ids[key]] = secret
        began = virtual.now()
        await asyncio.sleep(self._rng.choice((1.0, 10 * MINUTE, HOUR, 3 * DAY)))
        credentials = Key(key.namespace, f"{key.name}-credentials")
        old = self._cluster.get(SECRETS, credentials)
        assert old is not None
        self._cluster.update(SECRETS, credentials, data={**old["data"], "clientSecret": _b64(secret)})
        self._judge.trouble(key, began, residue=2 * MINUTE)
        self._need(key)

    async def _move(self, key: Key) -> None:
        """To another Squidex, which knows the same client."""
        old = self._servers[self._judge.server_of(key)]
        new = self._rng.choice([server for server in self._servers.values() if server is not old])
        client_id = self._judge.client_ids[key]
        new.secrets[client_id] = old.secrets[client_id]
        self._edit_spec(key, url=f"{new.base_url}/")
        self._need(key)

    async def _recreate(self, key: Key) -> None:
        spec = self._cluster.objects[CLIENTS][key]["spec"]
        self._cluster.delete(CLIENTS, key)
        await asyncio.sleep(self._rng.choice((0.0, 1.0, MINUTE, DAY)))
        if self._cluster.get(CLIENTS, key) is None:
            metadata = {"namespace": key.namespace, "name": key.name}
            self._cluster.create(CLIENTS, {"kind": names.KIND, "metadata": metadata, "spec": spec})
            self._need(key)

    async def _rename(self, key: Key) -> None:
        self._edit_spec(key, target={"name": f"{key.name}-{self._rng.getrandbits(32):x}"})

    def _edit_spec(self, key: Key, **changes: Any) -> None:
        self.edits.setdefault(key, []).append(virtual.now())
        spec = self._cluster.objects[CLIENTS][key]["spec"]
        self._cluster.update(CLIENTS, key, spec={**spec, **changes})

    def _set_data(self, key: Key, name: str, value: str) -> None:
        target = self._target(key)
        body = self._cluster.get(SECRETS, target)
        if body is not None and target not in self.foreign:
            self._cluster.update(SECRETS, target, manager="kubectl-edit", data={**body["data"], name: value})

    def _target(self, key: Key) -> Key:
        return Key(key.namespace, self._cluster.objects[CLIENTS][key]["spec"]["target"]["name"])

    def _need(self, key: Key) -> None:
        self.needs.setdefault(key, []).append(virtual.now())


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
