"""Condition types and reasons: the CamelCase words of `status.conditions`, events and metrics, all in one place.

docs/troubleshooting.md has a section for each reason that a person may have to act on.
"""

import enum


class ConditionType(enum.StrEnum):
    """Types of `status.conditions`. Positive, unless said."""

    READY = "Ready"
    """The target holds a token that has not expired and that the server is not known to refuse."""

    REFRESH_FAILING = "RefreshFailing"
    """Negative: the last attempt to get a token failed. The token in the target may still be good."""

    STALLED = "Stalled"
    """Negative: there is no token that can be used, and waiting will not bring one. kstatus reads it as failed."""

    TOKEN_ACCEPTED = "TokenAccepted"
    """What the server said of the token when it was last asked."""

    CREDENTIALS_AVAILABLE = "CredentialsAvailable"
    """The credentials Secret exists and holds an id and a secret."""


class Reason(enum.StrEnum):
    """Why a condition is as it is."""

    # Good.
    TOKEN_VALID = "TokenValid"
    REFRESHED = "Refreshed"
    ACCEPTED = "Accepted"
    CREDENTIALS_FOUND = "CredentialsFound"
    WHITESPACE_TRIMMED = "WhitespaceTrimmed"

    # Not known.
    PENDING = "Pending"
    NOT_PROBED = "NotProbed"
    PROBE_OFF = "ProbeOff"
    PROBE_INCONCLUSIVE = "ProbeInconclusive"
    APP_NOT_FOUND = "AppNotFound"
    KEYS_DISAGREE = "KeysDisagree"

    # The token.
    TOKEN_MISSING = "TokenMissing"
    TOKEN_EXPIRED = "TokenExpired"
    TOKEN_REFUSED = "TokenRefused"
    NEW_TOKEN_REFUSED = "NewTokenRefused"

    # What the user gave us.
    INVALID_SPEC = "InvalidSpec"
    CREDENTIALS_MISSING = "CredentialsMissing"
    CREDENTIALS_INCOMPLETE = "CredentialsIncomplete"
    CA_UNAVAILABLE = "CAUnavailable"
    TARGET_NOT_OWNED = "TargetNotOwned"
    TARGET_CONFLICT = "TargetConflict"
    TARGET_REFUSED = "TargetRefused"
    URL_NOT_ALLOWED = "URLNotAllowed"

    # What Squidex said.
    INVALID_CLIENT = "InvalidClient"
    UNAUTHORIZED_CLIENT = "UnauthorizedClient"
    INVALID_SCOPE = "InvalidScope"
    INVALID_REQUEST = "InvalidRequest"
    NOT_SQUIDEX = "NotSquidex"
    INVALID_RESPONSE = "InvalidResponse"
    REDIRECTED = "Redirected"
    FORBIDDEN = "Forbidden"
    RATE_LIMITED = "RateLimited"
    SERVER_ERROR = "ServerError"
    UNREACHABLE = "Unreachable"
    TIMEOUT = "Timeout"
    TLS_ERROR = "TLSError"

    # What Kubernetes said.
    KUBERNETES_ERROR = "KubernetesError"
    TERMINATING = "Terminating"

    # What we did wrong.
    INTERNAL_ERROR = "InternalError"


class Cause(enum.StrEnum):
    """Why a token is fetched or the target is written again: `status.lastRefreshReason`, events, metrics."""

    FIRST_TOKEN = "FirstToken"
    EXPIRING = "Expiring"
    EXPIRED = "Expired"
    REFUSED = "Refused"
    KEY_REPLACED = "KeyReplaced"
    CREDENTIALS_CHANGED = "CredentialsChanged"
    SPEC_CHANGED = "SpecChanged"
    TARGET_DELETED = "TargetDeleted"
    TARGET_DAMAGED = "TargetDamaged"
    TARGET_RENAMED = "TargetRenamed"
    TARGET_DRIFTED = "TargetDrifted"
    ADOPTED = "Adopted"
