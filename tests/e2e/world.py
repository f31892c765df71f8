"""One namespace of the sandbox, with a client in the stand-in Squidex: what the e2e tests act on and look at."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from sandbox.controlplane import client as http_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from sandbox.environment import Sandbox
    from sandbox.standin import Squidex

DEADLINE = 20.0
"""Seconds to wait for something that should take milliseconds: only a broken operator needs them."""

_PATHS = {
    "sqc": "/apis/squidex-operator.io/v1beta1/namespaces/{}/squidexclients",
    **{kind: f"/api/v1/namespaces/{{}}/{kind}s" for kind in ("secret", "configmap", "event", "pod")},
    **{kind: f"/apis/apps/v1/namespaces/{{}}/{kind}s" for kind in ("deployment", "statefulset", "daemonset")},
}

Object = dict[str, Any]


class World:
    """A namespace, the credentials of a client of its own, and the CA of the stand-in."""

    pause = 0.02
    """Seconds between two looks, never instead of one."""

    def __init__(self, sandbox: Sandbox, squidex: Squidex, namespace: str) -> None:
        self.sandbox = sandbox
        self.squidex = squidex
        self.namespace = namespace
        self.client_id = f"{namespace}:default"
        self.client_secret = f"secret-of-{namespace}"

    def set_up(self) -> None:
        """Make the namespace and what a SquidexClient needs."""
        self.squidex.patch({"clients": {self.client_id: self.client_secret}})
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        ca = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": self.squidex.ca}}
        self.apply(self._named(ca))
        self.set_credentials()

    def tear_down(self) -> None:
        """Delete the namespace, without waiting for it."""
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found", namespaced=False)

    def kubectl(
        self, *args: str, text: str | None = None, check: bool = True, namespaced: bool = True
    ) -> CompletedProcess[str]:
        """Run kubectl as the administrator."""
        where = [f"--namespace={self.namespace}"] if namespaced else []
        return self.sandbox.control_plane.kubectl_run(*args, *where, input=text, check=check)

    def apply(self, *objects: Object, check: bool = True) -> CompletedProcess[str]:
        """kubectl apply."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", "-f", "-", text=text, check=check, namespaced=False)

    def set_credentials(
        self,
        client_id: str | None = None,
        secret: str | None = None,
        *,
        name: str = "credentials",
        labelled: bool = True,
    ) -> None:
        """Write the credentials Secret."""
        labels = {"squidex-operator.io/role": "credentials"} if labelled else {}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": labels},
            "stringData": {"clientId": client_id or self.client_id, "clientSecret": secret or self.client_secret},
        }
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(self._named(body)))

    def manifest(self, name: str = "shop", **spec: Any) -> Object:
        """A SquidexClient of this namespace."""
        body = {
            "apiVersion": "squidex-operator.io/v1beta1",
            "kind": "SquidexClient",
            "metadata": {"name": name},
            "spec": {
                "url": self.squidex.url,
                "credentialsSecretRef": {"name": "credentials"},
                "tls": {"caRef": {"kind": "ConfigMap", "name": "ca"}},
                **spec,
            },
        }
        return self._named(body)

    def create(self, name: str = "shop", **spec: Any) -> Object:
        """Apply a SquidexClient."""
        body = self.manifest(name, **spec)
        self.apply(body)
        return body

    def ready(self, name: str = "shop", **spec: Any) -> Object:
        """Apply a SquidexClient, wait until it is ready; its target Secret."""
        self.create(name, **spec)
        self.wait_ready(name)
        return self.get("secret", spec.get("target", {}).get("name", name))

    def wait_ready(self, name: str = "shop", *, deadline: float = DEADLINE) -> Object:
        """Wait until `Ready` is True for the current generation; the SquidexClient."""

        def is_ready() -> Object | None:
            found = self.find("sqc", name)
            ready = condition(found, "Ready")
            current = found is not None and ready.get("observedGeneration") == found["metadata"]["generation"]
            return found if current and ready.get("status") == "True" else None

        return self.wait(is_ready, f"{name} to be ready", deadline=deadline)

    def wait_condition(self, kind: str, status: str, reason: str, name: str = "shop") -> Object:
        """Wait until a condition has this status and reason; the condition."""

        def found() -> Object | None:
            seen = condition(self.find("sqc", name), kind)
            return seen if (seen.get("status"), seen.get("reason")) == (status, reason) else None

        return self.wait(found, f"{kind}={status} {reason} of {name}")

    def wait(self, look: Callable[[], Any], what: str, *, deadline: float = DEADLINE) -> Any:
        """Wait until `look` gives something true; that."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(self.pause)
        state = self.kubectl("get", "sqc,secrets,events", "-o", "name", check=False).stdout
        conditions = [
            condition_line(c) for c in (self.find("sqc", "shop") or {}).get("status", {}).get("conditions", [])
        ]
        raise AssertionError(f"waited {deadline:g} s in vain for {what}\n{state}\n" + "\n".join(conditions))

    def find(self, kind: str, name: str) -> Object | None:
        """An object, or None."""
        # One request instead of a kubectl: what waits in a loop must not take the CPU from the operator it waits for.
        status, body = self.sandbox.control_plane.get(f"{_PATHS[kind].format(self.namespace)}/{name}")
        assert status in (200, 404), f"the API server answered {status} to a GET of {kind} {name}"
        return json.loads(body) if status == 200 else None

    def get(self, kind: str, name: str) -> Object:
        """An object that must be there."""
        found = self.find(kind, name)
        assert found is not None, f"{kind} {name} is not there"
        return found

    def token(self, name: str = "shop") -> str:
        """The token in a Secret."""
        return base64.b64decode(self.get("secret", name)["data"]["token"]).decode()

    def new_token(self, old: str, name: str = "shop") -> str:
        """Wait for another token than this one in a Secret."""

        def look() -> str | None:
            found = self.find("secret", name)
            data = (found or {}).get("data") or {}
            token = base64.b64decode(data.get("token", "")).decode(errors="replace")
            return token if token and token != old and self.accepts(token) == 200 else None

        return self.wait(look, f"a new token in {name}")

    def accepts(self, token: str) -> int:
        """The status with which the stand-in answers to a token, asked as an application would ask."""
        app = self.client_id.partition(":")[0]
        request = urllib.request.Request(
            f"{self.squidex.url}/api/apps/{app}", headers={"Authorization": f"Bearer {token}"}
        )
        handlers = (
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=http_client.trusting(self.squidex.ca_file)),
        )
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def token_requests(self, client_id: str | None = None) -> int:
        """How many token requests the stand-in has had for a client."""
        seen = self.squidex.state()["counts"]["token"]["byClient"].get(client_id or self.client_id, {})
        return sum(seen.values())

    def events(self, name: str = "shop") -> list[str]:
        """Reasons of the Kubernetes Events of a SquidexClient."""
        found = json.loads(self.kubectl("get", "events", "-o", "json").stdout)["items"]
        return [event["reason"] for event in found if event["involvedObject"]["name"] == name]

    def operator_requests(self, since: int, *, writes: bool = True) -> list[str]:
        """What the operator asked the API server for in this namespace since a mark: 'verb resource name'."""
        user = "system:serviceaccount:squidex-operator:squidex-operator"
        rows = self.sandbox.control_plane.requests_of(user, since=since)
        return [
            f"{row.verb} {row.resource} {row.name}"
            for row in rows
            if row.namespace == self.namespace and (row.is_write or not writes)
        ]

    def _named(self, body: Object) -> Object:
        return {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}


def condition(body: Object | None, kind: str) -> Object:
    """One condition of a SquidexClient; empty where it is not there."""
    conditions = ((body or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def condition_line(found: Object) -> str:
    """A condition as one line."""
    return f"{found['type']}={found['status']} {found['reason']}: {found['message']}"
