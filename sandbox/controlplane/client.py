"""The few HTTP requests the sandbox makes itself: is it ready, its metrics, etcd's JSON gateway."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import TYPE_CHECKING, Any

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from pathlib import Path


def trusting(ca: Path, *, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A TLS context for one authority and, if given, with a client certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def get(address: str, port: int, path: str, context: ssl.SSLContext, *, timeout: float = 10) -> tuple[int, bytes]:
    """GET https://ADDRESS:PORT/PATH; status 0 when nobody answers."""
    connection = http.client.HTTPSConnection(address, port, context=context, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def etcd_call(sock: Path, call: str, request: dict[str, Any], *, timeout: float = 30) -> dict[str, Any]:
    """One call of etcd's gRPC gateway, such as `kv/range` (https://etcd.io/docs/latest/dev-guide/api_grpc_gateway/)."""
    connection = _UnixConnection(sock, timeout=timeout)
    try:
        connection.request("POST", f"/v3/{call}", body=json.dumps(request))
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SandboxError(f"etcd did not answer {call}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise SandboxError(f"etcd refused {call}: {body}")
    return dict(body)
