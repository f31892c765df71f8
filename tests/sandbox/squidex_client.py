"""A client that sends exactly what it is told to, and tokens made by hand, for the stand-in's tests."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from sandbox.squidex import keys

TOKEN_PATH = "/identity-server/connect/token"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    url: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: str = "",
    timeout: float = 10,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request on a connection of its own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=tls)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.putrequest(method, path)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body.encode())))
        connection.endheaders(body.encode())
        received = connection.getresponse()
        text = received.read().decode()
        return Answer(received.status, {k.lower(): v for k, v in received.getheaders()}, text)
    finally:
        connection.close()


def ask_token(url: str, *, headers: Mapping[str, str] | None = None, **parameters: str) -> Answer:
    """Ask for a token as every SDK does; `parameters` replace the usual ones, an empty one leaves it out."""
    usual = {
        "grant_type": "client_credentials",
        "client_id": "demo:ci",
        "client_secret": "s3cr3t",
        "scope": "squidex-api",
    }
    sent = {name: value for name, value in (usual | parameters).items() if value}
    return ask(url, "POST", TOKEN_PATH, headers=FORM | dict(headers or {}), body=urlencode(sent))


def token(url: str, **parameters: str) -> str:
    """Return a fresh access token."""
    return str(ask_token(url, **parameters).json()["access_token"])


def probe(url: str, bearer: str, path: str = "/api/apps/demo") -> Answer:
    """Ask whether a token is accepted."""
    return ask(url, "GET", path, headers={"Authorization": f"Bearer {bearer}"})


def header_of(jwt: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(jwt.split(".", 1)[0] + "==")))


def claims_of(jwt: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(jwt.split(".", 2)[1] + "==")))


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: keys.SigningKey | None) -> str:
    """Return a token with exactly these contents, without a signature when there is no key."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    data = ".".join(parts)
    signature = b"" if key is None else key.sign(data.encode())
    return f"{data}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
