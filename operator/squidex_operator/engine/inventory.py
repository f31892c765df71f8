"""What was last seen of the cluster, and what this process remembers of each SquidexClient.

Fed by Kopf's events, by lists, and by the answers to our own writes; no secret is kept, but for a token that was fetched and
is not written yet. An object is only ever replaced by a newer version of itself: a watch that lags behind our own write
must not bring the old state back.
"""

import collections
import dataclasses
import datetime as dt
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from squidex_operator.api import names, reasons, resource
from squidex_operator.policy import backoff, conditions, observed, render, schedule
from squidex_operator.policy import credentials as credentials_policy


class Key(NamedTuple):
    """A SquidexClient's name, or a Secret's."""

    namespace: str
    name: str


@dataclasses.dataclass
class PendingToken:
    """A token that was fetched and is not written yet."""

    grant: render.Grant
    inputs_hash: str
    cause: reasons.Cause
    credentials: credentials_policy.CredentialsSeen
    verdict: tuple[observed.Verdict, str] | None

    @property
    def summary(self) -> observed.Pending:
        """The same, without the token."""
        return observed.Pending(self.inputs_hash, self.grant.expires_at)


@dataclasses.dataclass(slots=True)
class Record:
    """One SquidexClient."""

    client: observed.Client
    fetches: schedule.Bucket
    repairs: schedule.Bucket
    credentials: credentials_policy.CredentialsSeen | backoff.Problem | observed.Unknown = observed.UNKNOWN
    fetched_with: credentials_policy.CredentialsSeen | None = None
    credentials_due: dt.datetime | None = None
    probe_due: dt.datetime | None = None
    probed: observed.Probed | None = None
    failure: backoff.Failure | None = None
    interrupted: backoff.Failure | None = None
    """The failure whose wait goes on when what is in the way in the cluster is out of it, and nothing else has changed."""
    meanwhile: backoff.Failure | None = None
    """What failed while the wait after `failure` was under way, which it must neither shorten nor begin anew."""
    written: frozenset[str] = frozenset()
    """Targets that were written and that the status does not name yet: the name may have been changed meanwhile."""
    pending: PendingToken | None = None
    refused: PendingToken | None = None
    """Fetched, and refused by the server that issued it."""
    gave_up: bool = False
    """The one before `refused` was given up early, because its key had vanished."""
    refreshed: conditions.Refreshed | None = None
    key_retry_at: dt.datetime | None = None
    key_retries: int = 0
    key_asked: str = ""
    """`data_hash` of the token that the server was asked about because its key had vanished."""
    key_noted_at: dt.datetime | None = None
    """When a token was last fetched because the one before was refused, or its key had vanished."""
    report_failures: int = 0


@dataclasses.dataclass(frozen=True)
class Limits:
    """The last guards against a flood, for each SquidexClient: a burst, then one per interval."""

    fetch_interval: dt.timedelta = dt.timedelta(minutes=1)
    fetch_burst: int = 10
    repair_interval: dt.timedelta = dt.timedelta(minutes=1)
    repair_burst: int = 10


