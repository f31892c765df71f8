"""The steps that a decision can ask for: look, fetch, publish, probe, remove. Each does one thing and records what it saw."""

import dataclasses
import datetime as dt
import logging
import time

from squidex_operator.api import names, reasons, resource
from squidex_operator.engine import hosts, inventory, tools, trust
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff, conditions, decide, observed, render, schedule
from squidex_operator.policy import credentials as credentials_policy
from squidex_operator.squidex import errors as squidex_errors
from squidex_operator.squidex import probe, tokens

logger = logging.getLogger(__name__)

_CREDENTIALS_RECHECK = dt.timedelta(minutes=1)
"""How soon credentials that are missing, or that failed, are looked at again where they are not watched: one GET."""

_REFUSED_KEPT = dt.timedelta(hours=1)
"""How long a new token that was refused is asked about again before another is fetched."""


class FailedError(Exception):
    """A step failed in a foreseen way: the problem becomes the SquidexClient's failure."""

    def __init__(self, problem: backoff.Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclasses.dataclass
class Pass:
    """One reconcile of one SquidexClient: what was looked at in it, and is forgotten after it."""

    key: inventory.Key
    record: inventory.Record
    target: observed.TargetSeen | observed.Unknown | None = observed.UNKNOWN
    credentials: credentials_policy.Credentials | None = None
    namespace_terminating: bool | observed.Unknown = observed.UNKNOWN
    events: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)

    @property
    def spec(self) -> resource.Spec:
        """The spec; there is one where a step is taken."""
        spec = self.record.client.spec
        if spec is None:
            raise RuntimeError("a step was decided on without a spec")
        return spec

    @property
    def target_key(self) -> inventory.Key:
        """The target Secret's name."""
        return inventory.Key(self.key.namespace, self.record.client.target_name)

    def target_seen(self, known: inventory.Inventory) -> observed.TargetSeen | observed.Unknown | None:
        """The Secret in the target's place: as it was looked at in this pass, else as the watch knows it."""
        return known.targets.get(self.target_key, self.target) if self.target is observed.UNKNOWN else self.target


async def look(t: tools.Tools, p: Pass, subject: decide.Subject) -> None:
    """Look at one thing with one GET."""
    match subject:
        case decide.Subject.TARGET:
            await _look_at_target(t, p)
        case decide.Subject.CREDENTIALS:
            await _look_at_credentials(t, p)
        case decide.Subject.NAMESPACE:
            body = await t.gateway.get_namespace(p.key.namespace)
            p.namespace_terminating = bool(body["metadata"].get("deletionTimestamp"))


async def fetch(t: tools.Tools, p: Pass, cause: reasons.Cause) -> None:
    """Fetch a token and ask the server about it: it is pending then."""
    record, spec, host = p.record, p.spec, p.spec.host
    if at := t.hosts.turn(host, p.key):
        raise hosts.NotYetError(at)
    if p.credentials is None:
        await _look_at_credentials(t, p)
    ca = await trusted_ca(t, p)
    found, seen = p.credentials, record.credentials
    if found is None or not isinstance(seen, credentials_policy.CredentialsSeen):
        return  # they went meanwhile, or the spec names others now: decide again
    async with t.hosts.request(host, p.key, fetch=True):
        if t.inventory.records.get(p.key) is not record or record.credentials is not seen:
            return  # it went, or something changed, while it waited for its place: decide again
        # The pending token of other credentials, or of another spec, is of no use any more.
        record.pending = None
        inputs = render.inputs_of(spec, seen)
        grant = _refused_before(t, p, inputs)
        if grant is None:
            _, record.fetches = record.fetches.take(t.now())
            grant = await _request_token(t, spec, found, cause, ca)
        verdict = await _first_probe(t, spec, grant, found.client_id, ca)
    fetched = inventory.PendingToken(grant, inputs, cause, seen, verdict)
    if verdict is not None and verdict[0] is observed.Verdict.REFUSED:
        record.refused = fetched
        raise FailedError(
            backoff.Problem(
                backoff.Kind.TRANSIENT,
                reasons.Reason.NEW_TOKEN_REFUSED,
                f"{host} refuses a token that it has just issued: do its replicas have different keys, or is it behind "
                "a proxy that drops the Authorization header? The token in the Secret is kept.",
            )
        )
    record.pending, record.refused = fetched, None


