"""The client's id and secret, as they stand in a Secret."""

import base64
import dataclasses
from collections.abc import Mapping

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff


@dataclasses.dataclass(frozen=True, slots=True)
class CredentialsSeen:
    """What may be remembered of a credentials Secret: no secret is in it."""

    uid: str
    resource_version: str
    client_id: str
    trimmed: bool
    """White space around the id or the secret was left out."""
    fingerprint: str = dataclasses.field(default="", repr=False)
    """Tells in this process alone whether two versions hold the same id and secret (a MAC with a key that dies with it)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """The id and the secret, for the one request that needs them."""

    client_id: str
    client_secret: str = dataclasses.field(repr=False)
    trimmed: bool


def read(data: Mapping[str, str] | None, ref: resource.CredentialsSecretRef) -> Credentials | backoff.Problem:
    """Read id and secret from a Secret's `data` (base64). A problem says which key, and what to do."""
    values: list[str] = []
    trimmed = False
    for key in (ref.client_id_key, ref.client_secret_key):
        raw = (data or {}).get(key)
        if raw is None:
            return _incomplete(ref, f"has no key {key!r}")
        try:
            # utf-8-sig: some editors begin a file with a byte order mark, which nobody sees.
            text = base64.b64decode(raw, validate=True).decode("utf-8-sig")
        except ValueError:
            return _incomplete(ref, f"has a value under {key!r} that is not UTF-8 text")
        value = text.strip()
        if not value:
            return _incomplete(ref, f"has nothing under {key!r}")
        trimmed = trimmed or value != text
        values.append(value)
    return Credentials(client_id=values[0], client_secret=values[1], trimmed=trimmed)


def missing(ref: resource.CredentialsSecretRef) -> backoff.Problem:
    """There is no such Secret."""
    return backoff.Problem(
        backoff.Kind.CLUSTER,
        reasons.Reason.CREDENTIALS_MISSING,
        f"Secret {ref.name!r} does not exist. Create it with the keys {ref.client_id_key!r} and {ref.client_secret_key!r}.",
    )


def _incomplete(ref: resource.CredentialsSecretRef, what: str) -> backoff.Problem:
    return backoff.Problem(
        backoff.Kind.CLUSTER,
        reasons.Reason.CREDENTIALS_INCOMPLETE,
        f"Secret {ref.name!r} {what}. It needs the keys {ref.client_id_key!r} and {ref.client_secret_key!r}.",
    )
