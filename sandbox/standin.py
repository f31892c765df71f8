"""The stand-in Squidex (`python -m sandbox.squidex`) as a program, with TLS by an authority of its own."""

from __future__ import annotations

import json
import secrets
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from sandbox.controlplane import client
from sandbox.controlplane.certificates import Authority, write_private
from sandbox.controlplane.ports import LOOPBACK
from sandbox.errors import SandboxError
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.processes import Household

LISTENING = "listening on "
# Names under which tests may want to reach it, besides the loopback address.
NAMES = ("localhost", LOOPBACK, "squidex", "squidex.squidex.svc", "squidex.squidex.svc.cluster.local")
APP = "sandbox"


class Squidex:
    """One stand-in: `url`, `ca_file`, the clients it knows, and the switches for its faults.

    Its port stays the same when its program is killed and started again: see `program`.
    """

    def __init__(
        self,
        home: Household,
        *,
        name: str = "squidex",
        clients: Mapping[str, str] | None = None,
        extra_args: Sequence[str] = (),
        authority: Authority | None = None,
        address: str = LOOPBACK,
    ) -> None:
        """Describe it: it is going to listen on a free port of `address`.

        `clients` maps client ids ("app:client") to secrets; by default there is one.
        """
        self.name = name
        self.clients = dict(clients or {f"{APP}:default": secrets.token_urlsafe(24)})
        self.dir = home.dir / name
        self.url = ""
        self._authority = authority or Authority(f"sandbox-{name}")
        self._names = [*NAMES, address] if address != LOOPBACK else list(NAMES)
        self._listen = f"{address}:0"
        self._extra_args = list(extra_args)
        self.program = home.program(name, [], env={"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"})

    @property
    def ca_file(self) -> Path:
        """The authority of its certificate: what a SquidexClient's tls.caRef has to hold."""
        return self.dir / "ca.crt"

    @property
    def ca(self) -> str:
        """The same as text."""
        return self._authority.cert.decode()

    def start(self, timeout: float = 20) -> None:
        """Start it, the first time on a free port, and wait until it listens; raises ProgramFailed."""
        if not self.dir.exists():
            self._write_files()
        self.program.argv = [
            *(sys.executable, "-m", "sandbox.squidex", f"--listen={self._listen}"),
            *(f"--clients={self.dir}/clients.json", f"--key={self.dir}/signing.pem"),
            *(f"--tls-cert={self.dir}/tls.crt", f"--tls-key={self.dir}/tls.key"),
            *self._extra_args,
        ]
        self.program.start()
        self.program.wait_until(self._find_url, timeout=timeout, what=f'the line "{LISTENING}…"')

    def _write_files(self) -> None:
        self.dir.mkdir(mode=0o700)
        self.ca_file.write_bytes(self._authority.cert)
        self._authority.serving(self._names).write(self.dir, "tls")
        write_private(self.dir / "clients.json", json.dumps(self.clients, indent=2).encode())

    def _find_url(self) -> bool:
        for line in self.program.output().splitlines():
            if line.startswith(LISTENING):
                self.url = line.removeprefix(LISTENING).strip().rstrip("/")
                self._listen = self.url.partition("://")[2].partition("/")[0]
                return True
        return False

    def state(self) -> dict[str, Any]:
        """What it has done and which faults are switched on."""
        return self._call("GET", None)

    def patch(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Switch faults on or off (sandbox/squidex/README.md lists them); returns the new state."""
        return self._call("PATCH", changes)

    def _call(self, method: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/_sandbox/state",
            method=method,
            data=None if body is None else json.dumps(dict(body)).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=client.trusting(self.ca_file)),
        )
        try:
            with opener.open(request, timeout=10) as answer:
                return dict(json.load(answer))
        except OSError as error:
            raise SandboxError(f"the stand-in Squidex at {self.url} did not answer: {error}") from error
