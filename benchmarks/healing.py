"""How long it takes until what went wrong is right again."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks import measure
from benchmarks.bed import API, FAST, NAMESPACES, Bed
from squidex_operator import settings

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULTS = settings.Settings()
ROTATIONS = 100


def targets(bed: Bed, times: int = 100) -> dict[str, Any]:
    """Targets deleted and damaged, one after the other."""
    back, mended = zip(*(_target(bed, turn % bed.count) for turn in range(times)), strict=True)
    return measure.percentiles("deleted", back) | measure.percentiles("damaged", mended)


def _target(bed: Bed, number: int) -> tuple[float, float]:
    """Delete one target, and damage it when it is back: how long until all was right again, each time."""
    path = f"/api/v1/namespaces/bench-{number % NAMESPACES}/secrets/c{number}"
    old = bed.kube("GET", path)["metadata"]["uid"]
    began = time.perf_counter()
    bed.kube("DELETE", path)
    _until(bed, path, lambda found: found["metadata"].get("uid", old) != old)
    back = time.perf_counter() - began
    damaged = base64.b64encode(b"damaged").decode()
    began = time.perf_counter()
    bed.kube("PATCH", path, {"data": {"token": damaged}}, "application/merge-patch+json")
    _until(bed, path, lambda found: found["data"]["token"] != damaged)
    return back, time.perf_counter() - began


def targets_while_filling(bed: Bed) -> dict[str, Any]:
    """The same, while a thousand more SquidexClients get their first token."""
    before = bed.tokens()
    bed.create([bed.client(number, "d") for number in range(1000)])
    figures = targets(bed, times=30)
    still = bed.tokens() < before + 1000
    measure.wait(lambda: bed.tokens() >= before + 1000, "all tokens")
    for number in range(NAMESPACES):
        selector = ",".join(f"metadata.name!=c{each}" for each in range(number, bed.count, NAMESPACES))
        bed.kube("DELETE", f"{API}/namespaces/bench-{number}/squidexclients?fieldSelector={selector}")
    measure.settle(bed.pid)
    return figures | {"still_filling_at_the_end": still}


def rotation(bed: Bed) -> dict[str, Any]:
    """A credentials Secret is changed: until the new token is in each of the targets that use it, and in the last of them."""
    clients = list(bed.sandbox.squidex.clients.items())
    each, last = [], []
    for turn in range(ROTATIONS):
        space = f"/api/v1/namespaces/bench-{turn % NAMESPACES}/secrets"
        client_id, secret = clients[(turn // NAMESPACES + 1) % len(clients)]
        data = {
            "clientId": base64.b64encode(client_id.encode()).decode(),
            "clientSecret": base64.b64encode(secret.encode()).decode(),
        }
        old = _tokens(bed, space)
        began = time.perf_counter()
        bed.kube("PATCH", f"{space}/credentials", {"data": data}, "application/merge-patch+json")
        while old:
            now, passed = _tokens(bed, space), time.perf_counter() - began
            renewed = [name for name, token in old.items() if now[name] != token]
            each += [passed] * len(renewed)
            for name in renewed:
                del old[name]
            if passed > 60:
                raise TimeoutError("credentials were changed, and not all targets within a minute")
        last.append(each[-1])
    return (
        measure.percentiles("rotated", each) | measure.percentiles("last", last) | {"targets": bed.count / NAMESPACES}
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


def _until(bed: Bed, path: str, done: Callable[[dict[str, Any]], bool]) -> None:
    measure.wait(lambda: done(bed.kube("GET", path)), f"{path}, mended,", deadline=60, pause=0)


def _tokens(bed: Bed, space: str) -> dict[str, str]:
    """What is in the targets of a namespace, without the credentials."""
    found = bed.kube("GET", space)
    return {
        item["metadata"]["name"]: json.dumps(item["data"]["token"])
        for item in found["items"]
        if "token" in (item.get("data") or {})
    }
