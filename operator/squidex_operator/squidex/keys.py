"""The keys that a server signs with (JWKS, RFC 7517): a token whose key has vanished is dead, or about to be."""

import json

from squidex_operator.squidex import errors, http

KEYS_PATH = "/identity-server/.well-known/jwks"


async def fetch(sender: http.Http, base_url: str, *, ca: str) -> frozenset[str] | None:
    """The ids of the published keys; None where the answer does not say: HTML, no key, a key without an id."""
    try:
        answer = await sender.send("GET", base_url + KEYS_PATH, ca=ca)
    except errors.SquidexError:
        return None
    return parse(answer.body) if answer.status == 200 else None


def parse(body: bytes) -> frozenset[str] | None:
    """The ids of a JWKS document's keys; None for anything that is not wholly one."""
    try:
        keys = json.loads(body)["keys"]
        ids = [key["kid"] for key in keys if key.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not ids or not all(isinstance(key_id, str) and key_id for key_id in ids):
        return None
    return frozenset(ids)
