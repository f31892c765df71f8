"""How long it takes until what went wrong is right again."""

from __future__ import annotations

import base64
import concurrent.futures
import itertools
import time
from typing import Any

from benchmarks import measure
from benchmarks.bed import API, FAST, NAMESPACES, Bed, named
from squidex_operator import settings
from squidex_operator.api import names

DEFAULTS = settings.Settings()
_TARGETS = f"{names.LABEL_ROLE}%3D{names.ROLE_TOKEN}"
ROTATIONS = 100
LONELY = 25
"""SquidexClients with credentials of their own: each is rotated four times, and may fetch ten tokens at once."""


def targets(bed: Bed, times: int = 100) -> dict[str, Any]:
    """Targets deleted and damaged, one after the other."""
    back, mended = zip(*(_target(bed, turn % bed.count) for turn in range(times)), strict=True)
    return measure.percentiles("deleted", back) | measure.percentiles("damaged", mended)


def _target(bed: Bed, number: int) -> tuple[float, float]:
    """Delete one target, and damage it when it is back: how long until all was right again, each time."""
    space, name = f"/api/v1/namespaces/bench-{number % NAMESPACES}/secrets", f"c{number}"
    path = f"{space}/{name}"
    with bed.watching(space, _named(name)) as seen:
        old = next(seen)["metadata"]["uid"]
        began = time.perf_counter()
        bed.kube("DELETE", path)
        next(body for body in seen if body["metadata"]["uid"] != old)
        back = time.perf_counter() - began
        damaged = base64.b64encode(b"damaged").decode()
        began = time.perf_counter()
        bed.kube("PATCH", path, {"data": {"token": damaged}}, "application/merge-patch+json")
        next(body for body in seen if body["data"]["token"] != damaged)
        return back, time.perf_counter() - began


def targets_while_filling(bed: Bed) -> dict[str, Any]:
    """The same, while as many SquidexClients again are made and get their first token."""
    before = bed.tokens()
    back, mended = [], []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(bed.create_clients, "d")
        # Some of the tokens are of these turns themselves: it ends a little before the last new one.
        while not made.done() or bed.tokens() < before + bed.count:
            each = _target(bed, len(back) % bed.count)
            back.append(each[0])
            mended.append(each[1])
        made.result()
    for number in range(NAMESPACES):
        selector = ",".join(f"metadata.name!=c{each}" for each in range(number, bed.count, NAMESPACES))
        bed.kube("DELETE", f"{API}/namespaces/bench-{number}/squidexclients?fieldSelector={selector}")
    _collected(bed)
    return measure.percentiles("deleted", back) | measure.percentiles("damaged", mended) | {"turns": len(back)}


