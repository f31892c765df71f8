"""The ids of the keys that a server signs with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sandbox import squidex
from squidex_operator.squidex import http, keys


def fetch(changes: dict[str, Any]) -> tuple[frozenset[str] | None, dict[str, Any]]:
    async def main() -> tuple[frozenset[str] | None, dict[str, Any]]:
        sender = http.Http(connections_per_host=2, timeout=5)
        try:
            async with squidex.StandIn({"demo:ci": "s"}) as server:
                state = server.patch(changes)
                return await keys.fetch(sender, server.url, ca=""), state
        finally:
            await sender.close()

    return asyncio.run(main())


def test_the_published_key_is_the_one_that_signs() -> None:
    found, state = fetch({"key": "second"})
    assert found == {state["keys"]["second"]}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "html"},
        {"kind": "html", "status": 500},
        {"kind": "redirect"},
        {"kind": "status", "status": 404},
        {"kind": "reset"},
        {"kind": "truncate"},
        {"kind": "huge", "bytes": 1_000_000},
        {"kind": "json", "set": {"keys": []}},
    ],
    ids=lambda fault: " ".join(str(value) for value in fault.values()),
)
def test_an_answer_that_does_not_say_changes_nothing(fault: dict[str, Any]) -> None:
    assert fetch({"faults": [fault]})[0] is None


DOCUMENTS: dict[str, tuple[object, set[str] | None]] = {
    "one key": ({"keys": [{"kid": "a"}]}, {"a"}),
    "two keys": ({"keys": [{"kid": "a", "use": "sig"}, {"kid": "b"}]}, {"a", "b"}),
    "a key for something else counts for nothing": ({"keys": [{"kid": "a"}, {"use": "enc"}]}, {"a"}),
    "no key": ({"keys": []}, None),
    "no keys": ({}, None),
    "keys that are null": ({"keys": None}, None),
    "keys that are a text": ({"keys": "a"}, None),
    "keys that are a number": ({"keys": 7}, None),
    "a key that is a text": ({"keys": ["a"]}, None),
    "a key without an id": ({"keys": [{"kid": "a"}, {}]}, None),
    "an empty id": ({"keys": [{"kid": ""}]}, None),
    "an id that is a number": ({"keys": [{"kid": 7}]}, None),
    "an id that would start a line of its own in a log": ({"keys": [{"kid": "a\nb"}]}, None),
    "an id as long as a novel": ({"keys": [{"kid": "a" * 200}]}, None),
    "hundreds of keys": ({"keys": [{"kid": str(n)} for n in range(500)]}, {str(n) for n in range(500)}),
    "more keys than anybody has": ({"keys": [{"kid": str(n)} for n in range(513)]}, None),
    "a list": ([1], None),
    "null": (None, None),
}


@pytest.mark.parametrize(("document", "ids"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document(document: object, ids: set[str] | None) -> None:
    assert keys.parse(json.dumps(document).encode()) == ids


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000], ids=["nothing", "HTML", "no text", "deep"])
def test_what_is_no_document(body: bytes) -> None:
    assert keys.parse(body) is None
