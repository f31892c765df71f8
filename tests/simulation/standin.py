"""The sandbox's stand-in Squidex in the model's place: its own answers and its own switches, no sockets, virtual time.

Only how an answer is sent is the model's: what `sandbox.squidex.delivery` does to a connection is here what httpx makes of it.
"""

from __future__ import annotations

import asyncio
import functools
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx
import multidict

from sandbox.squidex import delivery, keys, mishaps, routes, switches
from sandbox.squidex import wire as standin_wire
from sandbox.squidex import world as standin_world
from tests.simulation import squidex, virtual, wire

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from sandbox.squidex.faults import Fault


class _World(standin_world.World):
    """Everything that the switches change, on virtual time."""

    __slots__ = ("ahead",)

    def now(self) -> float:
        return virtual.BASE.timestamp() + virtual.now() + getattr(self, "ahead", 0.0) + self.clock_offset


class _Secrets(dict[str, str]):
    """Clients are kept in the directory."""

    def __init__(self, world: _World) -> None:
        super().__init__()
        self._world = world

    def __setitem__(self, client_id: str, secret: str) -> None:
        self._world.directory.set_client(client_id, secret)


@functools.cache
def _key() -> keys.SigningKey:
    """One for all tests: making one takes a while."""
    return keys.generate()


class StandIn(squidex.Server):
    """A Squidex."""

    def __init__(self, base_url: str, rng: random.Random) -> None:
        super().__init__(base_url, rng)
        self.world = _World(standin_world.Start({}, _key()), own_url=base_url)
        self.secrets = _Secrets(self.world)

    def patch(self, changes: Mapping[str, Any]) -> None:
        """Set switches, as `PATCH /_sandbox/state` does."""
        switches.patch(self.world, dict(changes))

    def works(self, token: str) -> bool:
        """Whether a request with this token is answered, by each of the replicas."""
        asked = self._request("GET", "/api/languages/", {}, {"Authorization": f"Bearer {token}"})
        return all(routes.answer("probe", asked, self.world).status == 200 for _ in self.world.keys.replicas)

    async def respond(
        self, name: str, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> wire.Reply:
        """What arrives of the answer. Raises what httpx would raise."""
        world = self.world
        world.ahead = self.skew
        base = world.base_path
        inside = path == base or path.startswith(f"{base}/")
        asked = self._request(method, path[len(base) :] if inside else path, form, headers)
        endpoint = routes.classify(asked.path) if inside else "other"
        client, app = routes.client_named(endpoint, asked), routes.app_named(endpoint, asked)
        met = world.faults.take(endpoint, routes.same_client(client), app)
        await mishaps.wait(met)
        reply = mishaps.replacement(met, asked, world)
        if reply is None:
            reply = routes.answer(endpoint, asked, world, mishaps.twist(met))
        return await self._sent(delivery.edited(reply, met), met)

    def _request(
        self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> standin_wire.Request:
        sent = multidict.CIMultiDict(headers)
        if form:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        body = urllib.parse.urlencode(form).encode()
        return standin_wire.Request(method, path, "", sent, body, self.base_url)

    async def _sent(self, reply: standin_wire.Reply, met: list[Fault]) -> wire.Reply:
        body, broken = reply.body, None
        for fault in met:
            match fault.kind:
                case "reset":
                    raise httpx.ReadError("reset") from ConnectionResetError()
                case "truncate":
                    body, broken = body[: len(body) // 2], httpx.RemoteProtocolError("payload is not completed")
                case "huge":
                    body += b" " * 2**20
                case "drip":
                    await asyncio.sleep(fault.details["seconds"] * len(body) / max(1, fault.details.get("bytes", 1)))
        headers = {name.lower(): value for name, value in reply.headers}
        return wire.Reply(reply.status, {**headers, "date": self.world.http_date()}, body, broken)
