"""Who uses the token: curl, httpx and the official Squidex SDK for Node, with the recipes of docs/guides/consume.md."""

from __future__ import annotations

import asyncio
import runpy
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox.standin import Squidex
from tests.e2e.consumers import CONSUMERS, OWN_WAY, Httpx, Mount, NodeSdk, recipe
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

SHORT, LONG = 6, 3600
"""Lifetimes in seconds: one to see a renewal, one to see none."""


@pytest.fixture(scope="module")
def squidex(sandbox: Sandbox) -> Iterator[Squidex]:
    """A stand-in of our own: its key is replaced, which would concern the tokens of all others."""
    started = Squidex(sandbox.home, name="squidex-consumers", extra_args=[f"--lifetime={LONG}"])
    started.start()
    yield started
    started.program.kill()


@pytest.fixture
def shop(operator: Operator, sandbox: Sandbox, squidex: Squidex, request: pytest.FixtureRequest) -> Iterator[World]:
    """A namespace whose SquidexClients are of that stand-in, for the app that the guide is about."""
    squidex.patch({"counts": None, "lifetime": LONG})
    world = World(sandbox, squidex, f"consumers{abs(hash(request.node.nodeid)) % 10**9}")
    world.client_id = "shop:default"
    world.set_up()
    yield world
    world.tear_down()


@pytest.fixture
def mount(shop: World, tmp_path: Path) -> Callable[[str], Path]:
    """Show a token where a pod has the Secret; that folder."""
    made = Mount(tmp_path / "squidex")

    def show(token: str) -> Path:
        made.show(token=token, url=shop.squidex.url)
        return made.folder

    return show


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_the_recipe_follows_the_mounted_token_through_a_renewal_and_a_replaced_key(
    consumer: str, shop: World, mount: Callable[[str], Path]
) -> None:
    shop.squidex.patch({"lifetime": SHORT})
    shop.ready()
    first = shop.token()
    application = CONSUMERS[consumer](mount(first), shop.squidex.ca_file)
    try:
        assert application.call() == "shop"

        shop.squidex.patch({"lifetime": LONG})
        second = shop.new_token(first)
        mount(second)
        shop.wait(lambda: shop.accepts(first) == 401, "the first token to expire")
        assert application.call() == "shop"

        shop.squidex.patch({"key": "replace"})
        # The kubelet has not caught up yet.
        assert application.call() == 401
        mount(shop.new_token(second))
        assert application.call() == "shop"
        assert application.call() == "shop"
    finally:
        application.end()
    # Nobody but the operator has asked for a token, once for each reason.
    assert shop.squidex.state()["counts"]["token"]["byClient"] == {shop.client_id: {"200": 3}}


def test_the_recipe_for_httpx_runs_as_it_stands(
    shop: World, mount: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop.ready()
    script = tmp_path / "application.py"
    script.write_text(recipe("Python, httpx", "python", mount(shop.token())))
    # As the guide says for a CA of one's own.
    monkeypatch.setenv("SSL_CERT_FILE", str(shop.squidex.ca_file))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    runpy.run_path(str(script), run_name="__main__")
    assert "'name': 'shop'" in capsys.readouterr().out


def test_the_recipe_for_httpx_asks_again_where_the_token_was_replaced_meanwhile(
    shop: World, mount: Callable[[str], Path]
) -> None:
    """And only there; with the asynchronous client as well."""
    shop.ready()
    good, bad = shop.token(), "a.dead.token"
    application = Httpx(mount(bad), shop.squidex.ca_file)
    seen: list[int] = []

    def replace(answer: httpx.Response) -> None:
        seen.append(answer.status_code)
        mount(good)

    async def replace_async(answer: httpx.Response) -> None:
        replace(answer)

    async def ask_async() -> int:
        hooks = {"response": [replace_async]}
        auth = application.names["MountedToken"]()
        async with httpx.AsyncClient(**application.settings, auth=auth, event_hooks=hooks) as client:
            return (await client.get("/api/apps/shop")).status_code

    try:
        application.client.event_hooks = {"response": [replace]}
        assert application.call() == "shop"
        assert seen == [401, 200]
        mount(bad)
        seen.clear()
        assert asyncio.run(ask_async()) == 200
        assert seen == [401, 200]

        mount(bad)
        seen.clear()
        application.client.event_hooks = {"response": [lambda answer: seen.append(answer.status_code)]}
        assert application.call() == 401
        assert seen == [401]
    finally:
        application.end()


def test_the_sdks_answers_are_read_whole_with_the_mounted_token(shop: World, mount: Callable[[str], Path]) -> None:
    shop.ready()
    application = NodeSdk(mount(shop.token()), shop.squidex.ca_file)
    try:
        answer = application.answer()
        assert answer["app"] == "shop"
        assert {"de", "en"} <= set(answer["languages"])
    finally:
        application.end()


@pytest.fixture
def left_to_itself(shop: World, tmp_path: Path) -> Iterator[Callable[[str], NodeSdk]]:
    """The SDK as its own documentation has it, with a secret."""
    started: list[NodeSdk] = []

    def start(secret: str) -> NodeSdk:
        env = {"URL": shop.squidex.url, "CLIENT_ID": shop.client_id, "CLIENT_SECRET": secret}
        started.append(NodeSdk(tmp_path, shop.squidex.ca_file, text=OWN_WAY, env=env))
        return started[-1]

    yield start
    for application in started:
        application.end()


def test_the_sdk_left_to_itself_keeps_a_dead_token(shop: World, left_to_itself: Callable[[str], NodeSdk]) -> None:
    """Why the guide has a recipe for it. It works with the stand-in, else the tests above would say little."""
    application = left_to_itself(shop.client_secret)
    assert application.call() == "shop"
    assert application.call() == "shop"
    counts = shop.squidex.state()["counts"]["token"]
    asked = counts["byClient"][shop.client_id]["200"]
    assert sorted(counts["lastRequest"]["parameters"]) == ["client_id", "client_secret", "grant_type", "scope"]

    shop.squidex.patch({"key": "replace"})
    assert [application.call() for _ in range(3)] == [401, 401, 401]
    assert shop.squidex.state()["counts"]["token"]["byClient"][shop.client_id]["200"] == asked
    assert left_to_itself(shop.client_secret).call() == "shop"
    # A wrong secret is told from a wrong token.
    assert left_to_itself("wrong").call() == 401
