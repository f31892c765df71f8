"""What the faults of one request amount to: waiting, another answer, another token."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from sandbox.squidex import tokens, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.squidex.faults import Fault
    from sandbox.squidex.world import World


async def wait(faults: Sequence[Fault]) -> None:
    """Wait as long as the faults say, or until they are taken away."""
    for fault in faults:
        if fault.kind == "slow":
            await asyncio.sleep(fault.details["seconds"])
        elif fault.kind == "hang":
            await fault.gone.wait()


def twist(faults: Sequence[Fault]) -> tokens.Twist | None:
    """Return how the token that is issued differs from a good one."""
    for fault in faults:
        if fault.kind == "token":
            return tokens.Twist(
                claims=fault.details.get("claims", {}),
                expires_in=fault.details.get("expIn"),
                opaque=fault.details.get("opaque", False),
                key=fault.details.get("key"),
            )
    return None


def replacement(faults: Sequence[Fault], request: wire.Request, world: World) -> wire.Reply | None:
    """Return the answer that takes the true one's place, if a fault gives one."""
    for fault in faults:
        match fault.kind:
            case "status":
                return _status(fault.details, world)
            case "html":
                return wire.html(fault.details.get("status", 200))
            case "redirect":
                return _redirect(fault.details, request)
            case "oauth":
                return _oauth(fault.details)
    return None


def _status(details: Any, world: World) -> wire.Reply:
    headers = [("Content-Type", details.get("contentType", "text/plain; charset=utf-8"))]
    headers += details.get("headers", {}).items()
    if "retryAfter" in details:
        headers.append(("Retry-After", str(details["retryAfter"])))
    if "retryAfterDate" in details:
        headers.append(("Retry-After", world.http_date(details["retryAfterDate"])))
    return wire.Reply(details["status"], tuple(headers), details.get("body", "").encode())


def _redirect(details: Any, request: wire.Request) -> wire.Reply:
    rest = request.base_url.partition("://")[2]
    query = f"?{request.query}" if request.query else ""
    location = details.get("location", f"https://{rest}{request.path}{query}")
    return wire.Reply(details.get("status", 307), (("Location", location),))


def _oauth(details: Any) -> wire.Reply:
    status = details.get("status", 401 if details["error"] == "invalid_client" else 400)
    document = {"error": details["error"]}
    if "description" in details:
        document["error_description"] = details["description"]
    return wire.Reply(
        status,
        (("Content-Type", "application/json;charset=UTF-8"), *wire.NO_STORE),
        json.dumps(document).encode(),
    )
