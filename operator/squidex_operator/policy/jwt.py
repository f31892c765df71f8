"""What a Squidex token says of itself: a JWT (RFC 7519) read without checking its signature.

The signature is the server's business: a token that we were handed is asked about (see squidex/probe.py), never verified
here, so a library made for verifying would add keys and algorithms that nobody uses. A token's payload is never logged or
shown: tokens of user clients may carry the client's secret in clear text.
"""

import base64
import binascii
import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Claims:
    """The few claims that are used."""

    key_id: str
    """`kid` of the header; empty where there is none."""
    client_id: str
    """`client_id`, else `sub` (IdentityServer4 and OpenIddict write both); empty where there is neither."""
    expires: float | None
    """`exp`, epoch seconds on the server's clock; None where it is missing or no finite number."""


def read(token: str) -> Claims | None:
    """The claims of a JWT; None for an opaque token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    header, payload = _part(parts[0]), _part(parts[1])
    if header is None or payload is None:
        return None
    return Claims(
        key_id=_text(header.get("kid")),
        client_id=_text(payload.get("client_id")) or _text(payload.get("sub")),
        expires=number(payload.get("exp")),
    )


def number(value: object) -> float | None:
    """A finite JSON number, or a string of digits, as some servers write numbers; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if abs(result) < 1e15 else None


def _part(text: str) -> dict[str, object] | None:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        parsed = json.loads(raw)
    except (ValueError, binascii.Error, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
