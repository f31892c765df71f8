"""docs/troubleshooting.md shows what kubectl really says: every block that it has is made for real, or rendered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox.standin import Squidex
from squidex_operator.api import reasons
from tests.e2e import troubles
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

Trouble = troubles.Trouble
MADE_HERE = [*troubles.AT_ONCE, *troubles.WITH_A_TOKEN, *troubles.AT_LAST]


@pytest.fixture(scope="module")
def page() -> dict[str, list[troubles.Block]]:
    return troubles.blocks()


def start(world: World, chosen: list[Trouble]) -> None:
    world.squidex.patch({"clients": {f"{trouble.name}:default": "secret" for trouble in chosen}})
    world.squidex.patch(
        {
            "faults": troubles.faults(chosen),
            "roles": {f"{t.name}:default": "" for t in chosen if t.section == "AppNotFound"},
        }
    )
    world.apply(*(body for trouble in chosen for body in troubles.objects(world, trouble)))


def differences(world: World, page: dict[str, list[troubles.Block]], chosen: list[Trouble]) -> dict[str, object]:
    """Where the page says anything else than kubectl."""
    found: dict[str, object] = {}
    for trouble in chosen:
        kind, status, reason = trouble.awaited
        rival = ("rival",) if trouble.name == "targetnotowned1" else ()
        world.wait_condition(kind, status, reason, name=rival[0] if rival else trouble.name)
        real, shown = troubles.seen(world, trouble, others=rival), page[trouble.section][trouble.block]
        if real.rows != shown.rows or not {*shown.conditions} <= {*real.conditions}:
            found[trouble.name] = {"kubectl": real, "page": shown}
    return found


@pytest.fixture
def place(sandbox: Sandbox, operator: Operator) -> Iterator[World]:
    """A namespace with a stand-in of its own: what goes wrong here is no other test's business."""
    squidex = Squidex(sandbox.home, name="troubles")
    squidex.start()
    world = World(sandbox, squidex, "troubles")
    world.set_up()
    yield world
    world.tear_down()
    squidex.program.stop()


def test_the_page_shows_what_kubectl_says(place: World, page: dict[str, list[troubles.Block]]) -> None:
    place.apply(foreign_secret("targetnotowned0"))
    start(place, [*troubles.AT_ONCE, *troubles.WITH_A_TOKEN])
    wrong = differences(place, page, troubles.AT_ONCE)
    described = place.kubectl("describe", "sqc", "invalidclient0").stdout
    for trouble in troubles.WITH_A_TOKEN[:-1]:
        place.wait_ready(trouble.name)
    place.squidex.patch({"faults": troubles.faults(troubles.WITH_A_TOKEN, later=True)})
    spoil(place)
    wrong |= differences(place, page, troubles.WITH_A_TOKEN)

    start(place, troubles.AT_LAST[:1])
    place.wait_ready(troubles.AT_LAST[0].name)
    place.squidex.patch({"faults": troubles.faults(troubles.AT_LAST, later=True), "key": "replace"})
    wrong |= differences(place, page, troubles.AT_LAST[:1])
    start(place, troubles.AT_LAST[1:])
    wrong |= differences(place, page, troubles.AT_LAST[1:])
    assert wrong == {}
    status = described[described.index("Status:\n") :]
    assert [troubles.normalised(line) for line in status.splitlines()] == troubles.described()


def foreign_secret(name: str) -> troubles.Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "troubles"}}


def spoil(world: World) -> None:
    """What people do to those that have a token."""
    world.set_credentials("invalidclient1:default", "wrong", name="invalidclient1-credentials")
    world.create("rival", target={"name": "targetnotowned1"})
    body = {**foreign_secret("targetconflict0"), "data": {"tokenType": "eA=="}}
    mine = ("--server-side", "--force-conflicts", "--field-manager=my-gitops")
    world.kubectl("apply", *mine, "-f", "-", text=json.dumps(body))
    world.kubectl("patch", "secret", "targetrefused1", "-p", '{"immutable":true}')
    for name in ("targetrefused1", "servererror1"):
        world.squidex.patch({"clients": {f"{name}:default": "rotated"}})
        world.set_credentials(f"{name}:default", "rotated", name=f"{name}-credentials")
    url = json.dumps({"spec": {"url": f"{world.squidex.url}/cms"}})
    world.kubectl("patch", "sqc", "notsquidex2", "--type=merge", "-p", url)


def test_the_page_shows_what_a_quota_does(world: World, page: dict[str, list[troubles.Block]]) -> None:
    trouble = Trouble("TargetRefused")
    secret, client = troubles.objects(world, trouble)
    world.squidex.patch({"clients": {f"{trouble.name}:default": "secret"}})
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": world.namespace}}
    world.apply(secret, {**quota, "spec": {"hard": {"count/secrets": "2"}}})
    path = f"/api/v1/namespaces/{world.namespace}/resourcequotas/q"

    def is_counted() -> bool:
        body = json.loads(world.sandbox.control_plane.get(path)[1])
        return bool(body.get("status", {}).get("used") == {"count/secrets": "2"})

    world.wait(is_counted, "the quota to be counted")
    world.apply(client)
    assert differences(world, page, [trouble]) == {}


@pytest.mark.parametrize("reason", ["Timeout", "InvalidSpec", "KubernetesError"])
def test_the_page_shows_what_the_code_writes(reason: str, page: dict[str, list[troubles.Block]]) -> None:
    (shown,) = page[reason]
    real = troubles.rendered()[reason]
    assert shown.rows == real.rows
    assert set(shown.conditions) <= set(real.conditions)
    assert shown.conditions


def test_the_page_quotes_what_the_code_writes() -> None:
    quoted = troubles.quoted()
    assert len(quoted) > 8
    assert quoted - {line for block in troubles.rendered().values() for line in block.conditions} == set()


def test_every_block_of_the_page_is_looked_at(page: dict[str, list[troubles.Block]]) -> None:
    made = {(trouble.section, trouble.block) for trouble in MADE_HERE} | {("TargetRefused", 0)}
    rendered = {(reason, 0) for reason in troubles.rendered()}
    assert {(title, number) for title, found in page.items() for number in range(len(found))} <= made | rendered
    assert all(block.conditions for found in page.values() for block in found)


def test_every_reason_has_a_section_with_what_it_says(page: dict[str, list[troubles.Block]]) -> None:
    shown = {line for found in page.values() for block in found for line in block.conditions} | troubles.quoted()
    assert set(reasons.Reason) - {line.partition(" ")[2].partition(":")[0] for line in shown} == set()
