"""A restart costs nothing: no token request, no write, and few reads."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sandbox.operator_process import Operator
    from tests.e2e.world import World

COUNT = 200
SERVICE_ACCOUNT = "squidex-operator/squidex-operator"


@pytest.fixture
def many(world: World) -> World:
    """200 SquidexClients that are ready."""
    items = [world.manifest(f"c{number}") for number in range(COUNT)]
    world.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    world.kubectl("wait", "--for=condition=Ready", "sqc", "--all", "--timeout=60s")
    return world


def test_a_restart_with_200_ready_squidexclients_fetches_and_writes_nothing(many: World, operator: Operator) -> None:
    control_plane = many.sandbox.control_plane
    assert many.token_requests() == COUNT
    operator.stop()
    before = control_plane.request_counts()
    mark = control_plane.audit_mark()
    operator.start()
    # A SquidexClient that comes after the restart is served after all that were there.
    many.create("last")
    many.wait_ready("last")
    requests = [row for row in control_plane.requests_of(SERVICE_ACCOUNT, since=mark) if "last" not in row.name]
    # A create has no name in the audit log's reference: only the new target is created, and one event for it.
    writes = collections.Counter(f"{row.verb} {row.resource}" for row in requests if row.is_write and row.name)
    assert writes == {}
    assert many.token_requests() == COUNT + 1
    reads = [row for row in requests if not row.is_write and row.verb != "watch"]
    assert len(reads) <= 20, [f"{row.verb} {row.uri}" for row in reads]
    after = control_plane.request_counts()
    written = {key: after[key] - before[key] for key in after if key[0] in ("PATCH", "PUT", "DELETE", "APPLY")}
    # The new SquidexClient's status, and nothing else; its apply is the test's own.
    secrets = {key: count for key, count in written.items() if key[1] == "secrets" and count}
    assert secrets == {}


def test_a_change_made_while_the_operator_was_away_is_acted_on(world: World, operator: Operator) -> None:
    world.ready()
    world.create("deleted", target={"name": "deleted-token"})
    world.wait_ready("deleted")
    old = world.token()
    operator.stop()
    world.squidex.patch({"clients": {f"{world.namespace}:second": "s"}})
    world.set_credentials(f"{world.namespace}:second", "s")
    world.kubectl("delete", "secret", "deleted-token")
    operator.start()
    world.new_token(old)
    world.wait(lambda: world.find("secret", "deleted-token"), "the deleted target to come back")
    assert world.token_requests(f"{world.namespace}:second") == 2
