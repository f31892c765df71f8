"""The operator, as a process of the sandbox that has nothing but the rights of its own ServiceAccount."""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING

from sandbox.controlplane.ports import LOOPBACK, free_port
from sandbox.errors import ProgramFailed
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.processes import Household

NAMESPACE = "squidex-operator"
SERVICE_ACCOUNT = "squidex-operator"
HTTP_OK = 200
PORT_ATTEMPTS = 3
PORT_TAKEN = "address already in use"


class Operator:
    """One replica; `program` can be killed, stopped (SIGTERM), paused and started again."""

    def __init__(
        self,
        home: Household,
        *,
        kubeconfig: Path,
        source: Path = REPOSITORY / "operator",
        name: str = "operator",
        namespaces: Sequence[str] | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it: all namespaces unless some are named."""
        self._arguments = [*(f"--namespace={namespace}" for namespace in namespaces or ()), *extra_args]
        self.program = home.program(
            name,
            [],
            env={
                "KUBECONFIG": str(kubeconfig),
                "PYTHONPATH": str(source),
                "PYTHONUNBUFFERED": "1",
                **(env or {}),
            },
            graceful=True,
        )
        self.log = self.program.log
        self.health = ""
        self._choose_port()

    def _choose_port(self) -> None:
        self.health = f"{LOOPBACK}:{free_port()}"
        command = [sys.executable, "-m", "squidex_operator", f"--health-listen={self.health}"]
        self.program.argv = [*command, *self._arguments]

    def start(self, *, wait: bool = True, timeout: float = 30) -> None:
        """Start it and wait until it is ready; raises ProgramFailed with its last log lines."""
        for _ in range(PORT_ATTEMPTS):
            self.program.start()
            if not wait:
                return
            try:
                self.wait_ready(timeout)
            except ProgramFailed:
                if self.program.alive or PORT_TAKEN not in self.program.output():
                    raise
                self._choose_port()
            else:
                return
        raise self.program.failure(f"found no free port in {PORT_ATTEMPTS} tries")

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait until /readyz says yes."""
        self.program.wait_until(
            lambda: self.get("/readyz")[0] == HTTP_OK,
            timeout=timeout,
            what=f"a yes from http://{self.health}/readyz",
        )

    def get(self, path: str, *, timeout: float = 5) -> tuple[int, str]:
        """GET a path of its health server, such as /metrics; status 0 when nobody answers."""
        connection = http.client.HTTPConnection(self.health, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def stop(self, timeout: float = 15) -> int | None:
        """End it as Kubernetes does: SIGTERM, then SIGKILL; returns its exit code."""
        return self.program.stop(timeout)

    def kill(self) -> None:
        """End it as a crash does."""
        self.program.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; raises subprocess.TimeoutExpired."""
        return self.program.wait(timeout)
