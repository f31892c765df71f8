"""What Kopf is asked to do: watch, and nothing else."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from typing import TYPE_CHECKING, Any

import kopf
import pytest
from kopf._cogs.structs import credentials, references

from squidex_operator import handlers
from squidex_operator.api import names
from squidex_operator.kube import access
from tests.unit.kube import apiserver

if TYPE_CHECKING:
    import pathlib


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None, str]] = []

    def client_event(self, kind: str | None, body: dict[str, Any]) -> None:
        self.told.append(("client", kind, body["metadata"]["name"]))

    def secret_event(self, kind: str | None, body: dict[str, Any]) -> None:
        self.told.append(("secret", kind, body["metadata"]["name"]))


def build() -> kopf.OperatorSettings:
    return handlers.build_settings(inactivity=dt.timedelta(seconds=70))


def resource(group: str, version: str, plural: str) -> references.Resource:
    return references.Resource(group, version, plural)


SECRETS = resource("", "v1", "secrets")
CLIENTS = resource(names.GROUP, names.VERSION, names.PLURAL)


def test_only_secrets_with_a_role_are_watched() -> None:
    # Kopf's own lookup, as its watch does it: a key of another form would select nothing, and watch every Secret.
    selectors = build().watching.label_selectors
    assert list(selectors.collect(SECRETS)) == [names.LABEL_ROLE]
    assert list(selectors.collect(CLIENTS)) == []


def test_there_are_no_handlers_but_for_events_and_the_login() -> None:
    registry = handlers.build_registry(Listener(), access.Access())
    watched = [handler.selector for handler in registry._watching.get_all_handlers()]
    assert len(watched) == 2
    assert all(any(selector.check(kind) for selector in watched if selector) for kind in (SECRETS, CLIENTS))
    assert len(list(registry._activities.get_all_handlers())) == 1
    for others in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(others.get_all_handlers()) == []


def test_nothing_is_posted_nothing_is_scanned_and_there_are_no_peers() -> None:
    found = build()
    assert not found.posting.enabled
    assert found.peering.standalone
    assert found.scanning.disabled
    assert found.networking.request_timeout == 30
    assert found.watching.chunk_size == 1000
    assert found.watching.inactivity_timeout == 70


def test_requests_are_tried_again_for_ever_and_slower_and_slower() -> None:
    waits = build().networking.error_backoffs
    first = list(itertools.islice(iter(waits), 100))  # type: ignore[arg-type]
    assert first[:5] == [1.0, 2.0, 4.0, 8.0, 10.0]
    assert set(first[4:]) == {10.0}
    assert next(iter(iter(waits))) == 1.0  # type: ignore[arg-type]
    endless = iter(waits)  # type: ignore[arg-type]
    assert iter(endless) is endless


def test_kopf_compares_nothing_and_keeps_nothing_on_objects() -> None:
    storage = build().persistence.diffbase_storage
    body = kopf.Body({"metadata": {"name": "shop"}, "data": {"token": "secret"}})
    assert dict(storage.build(body=body)) == {}
    assert storage.fetch(body=body) is None
    patch = kopf.Patch()
    storage.store(body=body, patch=patch, essence=kopf.BodyEssence())
    assert dict(patch) == {}


def call(registry: kopf.OperatorRegistry, kind: references.Resource, event: dict[str, Any]) -> None:
    for handler in registry._watching.get_all_handlers():
        if handler.selector is not None and handler.selector.check(kind):
            asyncio.run(handler.fn(event=event))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED", "DELETED"])
def test_events_go_to_the_listener(kind: str | None) -> None:
    listener = Listener()
    registry = handlers.build_registry(listener, access.Access())
    event = {"type": kind, "object": {"metadata": {"name": "shop"}}}
    call(registry, CLIENTS, event)
    call(registry, SECRETS, event)
    assert listener.told == [("client", kind, "shop"), ("secret", kind, "shop")]


def login(found: access.Access) -> kopf.ConnectionInfo:
    registry = handlers.build_registry(Listener(), found)
    (handler,) = registry._activities.get_all_handlers()
    return asyncio.run(handler.fn())  # type: ignore[arg-type, return-value]


def test_the_login_reads_the_token_again(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    found = access.Access(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {"tokenFile": str(token)}))
    asyncio.run(found.load())
    assert (login(found).server, login(found).scheme, login(found).token) == ("https://kube.test", "Bearer", "first")
    token.write_text("second")
    assert login(found).token == "second"


def test_a_login_without_a_token_has_no_scheme(tmp_path: pathlib.Path) -> None:
    found = access.Access(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {}))
    asyncio.run(found.load())
    assert (login(found).scheme, login(found).token) == (None, None)


def test_a_token_that_was_refused_is_tried_again_after_a_pause(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kopf gives up, and the process with it, when it gets credentials that it knows to be refused."""
    token = tmp_path / "token"
    token.write_text("only")
    found = access.Access(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {"tokenFile": str(token)}))

    async def refuse_and_log_in(registry: kopf.OperatorRegistry) -> list[credentials.ConnectionInfo]:
        await found.load()
        (handler,) = registry._activities.get_all_handlers()
        vault, seen = credentials.Vault(), []
        for _ in range(4):
            info = await handler.fn()
            await vault.populate({credentials.VaultKey("login"): info})  # type: ignore[dict-item]
            key, item = vault.select()
            seen.append(item.info)
            vault._invalid[key] = [*vault._invalid[key], vault._current.pop(key)]
        return seen

    pause = dt.timedelta(milliseconds=1)
    seen = asyncio.run(refuse_and_log_in(handlers.build_registry(Listener(), found, pause=pause)))
    assert [info.token for info in seen] == ["only"] * 4
    assert [record.getMessage() for record in caplog.records] == ["own token refused retry=0s"] * 3


def test_a_token_that_is_replaced_meanwhile_is_taken(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    found = access.Access(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {"tokenFile": str(token)}))

    async def log_in_twice(registry: kopf.OperatorRegistry) -> kopf.ConnectionInfo:
        await found.load()
        (handler,) = registry._activities.get_all_handlers()
        await handler.fn()
        second = asyncio.ensure_future(handler.fn())  # type: ignore[arg-type]
        await told.wait()
        token.write_text("second")
        return await second  # type: ignore[return-value]

    told = asyncio.Event()
    handler = logging.Handler()
    handler.emit = lambda _: told.set()  # type: ignore[method-assign]
    handlers.logger.addHandler(handler)
    try:
        pause = dt.timedelta(milliseconds=200)
        assert asyncio.run(log_in_twice(handlers.build_registry(Listener(), found, pause=pause))).token == "second"
    finally:
        handlers.logger.removeHandler(handler)
