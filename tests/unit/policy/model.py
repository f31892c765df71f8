"""A tiny world without I/O that does what `decide` says: two Squidexes, a namespace, and what a process remembers.

It is the engine's part in the fewest words, so that the rules can be tried against any order of events in microseconds.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime as dt
from typing import Any

from squidex_operator.api import names, reasons
from squidex_operator.policy import (
    backoff,
    conditions,
    credentials,
    decide,
    jwt,
    observed,
    render,
    schedule,
)
from tests.unit.policy import situation

LIFETIME = dt.timedelta(days=30)
MOST_STEPS = 16
SERVERS = ("https://cms.example.com", "https://b.example")
ACTING = (decide.Fetch, decide.Publish, decide.Remove, decide.Probe)


@dataclasses.dataclass
class Memory:
    """What a process knows, and a restart loses."""

    credentials: Any = observed.UNKNOWN
    fetched_with: credentials.CredentialsSeen | None = None
    pending: tuple[render.Grant, str, credentials.CredentialsSeen, Any] | None = None
    probed: observed.Probed | None = None
    failure: backoff.Failure | None = None
    credentials_due: dt.datetime | None = None
    probe_due: dt.datetime | None = None
    fetches: schedule.Bucket = dataclasses.field(default_factory=lambda: schedule.Bucket(1 / 60, 10))


class World:
    """One SquidexClient `shop`, and what is around it."""

    def __init__(self) -> None:
        self.now = situation.NOW
        self.uid, self.generation, self.versions = situation.UID, 1, 100
        self.spec: dict[str, Any] = {"url": SERVERS[0], "credentialsSecretRef": {"name": "keys"}}
        self.parsed = situation.spec(**self.spec)
        self._plain = situation.client(uid=self.uid)
        self.status: dict[str, Any] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.client_id, self.client_secret = "shop:default", "right"
        self.credentials_there, self.credentials_version, self.labelled = True, 1, True
        self.namespace_goes = False
        self.down, self.refuses_new, self.unwritable = False, False, False
        self.keys = dict.fromkeys(SERVERS, 1)
        self.memory = Memory()
        self.requests: list[reasons.Cause] = []
        self.granted = 0

    # What others do.

    def edit(self, **fields: Any) -> None:
        """The spec is edited: the engine looks at the credentials again, and asks the server in a while."""
        self.spec |= fields
        self.parsed = situation.spec(**self.spec)
        self.generation += 1
        self.memory.credentials = observed.UNKNOWN
        self.memory.credentials_due = self.memory.probe_due = None

    def touch_credentials(self) -> None:
        """The credentials Secret has another version; the watch says so where it is labelled."""
        self.credentials_version += 1
        if self.labelled and self.memory.credentials is not observed.UNKNOWN:
            self.memory.credentials = observed.UNKNOWN
            self.memory.credentials_due = self.now

    def change_secret(
        self, *, labels: Any = None, annotations: Any = None, owners: Any = None, **data: str | None
    ) -> None:
        """Somebody edits the target; None takes a key of `data` away."""
        body = self.secrets.get(self.target_name)
        if body is None:
            return
        metadata = body["metadata"]
        metadata["labels"] = metadata["labels"] if labels is None else labels
        metadata["annotations"] = metadata["annotations"] if annotations is None else annotations
        metadata["ownerReferences"] = metadata.get("ownerReferences", []) if owners is None else owners
        for key, value in data.items():
            body["data"].pop(key, None)
            if value is not None:
                body["data"][key] = base64.b64encode(value.encode()).decode()
        self._bump(body)

    # What is the case.

    @property
    def target_name(self) -> str:
        """The target's name."""
        return str(self.spec.get("target", {}).get("name", "shop"))

    def accepts(self, server: str, token: str) -> bool:
        """Whether a server accepts a token."""
        claims = jwt.read(token)
        mine = self.issuer(token) == server
        return claims is not None and mine and claims.key_id == f"{server} {self.keys[server]}"

    def issuer(self, token: str) -> str:
        """The server that issued a token; empty for what is none."""
        claims = jwt.read(token)
        return claims.key_id.partition(" ")[0] if claims else ""

    def token(self) -> str:
        """The token in the target; empty where there is none."""
        data = self.secrets.get(self.target_name, {}).get("data", {})
        return base64.b64decode(data.get("token", "")).decode(errors="replace")

    def is_good(self) -> bool:
        """The target is ours and holds a token of the right server and client, alive and accepted."""
        body = self.secrets.get(self.target_name)
        if body is None or not self._is_mine(body):
            return False
        seen, token = render.read_target(body), self.token()
        claims = jwt.read(token)
        alive = seen.token_intact and seen.expires_at is not None and self.now < seen.expires_at
        of_client = claims is not None and claims.client_id == self.client_id
        return alive and of_client and self.accepts(self.spec["url"].rstrip("/"), token)

    def is_due(self) -> bool:
        """The renewal of the token in the target is due."""
        seen = self._seen(self.target_name)
        due = checks_due(self.observe(seen))
        if seen is None or due is None or seen.issued_at is None or seen.expires_at is None:
            return False
        # After the clock was set back by so much, it dies before it is due.
        return self.now >= due or seen.issued_at - self.now > seen.expires_at - due

    def foreign(self) -> dict[str, dict[str, Any]]:
        """Secrets that name neither this SquidexClient nor one that is gone."""
        return {name: copy.deepcopy(body) for name, body in self.secrets.items() if not self._is_mine(body)}

    def client(self) -> observed.Client:
        """The SquidexClient as it is."""
        return dataclasses.replace(self._plain, generation=self.generation, spec=self.parsed, status=self.status)

    def observe(self, target: Any, namespace: Any = observed.UNKNOWN) -> observed.Observed:
        """What the engine hands to `decide`."""
        memory, client = self.memory, self.client()
        watched = ("uid-of-credentials", str(self.credentials_version))
        former = self._seen((self.status.get("target") or {}).get("name", ""))
        is_former = former is not None and former.name != self.target_name and former.client_uid == self.uid
        return observed.Observed(
            client=client,
            target=target,
            credentials=memory.credentials,
            watched_credentials=watched if self.labelled and self.credentials_there else None,
            former_targets=(former,) if former is not None and is_former and self.uid in former.owner_uids else (),
            namespace_terminating=namespace,
            fetched_with=memory.fetched_with,
            pending=observed.Pending(memory.pending[1], memory.pending[0].expires_at) if memory.pending else None,
            probed=memory.probed,
            failure=memory.failure,
            credentials_due=memory.credentials_due,
            probe_due=memory.probe_due,
            fetch_allowed=memory.fetches.take(self.now)[0],
        )

    # What the operator does.

    def reconcile(self) -> list[decide.Decision]:
        """One pass: the steps that were taken. The status is written at its end."""
        memory, taken = self.memory, list[decide.Decision]()
        target: Any = observed.UNKNOWN
        namespace: Any = observed.UNKNOWN
        interval = self.parsed.probe.interval
        if memory.probe_due is None:
            memory.probe_due = self.now + interval
        if memory.credentials_due is None and not self.labelled:
            memory.credentials_due = self.now + interval
        stopped = None
        for _ in range(MOST_STEPS):
            step = decide.decide(self.now, self.observe(target, namespace))
            taken.append(step)
            if isinstance(step, decide.Stop):
                stopped = step.problem
                break
            if isinstance(step, decide.Blocked):
                self._fail(step.problem)
                break
            if isinstance(step, decide.Wait):
                if step.settled:
                    memory.failure = memory.pending = None
                break
            if step == decide.Look(decide.Subject.NAMESPACE):
                namespace = self.namespace_goes
            self._act(step)
            target = self._seen(self.target_name)
        else:
            raise AssertionError(f"no end: {taken}")
        self.status = conditions.build(self.now, self.observe(target, namespace), stopped=stopped)
        return taken

    def _act(self, step: decide.Decision) -> None:
        match step:
            case decide.Look(decide.Subject.CREDENTIALS):
                self._look_at_credentials()
            case decide.Fetch(cause):
                self._fetch(cause)
            case decide.Publish():
                self._publish(step)
            case decide.Remove(former):
                del self.secrets[former.name]
            case decide.Probe():
                self._probe()

    def _look_at_credentials(self) -> None:
        memory, ref = self.memory, self.parsed.credentials_secret_ref
        memory.credentials_due = None if self.labelled else self.now + dt.timedelta(minutes=1)
        if not self.credentials_there:
            memory.credentials = credentials.missing(ref)
            memory.credentials_due = self.now + dt.timedelta(minutes=1)
            return
        memory.credentials = credentials.CredentialsSeen(
            uid="uid-of-credentials",
            resource_version=str(self.credentials_version),
            client_id=self.client_id,
            trimmed=False,
            fingerprint=f"{self.client_id} {self.client_secret}",
        )
        seen = self._seen(self.target_name)
        if seen and seen.inputs_hash == render.inputs_of(self.parsed, memory.credentials):
            memory.fetched_with = memory.credentials

    def _fetch(self, cause: reasons.Cause) -> None:
        memory, spec = self.memory, self.parsed
        # The secret is read when it is needed, and never kept.
        self._look_at_credentials()
        seen, server = memory.credentials, spec.base_url
        if isinstance(seen, backoff.Problem):
            return
        _, memory.fetches = memory.fetches.take(self.now)
        memory.pending = None
        self.requests.append(cause)
        if self.down:
            self._fail(backoff.Problem(backoff.Kind.TRANSIENT, reasons.Reason.SERVER_ERROR, "It is down."))
            return
        if self.client_secret == "wrong":
            self._fail(backoff.Problem(backoff.Kind.PERMANENT, reasons.Reason.INVALID_CLIENT, "It is wrong."))
            return
        self.granted += 1
        if self.refuses_new:
            self._fail(backoff.Problem(backoff.Kind.TRANSIENT, reasons.Reason.NEW_TOKEN_REFUSED, "It is refused."))
            assert memory.failure is not None
            memory.probe_due = memory.failure.next_attempt
            return
        kid = f"{server} {self.keys[server]}"
        token = situation.jwt(kid=kid, client_id=self.client_id, jti=self.granted)
        granted = render.Grant(token, self.now, self.now + LIFETIME, kid, self.client_id)
        memory.pending = (granted, render.inputs_of(spec, seen), seen, (observed.Verdict.ACCEPTED, "It is accepted."))

    def _publish(self, step: decide.Publish) -> None:
        memory, client = self.memory, self.client()
        assert client.spec is not None
        pending = memory.pending if step.source is decide.Source.PENDING else None
        if pending is not None:
            granted, inputs = pending[0], pending[1]
        else:
            body = self.secrets[step.name or self.target_name]
            read = render.read_grant(body)
            assert read is not None, "a token that is not whole is written again"
            granted, inputs = read, render.read_target(body).inputs_hash
            if isinstance(memory.credentials, credentials.CredentialsSeen):
                inputs = render.inputs_of(client.spec, memory.credentials)
        there = self.secrets.get(self.target_name)
        assert there is None or self._is_mine(there), "a foreign Secret is written to"
        if self.unwritable:
            self._fail(backoff.Problem(backoff.Kind.CLUSTER, reasons.Reason.TARGET_CONFLICT, "It is held."))
            return
        written = render.target_secret(client, client.spec, granted, inputs)
        if there is not None:
            written["data"] = there["data"] | written["data"]
        self.secrets[self.target_name] = self._bump(written)
        if isinstance(memory.credentials, credentials.CredentialsSeen):
            memory.fetched_with = memory.credentials
        if pending is not None:
            memory.pending = memory.failure = None
            memory.fetched_with = pending[2]
            memory.probed = observed.Probed(*pending[3], data_hash=render.read_target(written).data_hash)
            memory.probe_due = self.now + dt.timedelta(hours=1)

    def _probe(self) -> None:
        memory, spec = self.memory, self.parsed
        memory.probe_due = self.now + spec.probe.interval
        assert self.issuer(self.token()) == spec.base_url, "a token is shown to another server"
        seen = self._seen(self.target_name)
        if self.down or seen is None:
            return
        accepted = self.accepts(spec.base_url, self.token())
        verdict = observed.Verdict.ACCEPTED if accepted else observed.Verdict.REFUSED
        memory.probed = observed.Probed(verdict, "It says so.", seen.data_hash)

    def _fail(self, problem: backoff.Problem) -> None:
        memory, seen = self.memory, self.memory.credentials
        known = isinstance(seen, credentials.CredentialsSeen)
        inputs = render.inputs_of(self.parsed, seen) if known else ""
        memory.failure = backoff.next_failure(
            memory.failure, problem, now=self.now, generation=self.generation, inputs_hash=inputs, draw=0.5
        )

    def _seen(self, name: str) -> observed.TargetSeen | None:
        body = self.secrets.get(name)
        return render.read_target(body) if body else None

    def _is_mine(self, body: dict[str, Any]) -> bool:
        annotation = body["metadata"]["annotations"].get(names.ANNOTATION_CLIENT_UID)
        owners = [owner["uid"] for owner in body["metadata"].get("ownerReferences", [])]
        return self.uid in (annotation, *owners)

    def _bump(self, body: dict[str, Any]) -> dict[str, Any]:
        self.versions += 1
        body["metadata"] |= {"resourceVersion": str(self.versions)}
        body["metadata"].setdefault("uid", f"uid-{self.versions}")
        return body


def checks_due(o: observed.Observed) -> dt.datetime | None:
    """When the token in the target is to be renewed."""
    seen, spec = o.target, o.client.spec
    if not isinstance(seen, observed.TargetSeen) or spec is None or not seen.issued_at or not seen.expires_at:
        return None
    return schedule.renewal_due(seen.issued_at, seen.expires_at, spec.refresh, o.client.uid)
