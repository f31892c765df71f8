"""Situations to decide on, made with the real functions: a test says only what is special about its own."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from typing import Any

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff, credentials, observed, render

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
ISSUED = NOW - dt.timedelta(days=1)
MONTH = dt.timedelta(days=30)
UID = "uid-of-shop"
OTHER_UID = "uid-of-another"
CLIENT_ID = "shop:default"

CREDENTIALS = credentials.CredentialsSeen(
    uid="uid-of-credentials", resource_version="7", client_id=CLIENT_ID, trimmed=False, fingerprint="first"
)


def jwt(**claims: Any) -> str:
    """A token of the shape that Squidex issues; its signature is nobody's business here."""
    header = {"alg": "RS256", "kid": claims.pop("kid", "key-1"), "typ": "at+jwt"}
    payload = {"client_id": CLIENT_ID, "sub": CLIENT_ID, **claims}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, payload)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


def spec(**fields: Any) -> resource.Spec:
    """A spec, from fields as the API server returns them."""
    return resource.parse_spec({"url": "https://cms.example.com", "credentialsSecretRef": {"name": "keys"}, **fields})


def client(**changes: Any) -> observed.Client:
    """A SquidexClient that has been reported on."""
    status = {
        "observedGeneration": 1,
        "lastRefreshTime": "2026-04-30T12:00:00Z",
        "conditions": [condition("CredentialsAvailable", "True", "CredentialsFound")],
    }
    plain = observed.Client(
        namespace="web",
        name="shop",
        uid=UID,
        generation=1,
        resource_version="100",
        created="2026-04-01T00:00:00Z",
        deleting=False,
        spec=spec(),
        spec_error="",
        status=status,
    )
    return dataclasses.replace(plain, **changes)


def condition(kind: str, status: str, reason: str, message: str = "As it was.", **more: Any) -> dict[str, Any]:
    """One of `status.conditions`."""
    since = {"lastTransitionTime": "2026-04-30T12:00:00Z", "observedGeneration": 1}
    return {"type": kind, "status": status, "reason": reason, "message": message, **since, **more}


def grant(**changes: Any) -> render.Grant:
    """A token of a day's age, good for 29 more."""
    plain = render.Grant(token=jwt(), issued_at=ISSUED, expires_at=ISSUED + MONTH, key_id="key-1", client_id=CLIENT_ID)
    return dataclasses.replace(plain, **changes)


def secret(
    owner: observed.Client | None = None,
    granted: render.Grant | None = None,
    seen: credentials.CredentialsSeen = CREDENTIALS,
) -> dict[str, Any]:
    """The target Secret of a SquidexClient, as the API server would return it."""
    owner = owner or client()
    assert owner.spec is not None
    body = render.target_secret(owner, owner.spec, granted or grant(), render.inputs_of(owner.spec, seen))
    body["metadata"] |= {"uid": "uid-of-target", "resourceVersion": "50"}
    return body


def target(owner: observed.Client | None = None, granted: render.Grant | None = None, **changes: Any) -> Any:
    """The same, as it is remembered."""
    return dataclasses.replace(render.read_target(secret(owner, granted)), **changes)


def seen(**changes: Any) -> observed.Observed:
    """All is well: a token of a day's age, credentials that were read, no probe due."""
    who = changes.pop("client", None) or client()
    plain = observed.Observed(
        client=who,
        target=target(who if who.spec else None),
        credentials=CREDENTIALS,
        fetched_with=CREDENTIALS,
        namespace_terminating=False,
    )
    return dataclasses.replace(plain, **changes)


def failure(
    reason: reasons.Reason = reasons.Reason.SERVER_ERROR,
    kind: backoff.Kind = backoff.Kind.TRANSIENT,
    **changes: Any,
) -> backoff.Failure:
    """A failure of a minute ago that waits for ten more."""
    plain = backoff.Failure(
        problem=backoff.Problem(kind, reason, "It did not work."),
        count=3,
        at=NOW - dt.timedelta(minutes=1),
        next_attempt=NOW + dt.timedelta(minutes=10),
        generation=1,
        inputs_hash=render.inputs_of(spec(), CREDENTIALS),
    )
    return dataclasses.replace(plain, **changes)


def probed(verdict: observed.Verdict, of: observed.TargetSeen | None = None) -> observed.Probed:
    """What the server said of the token in the target."""
    return observed.Probed(verdict, "The server said so.", (of or target()).data_hash)


def pending(seen_credentials: credentials.CredentialsSeen = CREDENTIALS, **changes: Any) -> observed.Pending:
    """A token that was fetched and is not written."""
    plain = observed.Pending(render.inputs_of(spec(), seen_credentials), NOW + MONTH)
    return dataclasses.replace(plain, **changes)
