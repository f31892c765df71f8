"""Requests and replies as plain values, so that what Squidex would say is decided without any I/O.

`server` turns what aiohttp received into a `Request` and sends the `Reply`; everything between the two is
ordinary functions, which keeps the answers testable and the order of checks readable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"

NO_STORE: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-store"),
    ("Pragma", "no-cache"),
    ("Expires", EPOCH),
)
"""What OpenIddict adds where a cached answer would be harmful."""

PAGE = (
    b'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Squidex Headless CMS</title></head>\n'
    b"<body><sqx-app></sqx-app></body>\n</html>\n"
)
"""Stands for Squidex's web page, which answers every path that nothing else claims."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `path` is percent-decoded and lies below the base path; `headers` ignore case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    base_url: str
    """Scheme, host and base path as the client addressed them, without a trailing slash."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. A `chunked` one carries no Content-Length, as ASP.NET's streamed answers do not."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunked: bool = False


NOT_FOUND = Reply(404)
"""What ASP.NET says when no endpoint matches: nothing, not even a content type."""


def oauth_json(
    status: int,
    document: Mapping[str, Any],
    headers: tuple[tuple[str, str], ...] = (),
    *,
    chunked: bool = False,
) -> Reply:
    """Return `document` the way OpenIddict writes it: two spaces of indentation, no trailing newline."""
    body = json.dumps(document, indent=2, ensure_ascii=False).encode()
    return Reply(status, (("Content-Type", "application/json;charset=UTF-8"), *headers), body, chunked)


def api_json(status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return `document` the way ASP.NET's MVC writes it: compact, and without a Content-Length."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Reply(status, (("Content-Type", "application/json; charset=utf-8"), *headers), body, chunked=True)


def html(status: int, body: bytes = PAGE) -> Reply:
    """Return a web page, which is what a proxy, a CDN or a wrong path answers instead of JSON."""
    return Reply(status, (("Content-Type", "text/html; charset=utf-8"),), body)