class Inventory:
    """All that was seen. Methods return the keys of the SquidexClients that a change concerns."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.records: dict[Key, Record] = {}
        self.targets: dict[Key, observed.TargetSeen] = {}
        self._credentials: dict[Key, tuple[str, str]] = {}
        self._by_uid: dict[str, Key] = {}
        self._by_target: collections.defaultdict[Key, set[Key]] = collections.defaultdict(set)
        self._by_credentials: collections.defaultdict[Key, set[Key]] = collections.defaultdict(set)
        self._by_server: collections.defaultdict[str, dict[Key, None]] = collections.defaultdict(dict)
        """In the order in which they came: each is asked about every few minutes, for thousands of servers."""
        self._gone: collections.OrderedDict[str, str] = collections.OrderedDict()
        """uid -> version of what went: a list or an answer that was under way must not bring it back."""

    def see_client(self, body: Mapping[str, Any]) -> set[Key]:
        """A SquidexClient as it is now. Nothing is concerned by what others wrote to its status or metadata."""
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        version = metadata["resourceVersion"]
        record = self.records.get(key)
        if record is not None and not _is_newer(version, record.client.resource_version):
            return set()  # before it is read: a list of thousands that changed nothing is to cost nothing
        if self._is_gone(metadata["uid"], version):
            return set()
        client = read_client(body, record.client if record is not None else None)
        if record is None or record.client.uid != client.uid:
            self.forget_client(key)
            self.records[key] = self._new_record(client)
            self._index(key, client)
            return {key}
        old = record.client
        record.client = client
        changed = client.generation != old.generation or client.deleting != old.deleting
        if client.generation != old.generation:
            self._unindex(key, old)
            self._index(key, client)
            record.credentials = observed.UNKNOWN
            record.credentials_due = record.probe_due = None
        return {key} if changed else set()

    def forget_client(self, key: Key, uid: str | None = None, version: str = "") -> bool:
        """A SquidexClient that is gone, at that version. With a uid: that one, not its successor. True where one was known."""
        record = self.records.get(key)
        if version and uid:
            self._note_gone(uid, version)
        if record is None or (uid is not None and record.client.uid != uid):
            return False
        self._note_gone(record.client.uid, record.client.resource_version)
        self._unindex(key, record.client)
        del self.records[key]
        return True

    def see_secret(self, body: Mapping[str, Any]) -> set[Key]:
        """A Secret with a role, as it is now."""
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        uid, version = metadata["uid"], metadata["resourceVersion"]
        known = self.known_secret(key)
        if (known is not None and not _is_newer(version, known[1])) or self._is_gone(uid, version):
            return set()
        if (metadata.get("labels") or {}).get(names.LABEL_ROLE) == names.ROLE_CREDENTIALS:
            return self._drop_target(key) | self._see_credentials(key, uid, version)
        concerned = self._drop_target(key) | self._forget_credentials(key)
        seen = self.targets[key] = render.read_target(body)
        return concerned | self._concerned_by(key, seen)

    def forget_secret(self, key: Key, uid: str | None = None, version: str = "") -> set[Key]:
        """A Secret that is gone, or that lost its role, at that version. With a uid: that one, not its successor."""
        if version and uid:
            self._note_gone(uid, version)
        known = self.known_secret(key)
        if known is None or (uid is not None and known[0] != uid):
            return set()
        if version and is_older(version, known[1]):
            return set()  # it has its role again, we know already
        self._note_gone(*known)
        return self._drop_target(key) | self._forget_credentials(key)

    def known_secret(self, key: Key) -> tuple[str, str] | None:
        """uid and resourceVersion of a Secret with a role."""
        seen = self.targets.get(key)
        return (seen.uid, seen.resource_version) if seen is not None else self._credentials.get(key)

    def watched_credentials(self, client: observed.Client) -> tuple[str, str] | None:
        """uid and resourceVersion of a client's credentials Secret, where it is labelled."""
        if client.spec is None:
            return None
        return self._credentials.get(Key(client.namespace, client.spec.credentials_secret_ref.name))

    def former_targets(self, record: Record) -> tuple[observed.TargetSeen, ...]:
        """The Secrets that were this client's target before a rename.

        Those that its status names, or that this process wrote, and nobody's copy of one.
        """
        client = record.client
        before = record.written | {str((client.status.get("target") or {}).get("name", ""))}
        found = [self.targets.get(Key(client.namespace, name)) for name in sorted(before - {client.target_name})]
        return tuple(
            seen
            for seen in found
            if seen and not seen.deleting and seen.client_uid == client.uid and client.uid in seen.owner_uids
        )

    def other_owner(self, client: observed.Client, seen: observed.TargetSeen) -> bool:
        """Whether a Secret is that of another SquidexClient that lives."""
        owners = {seen.client_uid, *seen.owner_uids} - {client.uid}
        return any(owner in self._by_uid for owner in owners)

    def claimed(self, client: observed.Client) -> bool:
        """Whether an older SquidexClient names the same target."""
        rivals = self._by_target[Key(client.namespace, client.target_name)] - {Key(client.namespace, client.name)}
        mine = (client.created, client.uid)
        return any((self.records[key].client.created, self.records[key].client.uid) < mine for key in rivals)

    def clock_set_back(self) -> list[Key]:
        """Times that were kept may be hours away now: they are set anew. All SquidexClients, to be looked at."""
        for record in self.records.values():
            record.probe_due = record.credentials_due = record.key_retry_at = None
        return list(self.records)

    def versions(self) -> tuple[dict[Key, str], dict[Key, str]]:
        """resourceVersions of all SquidexClients, and of all Secrets with a role, as last seen."""
        clients = {key: record.client.resource_version for key, record in self.records.items()}
        secrets = {key: seen.resource_version for key, seen in self.targets.items()}
        return clients, secrets | {key: version for key, (_, version) in self._credentials.items()}

    def of_server(self, base_url: str) -> Iterator[tuple[Key, Record]]:
        """The SquidexClients of one Squidex."""
        for key in self._by_server.get(base_url, ()):
            yield key, self.records[key]

    def awaits_first_token_of(self, key: Hashable) -> str | None:
        """The server of a SquidexClient that never had a token; None where it had one, or is no SquidexClient."""
        record = self.records.get(key)  # type: ignore[call-overload]  # other keys are not in there
        if record is None or record.client.spec is None or record.client.status.get("lastRefreshTime"):
            return None
        seen = self.targets.get(Key(record.client.namespace, record.client.target_name))
        return record.client.spec.host if seen is None else None

    def _note_gone(self, uid: str, version: str) -> None:
        if not self._is_gone(uid, version):
            self._gone[uid] = version
            self._gone.move_to_end(uid)
        if len(self._gone) > _GONE_KEPT:
            self._gone.popitem(last=False)

    def _is_gone(self, uid: str, version: str) -> bool:
        gone_at = self._gone.get(uid)
        return gone_at is not None and not _is_newer(version, gone_at)

    def _new_record(self, client: observed.Client) -> Record:
        limits = self._limits
        return Record(
            client=client,
            fetches=schedule.Bucket(1 / limits.fetch_interval.total_seconds(), limits.fetch_burst),
            repairs=schedule.Bucket(1 / limits.repair_interval.total_seconds(), limits.repair_burst),
            failure=failure_from(client),
        )

    def _see_credentials(self, key: Key, uid: str, version: str) -> set[Key]:
        self._credentials[key] = (uid, version)
        concerned = set()
        for client_key in self._by_credentials.get(key, ()):
            record = self.records[client_key]
            known = record.credentials
            if isinstance(known, credentials_policy.CredentialsSeen) and (known.uid, known.resource_version) == (
                uid,
                version,
            ):
                continue
            if known is not observed.UNKNOWN:
                record.credentials = observed.UNKNOWN
                record.credentials_due = _AT_ONCE
            concerned.add(client_key)
        return concerned

    def _forget_credentials(self, key: Key) -> set[Key]:
        if self._credentials.pop(key, None) is None:
            return set()
        concerned = set(self._by_credentials.get(key, ()))
        for client_key in concerned:
            self.records[client_key].credentials_due = _AT_ONCE
        return concerned

    def _drop_target(self, key: Key) -> set[Key]:
        old = self.targets.pop(key, None)
        if old is None:
            return set()
        return self._concerned_by(key, old)

    def _concerned_by(self, key: Key, seen: observed.TargetSeen) -> set[Key]:
        owners = {self._by_uid[uid] for uid in (seen.client_uid, *seen.owner_uids) if uid in self._by_uid}
        return owners | self._by_target.get(key, set())

    def _index(self, key: Key, client: observed.Client) -> None:
        self._by_uid[client.uid] = key
        self._by_target[Key(client.namespace, client.target_name)].add(key)
        if client.spec is not None:
            self._by_credentials[Key(client.namespace, client.spec.credentials_secret_ref.name)].add(key)
            self._by_server[client.spec.base_url][key] = None

    def _unindex(self, key: Key, client: observed.Client) -> None:
        self._by_uid.pop(client.uid, None)
        places: Iterable[tuple[collections.defaultdict[Key, set[Key]], str]] = [
            (self._by_target, client.target_name),
            (self._by_credentials, client.spec.credentials_secret_ref.name if client.spec else ""),
        ]
        for index, name in places:
            index[Key(client.namespace, name)].discard(key)
            if not index[Key(client.namespace, name)]:
                del index[Key(client.namespace, name)]
        if client.spec is not None:
            self._by_server[client.spec.base_url].pop(key, None)
            if not self._by_server[client.spec.base_url]:
                del self._by_server[client.spec.base_url]


