"""Asking the server about a token."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from sandbox import squidex
from squidex_operator.policy import credentials, observed
from squidex_operator.squidex import http, probe, tokens

Verdict = observed.Verdict

PATHS: dict[str, tuple[probe.Mode, str, str | None]] = {
    "an app's client asks for its app": ("Auto", "demo:ci", "/api/apps/demo"),
    "with the other sign between them": ("Auto", "demo~ci", "/api/apps/demo"),
    "App asks for the app as well": ("App", "my-shop:default", "/api/apps/my-shop"),
    "the admin client asks for the languages": ("Auto", "root", "/api/languages/"),
    "a user's client asks for the languages": ("Auto", "0123456789abcdef01234567", "/api/languages/"),
    "Languages asks for the languages": ("Languages", "demo:ci", "/api/languages/"),
    "App has nothing to ask without an app": ("App", "root", None),
    "Off asks nothing": ("Off", "demo:ci", None),
    "no path gets out of the app's name": ("Auto", "../../identity-server:x", "/api/languages/"),
    "no query gets out of the app's name": ("Auto", "demo?x=:ci", "/api/languages/"),
    "capital letters name no app": ("Auto", "Demo:ci", "/api/languages/"),
}


@pytest.mark.parametrize(("mode", "client_id", "expected"), PATHS.values(), ids=PATHS)
def test_what_is_asked_for(mode: probe.Mode, client_id: str, expected: str | None) -> None:
    assert probe.path(mode, client_id) == expected


def ask(changes: dict[str, Any], *, client_id: str = "demo:ci", mode: probe.Mode = "Auto") -> tuple[Verdict, str]:
    """A token of the stand-in, then its switches, then the probe."""

    async def main() -> tuple[Verdict, str]:
        sender = http.Http(connections_per_host=2, timeout=5)
        given = credentials.Credentials(client_id, "s", trimmed=False)
        try:
            async with squidex.StandIn({"demo:ci": "s", "root": "s"}) as server:
                now = dt.datetime.now(dt.UTC)
                grant = (await tokens.fetch(sender, server.url, given, "squidex-api", ca="", now=now)).grant
                server.patch(changes)
                return await probe.ask(sender, server.url, grant, mode=mode, client_id=client_id, ca="")
        finally:
            await sender.close()

    return asyncio.run(main())


def fault(**details: Any) -> dict[str, Any]:
    return {"faults": [{"on": "probe", **details}]}


VERDICTS: dict[str, tuple[dict[str, Any], Verdict]] = {
    "all is well": ({}, Verdict.ACCEPTED),
    "the signing key was replaced": ({"key": "replace"}, Verdict.REFUSED),
    "the issuer was changed": ({"issuer": "https://cms.example.com/"}, Verdict.REFUSED),
    "the client is gone": ({"clients": {"demo:ci": None}}, Verdict.APP_NOT_FOUND),
    "the app is gone": ({"apps": {"demo": None}}, Verdict.APP_NOT_FOUND),
    "the client was made anew": ({"clients": {"demo:ci": "other"}}, Verdict.ACCEPTED),
    "a reader": ({"roles": {"demo:ci": "Reader"}}, Verdict.ACCEPTED),
    "a web page": (fault(kind="html"), Verdict.INCONCLUSIVE),
    "a web page with 502": (fault(kind="html", status=502), Verdict.INCONCLUSIVE),
    "a redirect": (fault(kind="redirect"), Verdict.INCONCLUSIVE),
    "a proxy's 401": (fault(kind="status", status=401), Verdict.INCONCLUSIVE),
    "a reset": (fault(kind="reset"), Verdict.INCONCLUSIVE),
    "too large": (fault(kind="huge", bytes=1_000_000), Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("changes", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_what_the_server_says(changes: dict[str, Any], verdict: Verdict) -> None:
    assert ask(changes)[0] is verdict


def test_the_admin_client_is_asked_about_as_well() -> None:
    assert ask({}, client_id="root")[0] is Verdict.ACCEPTED
    assert ask({"key": "replace"}, client_id="root")[0] is Verdict.REFUSED


def test_where_there_is_no_way_to_ask_the_message_says_what_to_change() -> None:
    verdict, message = ask({}, client_id="root", mode="App")
    assert verdict is Verdict.INCONCLUSIVE
    assert "use Auto or Languages" in message
