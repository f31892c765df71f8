"""What is known when a decision is taken. No secret and no token is in here."""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping
from typing import Any

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff
from squidex_operator.policy import credentials as credentials_policy


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """A SquidexClient as it was last seen."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    """RFC 3339, as the API server wrote it."""
    deleting: bool
    spec: resource.Spec | None
    spec_error: str
    """Why `spec` could not be read; empty where it could."""
    status: Mapping[str, Any]

    @property
    def target_name(self) -> str:
        """The target Secret's name: by default the SquidexClient's own."""
        return (self.spec.target.name if self.spec else None) or self.name

    def condition(self, kind: reasons.ConditionType) -> Mapping[str, Any]:
        """A condition of its status; empty where it has none of that type."""
        found = (each for each in self.status.get("conditions") or [] if each.get("type") == kind)
        return next(found, {})


@dataclasses.dataclass(frozen=True, slots=True)
class TargetSeen:
    """A Secret in a target's place, without what is secret in it."""

    name: str
    uid: str
    resource_version: str
    secret_type: str
    deleting: bool
    client_uid: str
    owner_uids: frozenset[str]
    labelled: bool
    issued_at: dt.datetime | None
    expires_at: dt.datetime | None
    key_id: str
    inputs_hash: str
    data_hash: str
    data_intact: bool
    """All our keys are as they were written."""
    token_intact: bool
    """The token is as it was written, whatever became of the other keys."""
    url: str
    token_client_id: str
    opaque: bool


class Verdict(enum.Enum):
    """What the server said of a token."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    APP_NOT_FOUND = "app_not_found"
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True)
class Probed:
    """The last probe, of the token with this `data_hash`."""

    verdict: Verdict
    message: str
    data_hash: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """A token that was fetched and is not written yet: it must not be lost, nor fetched again."""

    inputs_hash: str
    expires_at: dt.datetime


class Unknown(enum.Enum):
    """A thing that was not looked at."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """Everything that `decide` goes by."""

    client: Client
    target: TargetSeen | Unknown | None
    """The Secret in the target's place; None where there is none."""
    credentials: credentials_policy.CredentialsSeen | backoff.Problem | Unknown
    """What the last GET of the credentials Secret gave, when nothing is known to have changed since."""
    watched_credentials: tuple[str, str] | None = None
    """uid and resourceVersion of the credentials Secret, where it is labelled and so is watched."""
    former_targets: tuple[TargetSeen, ...] = ()
    """Secrets of this client under other names: the target was renamed."""
    other_owner: bool = False
    """The Secret in the target's place is that of another SquidexClient that lives."""
    claimed: bool = False
    """An older SquidexClient names the same target: two must not take turns at one Secret."""
    namespace_terminating: bool | Unknown = UNKNOWN
    fetched_with: credentials_policy.CredentialsSeen | None = None
    """What the token in the target was fetched with, where this process knows."""
    pending: Pending | None = None
    probed: Probed | None = None
    failure: backoff.Failure | None = None
    meanwhile: backoff.Failure | None = None
    """What failed while the wait after `failure` was under way: a repair, or a look."""
    key_vanished: bool = False
    """The server no longer publishes the key that signed the token in the target (JWKS)."""
    credentials_due: dt.datetime | None = None
    """When the credentials Secret is to be looked at again, where it is not watched."""
    probe_due: dt.datetime | None = None
    """When the server is to be asked about the token; None where probes are off."""
    keys_disagree_until: dt.datetime | None = None
    """Until then, what was seen of the server's signing keys does not fit together: its replicas disagree."""
    replacement_allowed: dt.datetime | None = None
    """Not before this time where the token is refused: those before it were, too, soon after they were fetched."""
    fetch_allowed: dt.datetime | None = None
    """Not before this time, whatever the cause: the last guard against a flood of token requests."""
