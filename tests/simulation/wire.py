"""Answers of Squidex as they are on the wire (tests/data/squidex-wire)."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OAUTH = {"Content-Type": "application/json;charset=UTF-8"}
API = {"Content-Type": "application/json; charset=utf-8"}
_MORE = "https://documentation.openiddict.com/errors/ID2055"


@dataclasses.dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    broken: Exception | None = None
    """Raised in place of the body's end."""


def answer(status: int, document: Any, headers: Mapping[str, str]) -> Reply:
    """A JSON document."""
    return Reply(status, headers, json.dumps(document).encode())


def oauth_error(status: int, error: str, description: str = "") -> Reply:
    """An error as OpenIddict writes it; without a description, as IdentityServer4 does."""
    document = {"error": error}
    if not description:
        return answer(status, document, OAUTH)
    headers = {"WWW-Authenticate": f'Basic error="{error}", error_description="{description}"'} if status == 401 else {}
    return answer(status, document | {"error_description": description, "error_uri": _MORE}, OAUTH | headers)


def refused() -> Reply:
    """A token that is not accepted."""
    challenge = 'Bearer error="invalid_token", error_description="The specified token is invalid."'
    return api_error(401, {"WWW-Authenticate": challenge})


def api_error(status: int, headers: Mapping[str, str] | None = None) -> Reply:
    """An error of the API."""
    return answer(
        status, {"message": "", "errorCode": None, "details": None, "statusCode": status}, {**API, **(headers or {})}
    )