_GONE_KEPT = 4096
"""More than goes while a list is under way."""

_AT_ONCE = dt.datetime.min.replace(tzinfo=dt.UTC)


def read_client(body: Mapping[str, Any], known: observed.Client | None = None) -> observed.Client:
    """A SquidexClient from the API server's answer. `known` is it as it was: a spec that did not change is not read again."""
    metadata = body["metadata"]
    spec: resource.Spec | None = None
    error = ""
    if known is not None and (known.uid, known.generation) == (metadata["uid"], metadata.get("generation", 0)):
        spec, error = known.spec, known.spec_error
    else:
        try:
            spec = resource.parse_spec(body.get("spec") or {})
        except ValueError as failure:
            error = str(failure)
    return observed.Client(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        created=metadata.get("creationTimestamp") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        spec=spec,
        spec_error=error,
        status=_plain(body.get("status") or {}),
    )


def failure_from(client: observed.Client) -> backoff.Failure | None:
    """The last failure, from the status: a restart must not start all backoffs anew."""
    status = client.status
    at, next_attempt = (render.parse_time(status.get(key)) for key in ("lastFailureTime", "nextAttemptTime"))
    found = client.condition(reasons.ConditionType.REFRESH_FAILING)
    if not status.get("failures") or at is None or next_attempt is None or found.get("status") != "True":
        return None
    try:
        reason = reasons.Reason(found.get("reason", ""))
    except ValueError:
        return None
    # The kind is not in the status; the length of the wait tells it well enough.
    kind = backoff.Kind.PERMANENT if next_attempt - at > dt.timedelta(hours=2) else backoff.Kind.TRANSIENT
    if reason is reasons.Reason.URL_NOT_ALLOWED:
        next_attempt = at  # at once: what is allowed are flags of this process, and to ask them costs nothing
    message = str(found.get("message") or "").partition(conditions.NEXT_TRY)[0]
    return backoff.Failure(
        problem=backoff.Problem(kind, reason, message),
        count=int(status["failures"]),
        at=at,
        next_attempt=next_attempt,
        generation=status.get("observedGeneration", 0),
        inputs_hash=status.get("failedInputsHash", ""),
    )


def is_older(version: str, known: str) -> bool:
    """Whether a resourceVersion is older. Kubernetes guarantees since 1.35 that they are numbers that grow (KEP-5504)."""
    return version.isdigit() and known.isdigit() and int(version) < int(known)


def _is_newer(version: str, known: str) -> bool:
    return version != known and not is_older(version, known)


_WORDS = {
    str(word): str(word)
    for word in (*reasons.Reason, *reasons.Cause, *reasons.ConditionType, "True", "False", "Unknown")
}


def _plain(value: Any) -> Any:
    """A plain copy: Kopf hands out views that keep the whole object alive."""
    # Each event brings words of its own: thousands of SquidexClients are to share one of each.
    if isinstance(value, str):
        return _WORDS.get(value, value)  # most of them: the test for a Mapping is slow
    if isinstance(value, Mapping):
        return {sys.intern(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
