"""The test bed: a sandbox with N SquidexClients in 50 namespaces, and ways to read what happened in it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import http.client
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import bare, measure
from sandbox.controlplane import client
from squidex_operator.api import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.controlplane.audit import AuditEvent
    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

NAMESPACES = 50
CONNECTIONS = 4
API = bare.API
QUIET = ("--log-level=WARNING",)
FAST = ("--host-rate=100000", "--host-burst=100000")
"""The stand-in takes whatever comes: what is measured is the operator, not its politeness."""
SERVICE_ACCOUNT = "squidex-operator/squidex-operator"


class Bed:
    """N SquidexClients and their credentials; no operator."""

    def __init__(self, sandbox: Sandbox, count: int) -> None:
        self.sandbox = sandbox
        self.count = count
        self.plane = sandbox.control_plane
        self._connection: http.client.HTTPSConnection | None = None

    def fill(self) -> None:
        """Make namespaces, credentials and SquidexClients."""
        squidex = self.sandbox.squidex
        client_id, secret = next(iter(squidex.clients.items()))
        items: list[dict[str, Any]] = []
        for number in range(NAMESPACES):
            name = f"bench-{number}"
            items.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            items.append(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("ca", name), "data": {"ca.crt": squidex.ca}}
            )
            body = {"clientId": client_id, "clientSecret": secret}
            labels = {"labels": {names.LABEL_ROLE: names.ROLE_CREDENTIALS}}
            items.append(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": named("credentials", name) | labels,
                    "stringData": body,
                }
            )
        self.create(items)
        self.create_clients()

    def client(self, number: int, prefix: str = "c") -> dict[str, Any]:
        """The manifest of one SquidexClient."""
        return {
            "apiVersion": "squidex-operator.io/v1beta1",
            "kind": "SquidexClient",
            "metadata": named(f"{prefix}{number}", f"bench-{number % NAMESPACES}"),
            "spec": {
                "url": self.sandbox.squidex.url,
                "credentialsSecretRef": {"name": "credentials"},
                "tls": {"caRef": {"kind": "ConfigMap", "name": "ca"}},
            },
        }

    def create_clients(self, prefix: str = "c") -> None:
        """Make all SquidexClients, over several connections: kubectl takes one after the other."""

        def work(numbers: range) -> None:
            each = Bed(self.sandbox, self.count)
            for number in numbers:
                body = self.client(number, prefix)
                found = each.kube("POST", f"{API}/namespaces/{body['metadata']['namespace']}/squidexclients", body)
                if found.get("kind") != "SquidexClient":
                    raise RuntimeError(f"SquidexClient {number} was not created: {found.get('message')}")

        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(work, [range(start, self.count, CONNECTIONS) for start in range(CONNECTIONS)]))

    def weight(self) -> tuple[float, float]:
        """What everything weighs: MiB in use in etcd's store, history left out, and resident in the API server."""
        self.plane.compact()
        found = client.etcd_call(self.plane.files.etcd_socket, "maintenance/status", {})
        pid = self.plane.apiserver.pid
        assert pid is not None
        return int(found["dbSizeInUse"]) / 1024 / 1024, measure.rss_mib(pid)

    def create(self, items: list[dict[str, Any]]) -> None:
        """kubectl create."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.plane.kubectl_run("create", "-f", "-", input=text)

    def bare(self, concurrency: int, *arguments: str, module: str = "bare") -> dict[str, Any]:
        """The bare loop over all of them, as the operator's ServiceAccount and in a process of its own."""
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--concurrency={concurrency}", *arguments]
        command += [
            f"--kubeconfig={self.sandbox.operator_kubeconfig()}",
            f"--squidex-ca={self.sandbox.squidex.ca_file}",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))

    def reset(self) -> None:
        """Delete all targets and take back all statuses, so that the next fill is a cold one."""
        for number in range(NAMESPACES):
            self.kube("DELETE", f"{API}/namespaces/bench-{number}/squidexclients")
        measure.wait(lambda: not self.kube("GET", f"{API}/squidexclients?limit=1")["items"], "deletion", pause=0.2)
        for number in range(NAMESPACES):
            self.kube("DELETE", f"/api/v1/namespaces/bench-{number}/secrets?fieldSelector=metadata.name!=credentials")
        self.create_clients()
        self.sandbox.squidex.patch({"counts": None})

    def start(self, *arguments: str, namespaces: Sequence[str] = ()) -> Operator:
        """Start an operator without waiting for anything."""
        return self.sandbox.start_operator(extra_args=[*QUIET, *arguments], namespaces=namespaces, wait=False)

    def stop(self) -> None:
        """Stop all operators."""
        for operator in self.sandbox.operators:
            operator.stop()
        self.sandbox.operators.clear()

    @property
    def pid(self) -> int:
        """Of the operator."""
        return pid_of(self.sandbox.operators[0])

    def tokens(self) -> int:
        """Token requests so far."""
        return int(self.sandbox.squidex.state()["counts"]["token"]["total"])

    def ready(self, operator: Operator) -> int:
        """SquidexClients that are ready, by the operator's own metrics."""
        status, text = operator.get("/metrics")
        rows = [line for line in text.splitlines() if line.startswith("squidex_operator_client_ready{")]
        return sum(1 for row in rows if row.endswith(" 1.0")) if status == 200 else 0

    def requests(self, since: int) -> list[AuditEvent]:
        """What the operator asked the API server for."""
        return self.plane.requests_of(SERVICE_ACCOUNT, since=since)

    @staticmethod
    def times(rows: Sequence[AuditEvent], what: str) -> list[float]:
        """When requests for 'verb resource' came in, seconds since the epoch."""
        wanted = [row for row in rows if f"{row.verb} {row.resource}" == what]
        return [dt.datetime.fromisoformat(row.received_at).timestamp() for row in wanted]

    def first_watch(self, mark: int) -> float | None:
        """When the operator's first watch reached the API server, seconds since the epoch; None before that."""
        rows = [row for row in self.requests(mark) if row.verb == "watch"]
        return min((dt.datetime.fromisoformat(row.received_at).timestamp() for row in rows), default=None)

    @contextlib.contextmanager
    def watching(self, path: str, selector: str) -> Iterator[Iterator[Any]]:
        """Objects as they are now and after each change: asking again and again would take the machine from what is measured."""
        connection = self._connect()
        try:
            connection.request("GET", f"{path}?watch=true&{selector}")
            answer = connection.getresponse()
            yield (json.loads(line)["object"] for line in iter(answer.readline, b""))
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        where, port, context = self.plane.site.address, self.plane.port, self.plane.admin_context
        return http.client.HTTPSConnection(where, port, context=context, timeout=60)

    def kube(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request as the administrator, over a connection that stays: kubectl would be slower than what is measured."""
        data = None if body is None else json.dumps(body)
        for is_last in (False, True):
            if self._connection is None:
                self._connection = self._connect()
            try:
                self._connection.request(method, path, body=data, headers={"Content-Type": kind})
                return json.loads(self._connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                # The API server closes what was idle for minutes.
                self._connection = None
                if is_last:
                    raise
        return None


def pid_of(operator: Operator) -> int:
    """Of the running process."""
    pid = operator.program.pid
    if pid is None:
        raise ProcessLookupError("the operator does not run")
    return pid


def named(name: str, namespace: str) -> dict[str, Any]:
    """Metadata."""
    return {"name": name, "namespace": namespace}