def _refused_before(t: tools.Tools, p: Pass, inputs: str) -> render.Grant | None:
    """The token that was refused when it was new, where it may be accepted by now: each new one stays in Squidex for good."""
    kept = p.record.refused
    if kept is None or kept.inputs_hash != inputs or not t.now() < kept.grant.expires_at:
        return None
    if abs(t.now() - kept.grant.issued_at) > _REFUSED_KEPT:
        return None
    return kept.grant if t.servers.publishes(p.spec.base_url, kept.grant.key_id) is not False else None


async def publish(t: tools.Tools, p: Pass, step: decide.Publish) -> None:
    """Write a token to the target."""
    record, spec = p.record, p.spec
    pending = record.pending if step.source is decide.Source.PENDING else None
    if pending is not None:
        grant, inputs = pending.grant, pending.inputs_hash
    else:
        name = step.name if step.source is decide.Source.FORMER else record.client.target_name
        body = await _get_target(t, p, name)
        read = render.read_grant(body) if body is not None else None
        if body is None or read is None:
            p.target = observed.UNKNOWN
            return  # it changed meanwhile: look again, decide again
        grant, inputs = read, render.read_target(body).inputs_hash
        if isinstance(record.credentials, credentials_policy.CredentialsSeen):
            inputs = render.inputs_of(spec, record.credentials)
    try:
        written = await _write(t, p, render.target_secret(record.client, spec, grant, inputs), step)
    except kube_errors.TerminatingError:
        raise
    except kube_errors.RefusedError as error:
        problem = dataclasses.replace(error.problem, reason=reasons.Reason.TARGET_REFUSED)
        raise FailedError(problem) from None
    t.inventory.see_secret(written)
    p.target = observed.UNKNOWN
    t.metrics.publishes.labels(cause=step.cause).inc()
    cause = pending.cause if pending is not None else step.cause
    logger.info("published key=%s/%s secret=%s cause=%s token=%r", *p.key, record.client.target_name, cause, grant)
    until = render.format_time(grant.expires_at)
    if not (cause is reasons.Cause.FIRST_TOKEN and record.failure is None):
        # A first token that comes at once is no news: the conditions say it, and a thousand of them would be a flood.
        text = f"Wrote a token valid until {until} to Secret {record.client.target_name!r}."
        if step.source is decide.Source.TARGET:
            text = f"Mended Secret {record.client.target_name!r}; its token is the same as before."
        p.events.append(("Normal", str(cause), text))
    if pending is None:
        if isinstance(record.credentials, credentials_policy.CredentialsSeen):
            # The target names this version of the credentials now; the next edit of metadata is compared with it.
            record.fetched_with = record.credentials
        return
    seen = t.inventory.targets[p.target_key]
    record.failure = record.pending = None
    record.refreshed = conditions.Refreshed(t.now(), cause)
    record.fetched_with = pending.credentials
    if pending.verdict is not None:
        record.probed = observed.Probed(*pending.verdict, data_hash=seen.data_hash)
    _note_key(t, p, cause, grant)
    _schedule_probe(t, p)


async def remove(t: tools.Tools, p: Pass, former: observed.TargetSeen) -> None:
    """Delete a former target: the very Secret that was seen."""
    try:
        await t.gateway.delete_secret(
            p.key.namespace, former.name, uid=former.uid, resource_version=former.resource_version
        )
    except kube_errors.NotFoundError:
        pass
    except kube_errors.StaleError:
        logger.info("former target changed meanwhile key=%s/%s secret=%s", *p.key, former.name)
        await _get_target(t, p, former.name)
        return  # decide again by what it is now
    t.inventory.forget_secret(inventory.Key(p.key.namespace, former.name), former.uid)


