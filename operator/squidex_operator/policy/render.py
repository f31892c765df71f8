"""The target Secret: what is written to it, and what can be read back from it without keeping the token."""

import base64
import dataclasses
import datetime as dt
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from squidex_operator.api import names, resource
from squidex_operator.policy import credentials as credentials_policy
from squidex_operator.policy import jwt, observed


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """A token as it was granted. Never printed whole: see `__repr__`."""

    token: str
    issued_at: dt.datetime
    expires_at: dt.datetime
    key_id: str
    """`kid` of the key that signed it; empty for an opaque token."""
    client_id: str
    """The `client_id` claim; empty for an opaque token."""

    def __repr__(self) -> str:
        return f"Token({self.key_id or 'opaque'}, expires {format_time(self.expires_at)})"


def format_time(time: dt.datetime) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes times."""
    # Not strftime: its %Y writes the year 1 as "1", which no other program reads.
    return time.astimezone(dt.UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_time(text: object) -> dt.datetime | None:
    """The time that `format_time` wrote, or another RFC 3339 time, in UTC; None for anything else."""
    try:
        parsed = dt.datetime.fromisoformat(str(text))
        return parsed.astimezone(dt.UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def inputs_hash(spec: resource.Spec, client_id: str, secret_uid: str, secret_version: str) -> str:
    """What a token depends on. An edit of anything else never fetches one. The secret's text is not in it."""
    return _inputs_digest(spec.base_url, spec.scope, client_id, secret_uid, secret_version)


def inputs_of(spec: resource.Spec, seen: credentials_policy.CredentialsSeen) -> str:
    """`inputs_hash` of a credentials Secret that was read."""
    return inputs_hash(spec, seen.client_id, seen.uid, seen.resource_version)


def target_data(grant: Grant, url: str) -> dict[str, str]:
    """The keys of the target Secret, in clear text."""
    return {
        names.KEY_TOKEN: grant.token,
        names.KEY_TOKEN_TYPE: "Bearer",
        names.KEY_EXPIRES_AT: format_time(grant.expires_at),
        names.KEY_URL: url,
    }


def data_hash(data: Mapping[str, str], issued_at: str, key_id: str) -> str:
    """Covers our keys, and the two annotations that the schedule and the key check go by."""
    return _digest([[key, data.get(key)] for key in names.TARGET_KEYS] + [issued_at, key_id])


def target_secret(client: observed.Client, spec: resource.Spec, grant: Grant, inputs: str) -> dict[str, Any]:
    """The Secret as it is created or applied: own keys only, everything else in it belongs to others."""
    data = target_data(grant, spec.base_url)
    issued_at = format_time(grant.issued_at)
    annotations = {
        names.ANNOTATION_CLIENT_UID: client.uid,
        names.ANNOTATION_ISSUED_AT: issued_at,
        names.ANNOTATION_EXPIRES_AT: format_time(grant.expires_at),
        names.ANNOTATION_KEY_ID: grant.key_id,
        names.ANNOTATION_INPUTS_HASH: inputs,
        names.ANNOTATION_DATA_HASH: data_hash(data, issued_at, grant.key_id),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": client.target_name,
            "namespace": client.namespace,
            "labels": {names.LABEL_ROLE: names.ROLE_TOKEN, names.LABEL_MANAGED_BY: names.MANAGED_BY},
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": client.name,
                    "uid": client.uid,
                    "controller": True,
                }
            ],
        },
        "type": spec.target.type,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def read_target(body: Mapping[str, Any]) -> observed.TargetSeen:
    """What may be remembered of a Secret in a target's place. The token itself is not in it."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    labels = metadata.get("labels") or {}
    data = _decode(body.get("data") or {})
    issued_at = annotations.get(names.ANNOTATION_ISSUED_AT, "")
    expires_at = annotations.get(names.ANNOTATION_EXPIRES_AT, "")
    key_id = annotations.get(names.ANNOTATION_KEY_ID, "")
    wanted_hash = annotations.get(names.ANNOTATION_DATA_HASH, "")
    token = data.get(names.KEY_TOKEN, "")
    # Were the other keys as they should be, would the hash be right? Then it is the token that was written.
    healed = {
        names.KEY_TOKEN: token,
        names.KEY_TOKEN_TYPE: "Bearer",
        names.KEY_EXPIRES_AT: expires_at,
        names.KEY_URL: data.get(names.KEY_URL, ""),
    }
    data_intact = bool(wanted_hash) and data_hash(data, issued_at, key_id) == wanted_hash
    whole = data_intact if healed == data else data_hash(healed, issued_at, key_id) == wanted_hash
    claims = jwt.read(token)
    return observed.TargetSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        secret_type=body.get("type", ""),
        deleting=bool(metadata.get("deletionTimestamp")),
        client_uid=annotations.get(names.ANNOTATION_CLIENT_UID, ""),
        owner_uids=frozenset(
            owner.get("uid", "")
            for owner in metadata.get("ownerReferences") or []
            if owner.get("kind") == names.KIND and str(owner.get("apiVersion")).startswith(f"{names.GROUP}/")
        ),
        labelled=labels.get(names.LABEL_ROLE) == names.ROLE_TOKEN
        and labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY,
        issued_at=parse_time(issued_at),
        expires_at=parse_time(expires_at),
        key_id=key_id,
        inputs_hash=annotations.get(names.ANNOTATION_INPUTS_HASH, ""),
        data_hash=wanted_hash,
        data_intact=data_intact,
        token_intact=bool(wanted_hash and token) and whole,
        url=data.get(names.KEY_URL, ""),
        token_client_id=claims.client_id if claims else "",
        opaque=claims is None,
    )


def read_grant(body: Mapping[str, Any]) -> Grant | None:
    """The token in a Secret of ours, for a probe or to write it again; None where it is not there whole."""
    seen = read_target(body)
    if not seen.token_intact or seen.issued_at is None or seen.expires_at is None:
        return None
    token = _decode(body.get("data") or {})[names.KEY_TOKEN]
    return Grant(token, seen.issued_at, seen.expires_at, seen.key_id, seen.token_client_id)


def _decode(data: Mapping[str, str]) -> dict[str, str]:
    decoded = {}
    for key in names.TARGET_KEYS:
        try:
            decoded[key] = base64.b64decode(data[key], validate=True).decode()
        except (KeyError, TypeError, ValueError):
            continue
    return decoded


@functools.lru_cache(maxsize=1024)  # a decision asks for it several times
def _inputs_digest(*inputs: str) -> str:
    return _digest(inputs)


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