def rotation(bed: Bed) -> dict[str, Any]:
    """A credentials Secret that one SquidexClient uses is changed: until the new token is in its target."""
    lonely = [named(f"lonely{number}", f"bench-{number}") for number in range(LONELY)]
    before, items = bed.tokens(), []
    for number, metadata in enumerate(lonely):
        secret = {"apiVersion": "v1", "kind": "Secret", "data": _credentials(bed, 0)}
        secret["metadata"] = metadata | {"labels": {names.LABEL_ROLE: names.ROLE_CREDENTIALS}}
        client = bed.client(number, "lonely")
        client["spec"]["credentialsSecretRef"] = {"name": metadata["name"]}
        # The target's name is the SquidexClient's, which the credentials have already.
        client["spec"]["target"] = {"name": f"{metadata['name']}-token"}
        items += [secret, client]
    bed.create(items)
    measure.wait(lambda: bed.tokens() >= before + LONELY, "all tokens")
    measure.settle(bed.pid)
    seconds = [_rotation(bed, lonely[turn % LONELY], turn // LONELY + 1) for turn in range(ROTATIONS)]
    for metadata in lonely:
        bed.kube("DELETE", f"{API}/namespaces/{metadata['namespace']}/squidexclients/{metadata['name']}")
        bed.kube("DELETE", f"/api/v1/namespaces/{metadata['namespace']}/secrets/{metadata['name']}")
    _collected(bed)
    return measure.percentiles("rotated", seconds)


def _rotation(bed: Bed, metadata: dict[str, Any], turn: int) -> float:
    space = f"/api/v1/namespaces/{metadata['namespace']}/secrets"
    changed = {"data": _credentials(bed, turn)}
    with bed.watching(space, _named(f"{metadata['name']}-token")) as seen:
        old = next(seen)["data"]["token"]
        began = time.perf_counter()
        bed.kube("PATCH", f"{space}/{metadata['name']}", changed, "application/merge-patch+json")
        next(body for body in seen if body["data"]["token"] != old)
        return time.perf_counter() - began


def rotation_of_many(bed: Bed) -> dict[str, Any]:
    """The same for a Secret that many use: until each of the targets has its new token, and the last of them."""
    each, last = [], []
    for turn in range(ROTATIONS):
        space = f"/api/v1/namespaces/bench-{turn % NAMESPACES}/secrets"
        changed = {"data": _credentials(bed, turn // NAMESPACES + 1)}
        with bed.watching(space, f"labelSelector={_TARGETS}") as seen:
            old = {
                body["metadata"]["name"]: body["data"]["token"]
                for body in itertools.islice(seen, bed.count // NAMESPACES)
            }
            began = time.perf_counter()
            bed.kube("PATCH", f"{space}/credentials", changed, "application/merge-patch+json")
            while old:
                body = next(seen)
                if old.get(body["metadata"]["name"], body["data"]["token"]) != body["data"]["token"]:
                    del old[body["metadata"]["name"]]
                    each.append(time.perf_counter() - began)
        last.append(each[-1])
    return (
        measure.percentiles("rotated", each) | measure.percentiles("last", last) | {"targets": bed.count // NAMESPACES}
    )


def keys(bed: Bed) -> dict[str, Any]:
    """The server's key is replaced: all tokens die, one list of keys tells, and the host's bucket says how fast."""
    bed.stop()
    operator = bed.start("--keys-interval=2s")
    measure.wait(lambda: bed.ready(operator) >= bed.count, "all ready", pause=0.5)
    measure.settle(bed.pid)
    before = bed.tokens()
    began = time.monotonic()
    bed.sandbox.squidex.patch({"key": "replace"})
    measure.wait(lambda: bed.tokens() > before, "the first new token", pause=0.01)
    detected = time.monotonic() - began
    seconds = measure.wait(lambda: bed.tokens() >= before + bed.count, "all new tokens")
    measure.settle(bed.pid)
    figures = {
        "detected_seconds": detected,
        "seconds": seconds,
        "bucket_seconds": max(bed.count - DEFAULTS.host_burst, 0) / DEFAULTS.host_rate,
        "token_requests": (bed.tokens() - before) / bed.count,
    }
    bed.stop()
    bed.start(*FAST)
    return figures


def _credentials(bed: Bed, turn: int) -> dict[str, str]:
    """The data of a credentials Secret: another client of the stand-in at each turn."""
    clients = list(bed.sandbox.squidex.clients.items())
    client_id, secret = clients[turn % len(clients)]
    return {
        "clientId": base64.b64encode(client_id.encode()).decode(),
        "clientSecret": base64.b64encode(secret.encode()).decode(),
    }


def _collected(bed: Bed) -> None:
    """Wait until the targets of SquidexClients that were deleted are gone, and nobody has anything to do."""
    path = f"/api/v1/secrets?labelSelector={_TARGETS}"
    measure.wait(lambda: len(bed.kube("GET", path)["items"]) == bed.count, "the targets of others to go", pause=1)
    measure.settle(bed.pid)


def _named(name: str) -> str:
    return f"fieldSelector=metadata.name%3D{name}"