async def ask(t: tools.Tools, p: Pass) -> None:
    """Ask the server about the token in the target."""
    record, spec = p.record, p.spec
    # The next time is set first: whatever happens now, nobody asks again at once.
    _schedule_probe(t, p)
    body = await _get_target(t, p, record.client.target_name)
    grant = render.read_grant(body) if body is not None else None
    if body is None or grant is None:
        return
    client_id = grant.client_id
    if isinstance(record.credentials, credentials_policy.CredentialsSeen):
        client_id = record.credentials.client_id
    try:
        ca = await trusted_ca(t, p)
        async with t.hosts.request(spec.host, p.key, fetch=False):
            verdict, message = await probe.ask(
                t.http, spec.base_url, grant, mode=spec.probe.mode, client_id=client_id, ca=ca
            )
    except FailedError as error:
        # No CA, no probe. The token is as good as it was; its renewal will fail loudly.
        verdict, message = observed.Verdict.INCONCLUSIVE, error.problem.message
    except hosts.NotYetError as error:
        record.probe_due = error.at
        raise
    t.metrics.probes.labels(result=verdict.value).inc()
    data_hash = render.read_target(body).data_hash
    was = (record.probed.verdict, record.probed.data_hash) if record.probed else None
    if verdict is observed.Verdict.INCONCLUSIVE and was == (observed.Verdict.REFUSED, data_hash):
        return  # a time-out does not bring a dead token back to life
    record.probed = observed.Probed(verdict, message, data_hash)
    if verdict is observed.Verdict.REFUSED:
        logger.warning("token refused key=%s/%s url=%s", *p.key, spec.base_url)


def awaits_turn(t: tools.Tools, p: Pass) -> dt.datetime | None:
    """When a SquidexClient that plainly needs a token may send for one; None for now, or where it is not that plain.

    Asked before anything is looked at: a thousand new SquidexClients that wait for their turn cost no GET meanwhile.
    """
    record, client = p.record, p.record.client
    if client.spec is None or client.deleting or record.pending is not None or p.target_key in t.inventory.targets:
        return None
    if record.failure is not None or isinstance(record.credentials, backoff.Problem):
        return None
    return t.hosts.turn(client.spec.host, p.key)


def held_up(t: tools.Tools, p: Pass) -> backoff.Problem | None:
    """What to tell a SquidexClient without a token that has to wait because its server asked others to."""
    until = t.hosts.paused_until(p.spec.host)
    if until is None:
        return None
    return backoff.Problem(
        backoff.Kind.TRANSIENT,
        reasons.Reason.RATE_LIMITED,
        f"{p.spec.host} asked for no more requests until {render.format_time(until)}: a token is fetched then.",
    )


def schedule_looks(t: tools.Tools, p: Pass) -> None:
    """Set the times that are not set: after a restart they are spread over the interval, and no restart puts them off."""
    record, spec = p.record, p.record.client.spec
    if spec is None:
        return
    slot = schedule.next_slot(t.now(), spec.probe.interval, record.client.uid, "probe")
    if record.probe_due is None and spec.probe.mode != "Off":
        record.probe_due = slot
    if record.credentials_due is None and t.inventory.watched_credentials(record.client) is None:
        record.credentials_due = slot


