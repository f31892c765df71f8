"""The irreducible job, as a bare loop over raw aiohttp: what any operator has to do, and nothing else.

For each SquidexClient: GET the credentials, GET the target, POST for a token, probe it once, write the Secret, patch the
status. No watch, no queue, no checks, no renewal. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import json
import pathlib
import resource
import ssl
import time
from typing import Any

import aiohttp
import yaml


class Kube:
    """The API server over one aiohttp session."""

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.server = cluster["server"]
        self.context = ssl.create_default_context(cadata=ca)
        token = user.get("token") or pathlib.Path(user["tokenFile"]).read_text()
        self.headers = {"Authorization": f"Bearer {token.strip()}"}
        self.calls = 0
        self.session: Any = None

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """One request."""
        self.calls += 1
        data = None if body is None else json.dumps(body)
        headers = {**self.headers, "Content-Type": kind}
        async with self.session.request(method, self.server + path, data=data, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())


async def serve(kube: Kube, squidex: Any, found: dict[str, Any]) -> None:
    """The whole job for one SquidexClient."""
    metadata, spec = found["metadata"], found["spec"]
    namespace, name, url = metadata["namespace"], metadata["name"], spec["url"]
    _, secret = await kube.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{spec['credentialsSecretRef']['name']}")
    credentials = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    await kube.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials["clientId"],
        "client_secret": credentials["clientSecret"],
        "scope": spec["scope"],
    }
    async with squidex.post(f"{url}/identity-server/connect/token", data=form) as answer:
        granted = json.loads(await answer.read())
    bearer = {"Authorization": f"Bearer {granted['access_token']}"}
    async with squidex.get(f"{url}/api/apps/{credentials['clientId'].partition(':')[0]}", headers=bearer) as answer:
        await answer.read()
        accepted = answer.status == 200
    expires = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=granted["expires_in"])).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = {"token": granted["access_token"], "tokenType": "Bearer", "expiresAt": expires, "url": url}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager=bare&force=true"
    await kube.call("PATCH", path, body, "application/apply-patch+yaml")
    status = {
        "status": {"expiresAt": expires, "observedGeneration": metadata["generation"], "failures": 0 if accepted else 1}
    }
    path = f"/apis/squidex-operator.io/v1beta1/namespaces/{namespace}/squidexclients/{name}/status"
    await kube.call("PATCH", path, status, "application/merge-patch+json")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The job for all SquidexClients, on so many at once."""
    kube = Kube(options.kubeconfig)
    trusted = ssl.create_default_context(cafile=str(options.squidex_ca))
    connector = aiohttp.TCPConnector(limit=options.concurrency, ssl=kube.context)
    other = aiohttp.TCPConnector(limit=options.concurrency, ssl=trusted)
    async with (
        aiohttp.ClientSession(connector=connector) as kube.session,
        aiohttp.ClientSession(connector=other) as squidex,
    ):
        _, listed = await kube.call("GET", "/apis/squidex-operator.io/v1beta1/squidexclients")
        waiting = list(reversed(listed["items"]))
        count = len(waiting)

        async def work() -> None:
            while waiting:
                await serve(kube, squidex, waiting.pop())

        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(options.concurrency)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "count": count,
        "concurrency": options.concurrency,
        "seconds": seconds,
        "rate": count / seconds,
        "cpu_ms": cpu / count * 1000,
        "calls": kube.calls / count,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=pathlib.Path, required=True)
    parser.add_argument("--squidex-ca", type=pathlib.Path, required=True)
    parser.add_argument("--concurrency", type=int, default=32)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
