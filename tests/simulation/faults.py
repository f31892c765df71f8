"""What can stand between the operator and a good answer of Squidex: the mishaps of sandbox/squidex, as values."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import httpx

from tests.simulation import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulation.squidex import Server

_DROPPED = "header dropped"

EVERYWHERE = frozenset({"token", "probe", "jwks"})

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Squidex Headless CMS</title></head><body></body></html>\n"
_HTML = {"Content-Type": "text/html; charset=utf-8"}


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mishap, on some endpoints."""

    name: str
    on: frozenset[str] = EVERYWHERE
    reply: Callable[[Server], wire.Reply] | None = None
    """Answers in the server's place."""
    change: Callable[[wire.Reply], wire.Reply] | None = None
    """Changes the server's answer."""
    error: Callable[[], Exception] | None = None
    """There is no answer at all."""
    delay: float = 0.0
    """Seconds before anything else happens."""

    def at(self, *endpoints: str) -> Fault:
        """The same, on these endpoints only."""
        return dataclasses.replace(self, on=frozenset(endpoints))


async def pass_through(server: Server, name: str, answer: Callable[[], wire.Reply]) -> wire.Reply:
    """The answer of a server, by way of the faults that are between. Raises what httpx would raise."""
    for fault in [fault for fault in server.faults if name in fault.on]:
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.error is not None:
            raise fault.error()
        if fault.reply is not None:
            reply = fault.reply(server)
            return dataclasses.replace(reply, headers={"Date": server.date(), **reply.headers})
        if fault.change is not None:
            reply = answer()
            server.lost += name == "token" and reply.status == 200
            return fault.change(reply)
    reply = answer()
    # No token that is asked about in vain is published, however good it is.
    server.lost += name == "token" and reply.status == 200 and any(fault.name == _DROPPED for fault in server.faults)
    return reply


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """An answer without a meaning of Squidex's own."""
    return Fault(f"status {code}", reply=lambda server: wire.Reply(code, headers or {}, body))


def html(code: int) -> Fault:
    """A web page: of a wrong path, a proxy, a CDN, or Squidex without its database."""
    return Fault(f"HTML {code}", reply=lambda server: wire.Reply(code, _HTML, _PAGE))


def redirect() -> Fault:
    """Enforced https, or a moved server."""
    return Fault("redirect", reply=lambda server: wire.Reply(307, {"Location": "https://elsewhere.example.com/"}))


def rate_limit(retry_after: str | float | None = None) -> Fault:
    """429; `retry_after` is sent as it is, a float as an HTTP date so many seconds from now."""

    def reply(server: Server) -> wire.Reply:
        if retry_after is None:
            return wire.Reply(429, _HTML, _PAGE)
        value = server.date(retry_after) if isinstance(retry_after, float) else retry_after
        return wire.Reply(429, {**_HTML, "Retry-After": value}, _PAGE)

    return Fault("429", reply=reply)


def oauth(code: int, error: str, description: str = "") -> Fault:
    """A refusal of the token endpoint."""
    return Fault(f"{error} ({code})", frozenset({"token"}), lambda server: wire.oauth_error(code, error, description))


def header_dropped() -> Fault:
    """A proxy that drops the Authorization header: every probe is refused, whatever the token."""
    return Fault(_DROPPED, frozenset({"probe"}), lambda server: wire.refused())


def unreachable() -> Fault:
    """Connection refused."""
    return Fault("unreachable", error=lambda: _caused(httpx.ConnectError("refused"), ConnectionRefusedError()))


def reset() -> Fault:
    """The connection breaks before there is an answer."""
    return Fault("reset", error=lambda: _caused(httpx.ReadError("reset"), ConnectionResetError()))


def hang() -> Fault:
    """No answer, ever: the operator's own time-out ends it."""
    return Fault("hang", delay=3600.0)


def slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(f"slow {seconds:g}", delay=seconds)


def truncated() -> Fault:
    """The connection breaks in the middle of the body."""
    error = httpx.RemoteProtocolError("payload is not completed")
    return Fault(
        "truncated",
        change=lambda reply: dataclasses.replace(reply, body=reply.body[: len(reply.body) // 2], broken=error),
    )


def huge() -> Fault:
    """The right answer, and a megabyte of white space."""
    return Fault("huge", change=lambda reply: dataclasses.replace(reply, body=reply.body + b" " * 2**20))


def wrong_types() -> Fault:
    """JSON whose members are of other types than they should be."""

    def change(reply: wire.Reply) -> wire.Reply:
        document = json.loads(reply.body)
        wrong: Any = {key: [value] for key, value in document.items()} if isinstance(document, dict) else 7
        return dataclasses.replace(reply, body=json.dumps(wrong).encode())

    return Fault("wrong JSON types", change=change)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error
