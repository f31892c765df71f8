"""The irreducible job, as a bare loop over raw aiohttp: what any operator has to do, and nothing else.

For each SquidexClient: GET the credentials, GET the target, POST for a token, probe it once, write the Secret, patch the
status. No watch, no queue, no checks, no renewal. Prints one JSON line.

With `--whole` it writes what the operator writes, a Secret with all its metadata and a status with all conditions, while both
kinds are watched: what the API server then spends is what it spends on any operator that keeps this contract.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime as dt
import json
import pathlib
import resource
import ssl
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml

from squidex_operator.api import names, reasons

if TYPE_CHECKING:
    from collections.abc import Sequence

API = f"/apis/{names.API_VERSION}"


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


async def serve(kube: Kube, squidex: Any, found: dict[str, Any], *, whole: bool) -> None:
    """The whole job for one SquidexClient."""
    metadata, spec = found["metadata"], found["spec"]
    namespace, name, url = metadata["namespace"], metadata["name"], spec["url"]
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    _, secret = await kube.call("GET", f"{secrets}/{spec['credentialsSecretRef']['name']}")
    credentials = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    await kube.call("GET", f"{secrets}/{name}")
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
    status = {"expiresAt": expires, "observedGeneration": metadata["generation"], "failures": 0 if accepted else 1}
    patch = {"status": status}
    if whole:
        body |= {"type": "Opaque", "metadata": body["metadata"] | target_metadata(metadata, expires)}
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status | whole_status(name, expires)}
        done, answer = await kube.call("POST", f"{secrets}?fieldManager={names.FIELD_MANAGER}", body)
    else:
        path = f"{secrets}/{name}?fieldManager={names.FIELD_MANAGER}&force=true"
        done, answer = await kube.call("PATCH", path, body, "application/apply-patch+yaml")
    if done >= 300:
        raise RuntimeError(f"Secret {name} was not written: {answer.get('message')}")
    path = f"{API}/namespaces/{namespace}/{names.PLURAL}/{name}/status"
    done, answer = await kube.call("PATCH", path, patch, "application/merge-patch+json")
    if done >= 300:
        raise RuntimeError(f"the status of {name} was not written: {answer.get('message')}")


def target_metadata(metadata: dict[str, Any], expires: str) -> dict[str, Any]:
    """What else the operator writes to a target Secret, in the same number of bytes."""
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": metadata["name"], "uid": metadata["uid"]}
    annotations = {
        names.ANNOTATION_CLIENT_UID: metadata["uid"],
        names.ANNOTATION_ISSUED_AT: expires,
        names.ANNOTATION_EXPIRES_AT: expires,
        names.ANNOTATION_KEY_ID: "k" * 40,
        names.ANNOTATION_INPUTS_HASH: "0" * 64,
        names.ANNOTATION_DATA_HASH: "0" * 64,
    }
    labels = {names.LABEL_ROLE: names.ROLE_TOKEN, names.LABEL_MANAGED_BY: names.MANAGED_BY}
    return {"labels": labels, "annotations": annotations, "ownerReferences": [owner | {"controller": True}]}


def whole_status(name: str, expires: str) -> dict[str, Any]:
    """What else the operator writes to a status."""
    conditions = [
        {
            "type": str(kind),
            "status": "True",
            "reason": "TokenValid",
            "message": f"Secret '{name}' holds a token valid until {expires}.",
            "lastTransitionTime": expires,
            "observedGeneration": 1,
        }
        for kind in reasons.ConditionType
    ]
    times = dict.fromkeys(("issuedAt", "lastRefreshTime", "nextRefreshTime"), expires)
    target = {"target": {"name": name}, "binding": {"name": name}}
    return {"conditions": conditions, "keyID": "k" * 40, "lastRefreshReason": "FirstToken"} | times | target


async def watch(kube: Kube, path: str, version: str) -> None:
    """Take what a watch brings, and do nothing with it."""
    url = f"{kube.server}{path}watch=true&resourceVersion={version}"
    async with kube.session.get(url, headers=kube.headers, timeout=aiohttp.ClientTimeout(total=None)) as answer:
        async for _ in answer.content.iter_any():
            pass


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The job for all SquidexClients, on so many at once."""
    kube = Kube(options.kubeconfig)
    trusted = ssl.create_default_context(cafile=str(options.squidex_ca))
    connector = aiohttp.TCPConnector(limit=options.concurrency + 2, ssl=kube.context)  # and two watches
    other = aiohttp.TCPConnector(limit=options.concurrency, ssl=trusted)
    async with (
        aiohttp.ClientSession(connector=connector) as kube.session,
        aiohttp.ClientSession(connector=other) as squidex,
    ):
        _, listed = await kube.call("GET", f"{API}/{names.PLURAL}")
        version = listed["metadata"]["resourceVersion"]
        watched = (
            (f"{API}/{names.PLURAL}?", f"/api/v1/secrets?labelSelector={names.LABEL_ROLE}&") if options.whole else ()
        )
        watches = [asyncio.create_task(watch(kube, path, version)) for path in watched]
        figures = await serve_all(kube, squidex, listed["items"], options)
        for task in watches:
            if task.done():
                task.result()  # it broke: what was measured is not what it says
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return figures


async def serve_all(kube: Any, squidex: Any, clients: Sequence[Any], options: argparse.Namespace) -> dict[str, Any]:
    """The job for each, and what it cost."""
    waiting = list(reversed(clients))

    async def work() -> None:
        while waiting:
            await serve(kube, squidex, waiting.pop(), whole=options.whole)

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(options.concurrency)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "count": len(clients),
        "concurrency": options.concurrency,
        "seconds": seconds,
        "rate": len(clients) / seconds,
        "cpu_ms": cpu / len(clients) * 1000,
        "calls": kube.calls / len(clients),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def parse(description: str | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kubeconfig", type=pathlib.Path, required=True)
    parser.add_argument("--squidex-ca", type=pathlib.Path, required=True)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--whole", action="store_true", help="write all that the operator writes, and watch")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(parse(__doc__)))))
