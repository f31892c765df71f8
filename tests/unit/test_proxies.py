"""Which proxy a request goes through, by the variables that every client reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from squidex_operator import proxies
from squidex_operator.squidex import http

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxies.proxy_for.cache_clear()
    yield
    proxies.proxy_for.cache_clear()


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        pytest.param({}, "https://cms.example.com", None, id="no variable: directly"),
        pytest.param(
            {"HTTPS_PROXY": "http://p:3128"}, "https://cms.example.com", "http://p:3128", id="https by HTTPS_PROXY"
        ),
        pytest.param({"HTTPS_PROXY": "http://p:3128"}, "http://cms.cms.svc", None, id="http is not https"),
        pytest.param({"HTTP_PROXY": "http://p:3128"}, "http://cms.cms.svc", "http://p:3128", id="http by HTTP_PROXY"),
        pytest.param(
            {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".svc,10.0.0.1"},
            "https://cms.cms.svc:8443",
            None,
            id="what NO_PROXY excepts is reached directly",
        ),
    ],
)
def test_the_variables_choose_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxies.proxy_for(url) == expected


def test_a_request_to_squidex_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.raw_path if hasattr(request, "raw_path") else str(request.rel_url))
        return web.json_response({"keys": []})

    async def run() -> int:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{runner.addresses[0][1]}")
        sender = http.Http(connections_per_host=2)
        try:
            found = await sender.send("GET", "http://cms.nowhere.svc/identity-server/.well-known/jwks")
        finally:
            await sender.close()
            await runner.cleanup()
        return found.status

    assert asyncio.run(run()) == 200
    assert asked == ["http://cms.nowhere.svc/identity-server/.well-known/jwks"]