def fail(t: tools.Tools, p: Pass, problem: backoff.Problem) -> None:
    """Record a failure."""
    record = p.record
    seen = record.credentials
    inputs = fingerprint = ""
    if isinstance(seen, credentials_policy.CredentialsSeen) and record.client.spec is not None:
        inputs, fingerprint = render.inputs_of(record.client.spec, seen), seen.fingerprint
    record.failure = backoff.next_failure(
        record.failure,
        problem,
        now=t.now(),
        generation=record.client.generation,
        inputs_hash=inputs,
        fingerprint=fingerprint,
        draw=t.draw(),
    )
    t.metrics.failures.labels(reason=problem.reason).inc()
    if problem.reason is reasons.Reason.TLS_ERROR and record.client.spec is not None:
        # The certificates may have been replaced since they were read.
        t.trust.forget(p.key.namespace, record.client.spec.tls)
    if problem.reason is reasons.Reason.NEW_TOKEN_REFUSED and record.probe_due is not None:
        record.probe_due = record.failure.next_attempt
    if t.inventory.watched_credentials(record.client) is None and problem.kind is backoff.Kind.PERMANENT:
        # A person will correct an unlabelled Secret, and nothing else will tell us.
        record.credentials_due = t.now() + _CREDENTIALS_RECHECK
    logger.warning(
        "failed key=%s/%s reason=%s failures=%d next=%s message=%r",
        *p.key,
        problem.reason,
        record.failure.count,
        render.format_time(record.failure.next_attempt),
        problem.message,
    )


async def _look_at_target(t: tools.Tools, p: Pass) -> None:
    body = await _get_target(t, p, p.record.client.target_name)
    p.target = None if body is None else render.read_target(body)


async def _get_target(t: tools.Tools, p: Pass, name: str) -> dict[str, object] | None:
    key = inventory.Key(p.key.namespace, name)
    known = t.inventory.known_secret(key)
    try:
        body = await t.gateway.get_secret(p.key.namespace, name)
    except kube_errors.NotFoundError:
        if known is not None:
            # The one that was known; one that came meanwhile is another.
            t.inventory.forget_secret(key, *known)
        return None
    metadata = body["metadata"]
    if names.LABEL_ROLE in (metadata.get("labels") or {}):
        t.inventory.see_secret(body)
    else:
        t.inventory.forget_secret(key, metadata["uid"], metadata["resourceVersion"])
    return body


async def _look_at_credentials(t: tools.Tools, p: Pass) -> None:
    record, ref = p.record, p.spec.credentials_secret_ref
    watched = t.inventory.watched_credentials(record.client) is not None
    p.credentials = None
    try:
        body = await t.gateway.get_secret(p.key.namespace, ref.name)
    except kube_errors.NotFoundError:
        record.credentials = credentials_policy.missing(ref)
        record.credentials_due = t.now() + _CREDENTIALS_RECHECK
        return
    if names.LABEL_ROLE in (body["metadata"].get("labels") or {}):
        t.inventory.see_secret(body)
    found = credentials_policy.read(body.get("data"), ref)
    if isinstance(found, backoff.Problem):
        record.credentials = found
        record.credentials_due = t.now() + _CREDENTIALS_RECHECK
        return
    metadata = body["metadata"]
    p.credentials = found
    seen = record.credentials = credentials_policy.CredentialsSeen(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        client_id=found.client_id,
        trimmed=found.trimmed,
        fingerprint=t.fingerprint(found),
    )
    target = t.inventory.targets.get(p.target_key)
    if target is not None and target.inputs_hash == render.inputs_of(p.spec, seen):
        record.fetched_with = seen
    failing = record.failure is not None and record.failure.problem.kind is backoff.Kind.PERMANENT
    interval = _CREDENTIALS_RECHECK if failing else p.spec.probe.interval
    record.credentials_due = None if watched else t.now() + interval


async def trusted_ca(t: tools.Tools, p: Pass) -> str:
    """The CA certificates of `spec.tls.caRef`, PEM; empty for the system's."""
    try:
        return await t.trust.get(p.key.namespace, p.spec.tls, t.now())
    except trust.UnavailableCAError as error:
        raise FailedError(error.problem) from None


