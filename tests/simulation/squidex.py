"""Squidex servers as a model: what the wire says (tests/data/squidex-wire), without cryptography and without I/O.

A token is a JWT in form; who it is for, and which key signed it, is remembered here, because nobody but the server checks it.
"""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import json
import urllib.parse
from typing import TYPE_CHECKING, Any

from tests.simulation import faults, virtual, wire

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

DAY = 86400.0
_TOKEN = "/identity-server/connect/token"
_KEYS = "/identity-server/.well-known/jwks"


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a server knows of a token that it issued."""

    server: str
    client_id: str
    key_id: str
    issuer: int
    expires: float
    """On the server's clock: true seconds plus its skew."""
    lifetime: float
    bad: bool = False
    """Issued, and refused by the server that issued it."""


class Server:
    """One Squidex, with one or more replicas behind one address."""

    def __init__(self, base_url: str, rng: random.Random, *, skew: float = 0.0) -> None:
        self.base_url = base_url
        self.rng = rng
        self.skew = skew
        self.secrets: dict[str, str] = {}
        """client id -> secret."""
        self.replicas = [self._new_key()]
        """The key of each replica: a replica signs with its own, publishes its own and accepts its own."""
        self.issuer = 0
        self.lifetime = 30 * DAY
        self.lifetimes: list[tuple[float, float]] = [(0.0, self.lifetime)]
        """From when on new tokens live for how long."""
        self.latency = (0.01, 0.2)
        self.signs_badly = False
        self.faults: list[faults.Fault] = []
        self.tokens: dict[str, Facts] = {}
        self.lost = 0
        """Tokens that were issued in an answer that did not arrive as it was, or that nobody could ask about."""
        self.requests: list[tuple[float, str, str, int]] = []
        """Time, endpoint, client id, status that was answered (0: none)."""
        self.changed: Callable[[Server], None] = lambda server: None
        """Called after every change to what the server accepts."""

    def time(self) -> float:
        """Seconds on the server's own clock."""
        return virtual.now() + self.skew

    def accepts(self, facts: Facts) -> bool:
        """Whether there is a replica that accepts the token, its end aside."""
        mine = facts.server == self.base_url and facts.issuer == self.issuer and not facts.bad
        return mine and facts.key_id in self.replicas

    def dies_at(self, facts: Facts) -> float:
        """True time from which on the token is expired."""
        return facts.expires - self.skew

    def set_lifetime(self, lifetime: float) -> None:
        """How long tokens live that are issued from now on."""
        self.lifetime = lifetime
        self.lifetimes.append((virtual.now(), lifetime))

    def replace_key(self) -> None:
        """All replicas get a new key at once."""
        self.replicas = [self._new_key()]
        self.changed(self)

    def begin_rollout(self) -> None:
        """One replica has a new key, the other still the old one."""
        self.replicas = [self.replicas[0], self._new_key()]
        self.changed(self)

    def end_rollout(self) -> None:
        """All replicas have the key of the newest."""
        self.replicas = [self.replicas[-1]]
        self.changed(self)

    def change_issuer(self) -> None:
        """The server's public address changed: its key stays, its tokens die."""
        self.issuer += 1
        self.changed(self)

    def works(self, token: str) -> bool:
        """Whether a request with this token is answered, by one replica at least."""
        facts = self.tokens.get(token)
        return facts is not None and self.accepts(facts) and self.time() < facts.expires

    async def respond(
        self, name: str, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> wire.Reply:
        """What arrives of the answer. Raises what httpx would raise."""
        return await faults.pass_through(self, name, lambda: self.answer(method, path, form, headers))

    def answer(self, method: str, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> wire.Reply:
        """What the server itself answers."""
        key_id = self.rng.choice(self.replicas)
        if path == _TOKEN and method == "POST":
            reply = self._token(form, key_id)
        elif path == _KEYS and method == "GET":
            key = {"kid": key_id, "use": "sig", "kty": "RSA", "alg": "RS256", "e": "AQAB", "n": "vt6NDPyI"}
            reply = wire.answer(200, {"keys": [key]}, wire.OAUTH)
        elif path.startswith("/api/") and method == "GET":
            reply = self._api(path, headers, key_id)
        else:
            reply = wire.Reply(404)
        return dataclasses.replace(reply, headers={**reply.headers, "Date": self.date()})

    def date(self, ahead: float = 0.0) -> str:
        """An HTTP date, so many seconds from now."""
        return email.utils.formatdate(virtual.BASE.timestamp() + self.time() + ahead, usegmt=True)

    def _token(self, form: Mapping[str, str], key_id: str) -> wire.Reply:
        client_id = form["client_id"]
        if form["scope"] != "squidex-api":
            return wire.oauth_error(400, "invalid_scope", "The specified 'scope' is invalid.")
        if client_id not in self.secrets:
            return wire.oauth_error(401, "invalid_client", "The specified 'client_id' is invalid.")
        if self.secrets[client_id] != form["client_secret"]:
            return wire.oauth_error(401, "invalid_client", "The specified client credentials are invalid.")
        granted = self.lifetime - self.rng.choice((0, 1))
        dies = int(self.time()) + self.lifetime
        facts = Facts(self.base_url, client_id, key_id, self.issuer, dies, self.lifetime, bad=self.signs_badly)
        token = self._sign(facts)
        self.tokens[token] = facts
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": int(granted), "scope": form["scope"]}
        return wire.answer(200, answer, wire.OAUTH)

    def _api(self, path: str, headers: Mapping[str, str], key_id: str) -> wire.Reply:
        facts = self.tokens.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if facts is None or facts.key_id != key_id or not self.accepts(facts) or self.time() >= facts.expires:
            return wire.refused()
        app = facts.client_id.partition(":")[0]
        if path == "/api/languages/" or (path == f"/api/apps/{app}" and facts.client_id in self.secrets):
            return wire.answer(
                200, {"id": "5d2c", "name": app, "label": None, "permissions": [], "_links": {}}, wire.API
            )
        return wire.api_error(404)

    def _sign(self, facts: Facts) -> str:
        now = virtual.BASE.timestamp()
        header = {"alg": "RS256", "kid": facts.key_id, "typ": "at+jwt"}
        claims = {
            "iss": f"{self.base_url}/",
            "exp": int(now + facts.expires),
            "iat": int(now + self.time()),
            "aud": "scp:squidex-api",
            "scope": "squidex-api",
            "sub": facts.client_id,
            "client_id": facts.client_id,
            "oi_tkn_id": f"{self.rng.getrandbits(64):x}",
        }
        return f"{_part(header)}.{_part(claims)}.{self.rng.getrandbits(256):x}"

    def _new_key(self) -> str:
        return f"key-{self.rng.getrandbits(64):016x}"


def endpoint(path: str) -> str:
    """What a path is, in the words of the faults."""
    return {_TOKEN: "token", _KEYS: "jwks"}.get(path, "probe")


def split(url: str, servers: Mapping[str, Server]) -> tuple[Server, str] | None:
    """The server of a URL and the path on it; None where no server is there."""
    parts = urllib.parse.urlsplit(url)
    server = servers.get(f"{parts.scheme}://{parts.netloc}")
    return (server, parts.path) if server is not None else None


def _part(document: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
