"""Sending a reply through aiohttp: exactly, or in one of the ways in which sending goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import CIMultiDict

from sandbox.squidex import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.squidex.faults import Fault
    from sandbox.squidex.world import World

HUGE = 64 * 1024 * 1024
_BLANK = b" " * 65536


def response(reply: wire.Reply, request: web.BaseRequest, world: World) -> web.Response:
    """Return `reply` with the headers every answer has, in the server's own time."""
    headers = CIMultiDict(reply.headers)
    headers["Date"] = world.http_date()
    headers["Server"] = "Kestrel"
    made = web.Response(status=reply.status, headers=headers, body=reply.body)
    if "Content-Type" not in headers and reply.body == b"":
        # Else aiohttp names a type for the body that is not there.
        made.headers.popall("Content-Type", None)
    if reply.chunked and request.version >= (1, 1):
        made.enable_chunked_encoding()
    return made


def edited(reply: wire.Reply, faults: Iterable[Fault]) -> wire.Reply:
    """Return `reply` with its JSON changed as the faults of kind `json` say."""
    for fault in faults:
        if fault.kind != "json":
            continue
        document: Any = fault.details["body"] if "body" in fault.details else _object(reply)
        if isinstance(document, dict):
            document = {
                name: value for name, value in document.items() if name not in fault.details.get("remove", ())
            } | fault.details.get("set", {})
        body = json.dumps(document, indent=2).encode()
        reply = wire.Reply(reply.status, reply.headers, body, reply.chunked)
    return reply


async def send(
    reply: wire.Reply, request: web.BaseRequest, world: World, faults: Iterable[Fault]
) -> web.StreamResponse | None:
    """Send `reply`, or leave it to aiohttp when no fault is about sending.

    Returns None when the connection was closed instead: by a fault, or by a client that has seen enough.
    """
    with contextlib.suppress(ConnectionError):
        return await _send(reply, request, world, faults)
    return None


async def _send(
    reply: wire.Reply, request: web.BaseRequest, world: World, faults: Iterable[Fault]
) -> web.StreamResponse | None:
    for fault in faults:
        match fault.kind:
            case "reset":
                _reset(request)
                return None
            case "truncate":
                return await _truncate(reply, request, world, fault.details.get("bytes"))
            case "huge":
                return await _huge(reply, request, world, fault.details.get("bytes", HUGE))
            case "drip":
                return await _drip(reply, request, world, fault)
    return response(reply, request, world)


def _object(reply: wire.Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError:
        return {}


async def _begin(reply: wire.Reply, request: web.BaseRequest, world: World, length: int) -> web.StreamResponse:
    whole = response(reply, request, world)
    stream = web.StreamResponse(status=reply.status, headers=whole.headers)
    stream.content_length = length
    await stream.prepare(request)
    return stream


async def _truncate(reply: wire.Reply, request: web.BaseRequest, world: World, count: int | None) -> web.StreamResponse:
    stream = await _begin(reply, request, world, max(len(reply.body), 2))
    await stream.write(reply.body[: len(reply.body) // 2 if count is None else count])
    if request.transport is not None:
        request.transport.close()
    return stream


async def _huge(reply: wire.Reply, request: web.BaseRequest, world: World, size: int) -> web.StreamResponse:
    size = max(size, len(reply.body))
    stream = await _begin(reply, request, world, size)
    await stream.write(reply.body)
    left = size - len(reply.body)
    while left > 0:
        await stream.write(_BLANK[:left])
        left -= len(_BLANK)
    return stream


async def _drip(reply: wire.Reply, request: web.BaseRequest, world: World, fault: Fault) -> web.StreamResponse:
    step = max(1, fault.details.get("bytes", 1))
    stream = await _begin(reply, request, world, len(reply.body))
    for start in range(0, len(reply.body), step):
        await stream.write(reply.body[start : start + step])
        await asyncio.sleep(fault.details["seconds"])
    return stream


def _reset(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # With no time to linger the kernel answers with RST instead of an orderly end.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
