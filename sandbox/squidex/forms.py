"""Reading parameters as ASP.NET and OpenIddict read them.

The oddities matter: a parameter that is sent twice counts as *not sent*, names in a form ignore case while
they are collected but not when they are looked up, and Basic credentials are form-encoded inside.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = "application/x-www-form-urlencoded"

MAX_KEYS = 1024
MAX_KEY_LENGTH = 2048
MAX_VALUE_LENGTH = 4 * 1024 * 1024


class FormTooLargeError(Exception):
    """The form is past ASP.NET's limits."""


class BadCredentialsError(Exception):
    """The Basic header cannot be read."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of one request, every name with all its values."""

    values: Mapping[str, tuple[str, ...]]

    def get(self, name: str) -> str:
        """Return the value, or nothing when it is missing or was sent more than once."""
        values = self.values.get(name, ())
        return values[0] if len(values) == 1 else ""

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of a parameter that may be repeated."""
        return self.values.get(name, ())

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes in their order, each once."""
        return tuple(dict.fromkeys(scope for scope in self.get("scope").split(" ") if scope))

    def with_credentials(self, client_id: str, secret: str) -> Parameters:
        """Return the parameters with the credentials of a Basic header put in."""
        return Parameters({**self.values, "client_id": (client_id,), "client_secret": (secret,)})


def parse(text: str) -> Parameters:
    """Parse a form or a query; raises FormTooLargeError past ASP.NET's limits."""
    spelled: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    pairs = [pair for pair in text.split("&") if pair]
    if len(pairs) > MAX_KEYS:
        raise FormTooLargeError
    for pair in pairs:
        raw_name, _, raw_value = pair.partition("=")
        name, value = unquote_plus(raw_name), unquote_plus(raw_value)
        if len(name) > MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
            raise FormTooLargeError
        first = spelled.setdefault(name.lower(), name)
        values[first] = (*values.get(first, ()), value)
    return Parameters(values)


def is_form(content_type: str) -> bool:
    """Tell whether OpenIddict takes the body for a form: it looks at the beginning only."""
    return content_type.lower().startswith(FORM)


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return id and secret of a Basic header, None for another scheme; raises BadCredentialsError."""
    if not header.lower().startswith("basic "):
        return None
    try:
        # White space inside is fine for .NET's decoder; anything else outside the alphabet is not.
        decoded = base64.b64decode("".join(header[len("basic ") :].split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadCredentialsError from None
    client_id, colon, secret = decoded.decode("ascii", "replace").replace("\ufffd", "?").partition(":")
    if not colon:
        raise BadCredentialsError
    return _unescape(client_id), _unescape(secret)


def bearer_token(header: str) -> str:
    """Return the token of a Bearer header, or nothing for another scheme."""
    return header[len("bearer ") :] if header.lower().startswith("bearer ") else ""


def _unescape(text: str) -> str:
    return unquote(text.replace("+", "%20"))
