"""What it costs when nothing happens: no write and no token request, by the API server's and the stand-in's own counts."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator
    from tests.e2e.world import World

COUNT = 30
"""SquidexClients, whose probes, a minute apart, are spread so that one comes every other second."""

AN_HOUR = {"jwks": 12, "probe": 6}
"""What an hour brings with the default intervals, here in seconds: a check of the keys each five minutes; and more probes than
one SquidexClient has in it."""

LISTS = 6
"""And a list of both kinds each ten minutes."""

BURST = 1000

_CONNECTIONS = 4

GROWTH = 8 * 1024 * 1024
"""Bytes: of a process of about 90 MiB."""

_ACCOUNT = "squidex-operator/squidex-operator"


@pytest.fixture(scope="module")
def quiet(sandbox: Sandbox) -> Iterator[Operator]:
    """An operator that asks for keys and lists everything each second."""
    operator = sandbox.start_operator(extra_args=["--keys-interval=1s", "--relist-interval=1s"])
    yield operator
    operator.stop()


@pytest.fixture
def many(empty_world: World, quiet: Operator) -> World:
    """SquidexClients that are ready."""
    world = empty_world
    items = [world.manifest(f"c{number}", probe={"interval": "1m"}) for number in range(COUNT)]
    world.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    world.kubectl("wait", "--for=condition=Ready", "sqc", "--all", "--timeout=60s")
    assert world.token_requests() == COUNT
    return world


def test_checks_and_probes_and_lists_write_nothing_and_fetch_nothing(many: World, quiet: Operator) -> None:
    # After a restart the probes are spread.
    quiet.stop()
    control_plane = many.sandbox.control_plane
    mark, before = control_plane.audit_mark(), _writes(many)
    counts = many.squidex.state()["counts"]
    quiet.start()

    def is_enough() -> bool:
        now = many.squidex.state()["counts"]
        if any(now[what]["total"] - counts[what]["total"] < number for what, number in AN_HOUR.items()):
            return False
        lists = sum(row.verb == "list" for row in control_plane.requests_of(_ACCOUNT, since=mark))
        return lists >= 2 * LISTS

    many.wait(is_enough, "the checks, probes and lists of an hour", deadline=120)
    requests = control_plane.requests_of(_ACCOUNT, since=mark)
    assert [f"{row.verb} {row.uri}" for row in requests if row.is_write] == []
    assert _writes(many) == before
    assert many.token_requests() == COUNT


def test_a_burst_of_foreign_status_writes_is_neither_answered_nor_kept(many: World, quiet: Operator) -> None:
    # Probes reconcile, and a reconcile corrects a status: this is about what the writes alone do.
    many.kubectl(
        "patch",
        "sqc",
        *(f"c{number}" for number in range(COUNT)),
        "--type=merge",
        "-p",
        '{"spec":{"probe":{"mode":"Off"}}}',
    )

    def is_reported() -> bool:
        _, body = many.sandbox.control_plane.get(
            f"/apis/squidex-operator.io/v1beta1/namespaces/{many.namespace}/squidexclients"
        )
        items = json.loads(body)["items"]
        return all(item["status"].get("observedGeneration") == item["metadata"]["generation"] for item in items)

    many.wait(is_reported, "the edits to be reported")
    _burst(many, BURST // 10)
    many.ready("warm")
    mark, memory = many.sandbox.control_plane.audit_mark(), _memory(quiet)
    _burst(many, BURST)
    # What comes later is served after all of that was seen.
    many.ready("last")
    assert [row for row in many.operator_requests(mark) if not row.endswith((" ", " last"))] == []
    assert many.operator_requests(mark).count("create secrets ") <= 1
    assert many.token_requests() == COUNT + 2
    assert _memory(quiet) - memory < GROWTH


def _writes(world: World) -> Counter[tuple[str, str, str]]:
    """What the API server itself counts, of all users together."""
    counts = world.sandbox.control_plane.request_counts()
    for key in list(counts):
        if key[0] in ("GET", "LIST", "WATCH") or key[1].split("/")[0] not in ("secrets", "squidexclients", "events"):
            del counts[key]
    return counts


def _memory(operator: Operator) -> float:
    lines = operator.get("/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes "))


def _burst(world: World, count: int) -> None:
    """Write to the status of all SquidexClients in turn, as somebody else does, on a few connections."""
    with concurrent.futures.ThreadPoolExecutor(_CONNECTIONS) as pool:
        for part in [
            pool.submit(_write_statuses, world, range(start, count, _CONNECTIONS)) for start in range(_CONNECTIONS)
        ]:
            part.result()


def _write_statuses(world: World, numbers: range) -> None:
    control_plane = world.sandbox.control_plane
    base = f"/apis/squidex-operator.io/v1beta1/namespaces/{world.namespace}/squidexclients"
    connection = http.client.HTTPSConnection("127.0.0.1", control_plane.port, context=control_plane.admin_context)
    headers = {"Content-Type": "application/merge-patch+json"}
    for number in numbers:
        body = json.dumps({"status": {"failures": number + 1}})
        connection.request("PATCH", f"{base}/c{number % COUNT}/status", body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    connection.close()
