"""The keys that a server signs with (JWKS, RFC 7517): a token whose key has vanished is dead, or about to be."""

import json
import re

from squidex_operator.squidex import errors, http

KEYS_PATH = "/identity-server/.well-known/jwks"

# They end up in annotations and log lines: no server may put a line break or a novel there.
KEY_ID = re.compile(r"[\w.+/=:-]{1,128}", re.ASCII)
_MAX_KEYS = 512


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
    if not 0 < len(ids) <= _MAX_KEYS or not all(isinstance(key_id, str) and KEY_ID.fullmatch(key_id) for key_id in ids):
        return None
    return frozenset(ids)