async def _request_token(
    t: tools.Tools, spec: resource.Spec, found: credentials_policy.Credentials, cause: reasons.Cause, ca: str
) -> render.Grant:
    host = spec.host
    started = time.perf_counter()
    try:
        fetched = await tokens.fetch(t.http, spec.base_url, found, spec.scope, ca=ca, now=t.now())
    except squidex_errors.SquidexError as error:
        t.metrics.token_requests.labels(cause=cause, result=error.problem.reason).inc()
        t.hosts.note(host, error.problem)
        raise FailedError(error.problem) from None
    finally:
        t.metrics.token_request_seconds.observe(time.perf_counter() - started)
    t.metrics.token_requests.labels(cause=cause, result="granted").inc()
    t.hosts.note(host, None)
    if fetched.clock_skew is not None:
        t.metrics.clock_skew_seconds.set(fetched.clock_skew.total_seconds())
        if abs(fetched.clock_skew) > dt.timedelta(minutes=1):
            logger.warning("clocks differ host=%s seconds=%d", host, fetched.clock_skew.total_seconds())
    return fetched.grant


async def _first_probe(
    t: tools.Tools, spec: resource.Spec, grant: render.Grant, client_id: str, ca: str
) -> tuple[observed.Verdict, str] | None:
    mode = spec.probe.mode
    if mode == "Off":
        return None
    verdict = await probe.ask(t.http, spec.base_url, grant, mode=mode, client_id=client_id, ca=ca)
    t.metrics.probes.labels(result=verdict[0].value).inc()
    return verdict


async def _write(t: tools.Tools, p: Pass, manifest: dict[str, object], step: decide.Publish) -> dict[str, object]:
    """Create the target, or apply to the very Secret that was seen."""
    namespace, name = p.target_key
    seen = p.target_seen(t.inventory)
    if not isinstance(seen, observed.TargetSeen):
        return await t.gateway.create_secret(namespace, manifest)
    if step.source is decide.Source.TARGET:
        _allow_repair(t, p)
    metadata = manifest["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - for the type checker
    guarded = manifest | {"metadata": metadata | {"uid": seen.uid, "resourceVersion": seen.resource_version}}
    try:
        return await t.gateway.apply_secret(namespace, name, guarded)
    except kube_errors.ManagerConflictError as error:
        if not error.by_hand:
            raise
        # Somebody edited our keys in our Secret by hand, or it is our own entry from the creation: take them back.
        if error.managers != (names.FIELD_MANAGER,):
            _allow_repair(t, p)
            logger.warning("taking back key=%s/%s secret=%s from=%s", *p.key, name, ",".join(error.managers))
        return await t.gateway.apply_secret(namespace, name, guarded, force=True)


def _allow_repair(t: tools.Tools, p: Pass) -> None:
    """Two controllers that undo each other's work must not do it for ever."""
    at, bucket = p.record.repairs.take(t.now())
    if at > t.now():
        raise FailedError(
            backoff.Problem(
                backoff.Kind.UNKNOWN,
                reasons.Reason.TARGET_CONFLICT,
                f"Something keeps changing Secret {p.record.client.target_name!r}. Find it in the Secret's "
                "managedFields (kubectl get secret -o yaml --show-managed-fields), and stop it.",
            )
        )
    p.record.repairs = bucket


def _note_key(t: tools.Tools, p: Pass, cause: reasons.Cause, grant: render.Grant) -> None:
    """Where the server signs with a key that it does not publish, wait longer and longer before the next attempt."""
    record = p.record
    if cause is not reasons.Cause.KEY_REPLACED:
        return
    if t.servers.publishes(p.spec.base_url, grant.key_id) is False:
        record.key_retries += 1
        record.key_retry_at = t.now() + backoff.wait(backoff.Kind.UNKNOWN, record.key_retries + 4, t.draw())
    else:
        record.key_retries, record.key_retry_at = 0, None


def _schedule_probe(t: tools.Tools, p: Pass) -> None:
    if p.spec.probe.mode == "Off":
        p.record.probe_due = None
        return
    jitter = 0.9 + 0.1 * schedule.fraction(p.record.client.uid, "probe")
    p.record.probe_due = t.now() + p.spec.probe.interval * jitter
