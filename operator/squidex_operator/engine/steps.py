"""Acting: the steps that a decision can ask for. Each does one thing and records what came of it."""

import dataclasses
import datetime as dt
import logging
import time

from squidex_operator.api import names, reasons, resource
from squidex_operator.engine import attempt, disagreement, hosts, inventory, looks, tools
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff, conditions, decide, observed, render
from squidex_operator.policy import credentials as credentials_policy
from squidex_operator.squidex import errors as squidex_errors
from squidex_operator.squidex import probe, tokens

logger = logging.getLogger(__name__)


async def fetch(t: tools.Tools, p: attempt.Pass, cause: reasons.Cause) -> None:
    """Fetch a token and ask the server about it: it is pending then."""
    record, spec, host = p.record, p.spec, p.spec.host
    doubted = cause is reasons.Cause.KEY_REPLACED and disagreement.until(record, t.now())
    if doubted and not await _is_worth_a_token(t, p):
        return
    if at := t.hosts.turn(host, p.key):
        raise hosts.NotYetError(at)
    if p.credentials is None:
        await looks.look_at_credentials(t, p)
    ca = await looks.trusted_ca(t, p)
    found, seen = p.credentials, record.credentials
    if found is None or not isinstance(seen, credentials_policy.CredentialsSeen):
        return  # they went meanwhile, or the spec names others now: decide again
    async with t.hosts.request(host, p.key, fetch=True):
        if t.inventory.records.get(p.key) is not record or record.credentials is not seen:
            return  # it went, or something changed, while it waited for its place: decide again
        # The pending token of other credentials, or of another spec, is of no use any more.
        record.pending = None
        inputs = render.inputs_of(spec, seen)
        grant = disagreement.refused_before(t, p, inputs)
        if grant is None:
            _, record.fetches = record.fetches.take(t.now())
            grant = await _request_token(t, spec, found, cause, ca)
        verdict = await _first_probe(t, spec, grant, found.client_id, ca)
    fetched = inventory.PendingToken(grant, inputs, cause, seen, verdict)
    if verdict is not None and verdict[0] is observed.Verdict.REFUSED:
        record.refused = fetched
        raise attempt.FailedError(
            backoff.Problem(
                backoff.Kind.TRANSIENT,
                reasons.Reason.NEW_TOKEN_REFUSED,
                f"{host} refuses a token that it has just issued: do its replicas have different keys, or is it behind "
                "a proxy that drops the Authorization header? The token in the Secret is kept.",
            )
        )
    record.pending, record.refused, record.gave_up = fetched, None, False


async def publish(t: tools.Tools, p: attempt.Pass, step: decide.Publish) -> None:
    """Write a token to the target."""
    record, spec, client = p.record, p.spec, p.record.client
    pending = record.pending if step.source is decide.Source.PENDING else None
    whose = _whose(p.target_seen(t.inventory))
    if pending is not None:
        grant, inputs = pending.grant, pending.inputs_hash
    else:
        name = step.name if step.source is decide.Source.FORMER else client.target_name
        body = await looks.get_secret(t, p, name)
        read = render.read_grant(body) if body is not None else None
        is_same = record.client.generation == client.generation and _whose(p.target_seen(t.inventory)) == whose
        if body is None or read is None or not is_same:
            p.target = observed.UNKNOWN
            return  # it changed meanwhile: look again, decide again
        grant, inputs = read, render.read_target(body).inputs_hash
        if isinstance(record.credentials, credentials_policy.CredentialsSeen):
            inputs = render.inputs_of(spec, record.credentials)
    try:
        written = await _write(t, p, render.target_secret(client, spec, grant, inputs), step)
    except kube_errors.TerminatingError:
        raise
    except kube_errors.RefusedError as error:
        problem = dataclasses.replace(error.problem, reason=reasons.Reason.TARGET_REFUSED)
        raise attempt.FailedError(problem) from None
    looks.tell(t, p, t.inventory.see_secret(written))
    seen = render.read_target(written)
    record.written, record.meanwhile = record.written | {seen.name}, None
    p.target = observed.UNKNOWN
    t.metrics.publishes.labels(cause=step.cause).inc()
    cause = pending.cause if pending is not None else step.cause
    logger.info("published key=%s/%s secret=%s cause=%s token=%r", *p.key, seen.name, cause, grant)
    until = render.format_time(grant.expires_at)
    if not (cause is reasons.Cause.FIRST_TOKEN and record.failure is None):
        # A first token that comes at once is no news: the conditions say it, and a thousand of them would be a flood.
        text = f"Wrote a token valid until {until} to Secret {seen.name!r}."
        if step.source is decide.Source.TARGET:
            text = f"Mended Secret {seen.name!r}; its token is the same as before."
        p.events.append(("Normal", str(cause), text))
    if pending is None:
        if isinstance(record.credentials, credentials_policy.CredentialsSeen):
            # The target names this version of the credentials now; the next edit of metadata is compared with it.
            record.fetched_with = record.credentials
        return
    record.failure = record.pending = None
    record.refreshed = conditions.Refreshed(t.now(), cause)
    record.fetched_with = pending.credentials
    if pending.verdict is not None:
        record.probed = observed.Probed(*pending.verdict, data_hash=seen.data_hash)
    disagreement.note(t, p, cause, grant)
    looks.schedule_probe(t, p)


async def remove(t: tools.Tools, p: attempt.Pass, former: observed.TargetSeen) -> None:
    """Delete a former target: the very Secret that was seen."""
    try:
        await t.gateway.delete_secret(
            p.key.namespace, former.name, uid=former.uid, resource_version=former.resource_version
        )
    except kube_errors.NotFoundError:
        pass
    except kube_errors.StaleError:
        logger.info("former target changed meanwhile key=%s/%s secret=%s", *p.key, former.name)
        await looks.get_secret(t, p, former.name)
        return  # decide again by what it is now
    looks.tell(t, p, t.inventory.forget_secret(inventory.Key(p.key.namespace, former.name), former.uid))


async def ask(t: tools.Tools, p: attempt.Pass) -> observed.Verdict | None:
    """Ask the server about the token in the target. None where there is none any more."""
    record, spec = p.record, p.spec
    # The next time is set first: whatever happens now, nobody asks again at once.
    looks.schedule_probe(t, p)
    data_hash = ""
    try:
        # Who would be sent away, because the server hangs, is not to read a Secret for nothing each minute.
        t.hosts.check_room(spec.host, p.key)
        body = await looks.get_secret(t, p, record.client.target_name)
        grant = render.read_grant(body) if body is not None else None
        if body is None or grant is None:
            return None
        seen = render.read_target(body)
        if seen.url != spec.base_url or record.client.spec is not spec:
            return None  # no server is shown the token of another: decide again
        data_hash, client_id = seen.data_hash, grant.client_id
        if isinstance(record.credentials, credentials_policy.CredentialsSeen):
            client_id = record.credentials.client_id
        ca = await looks.trusted_ca(t, p)
        async with t.hosts.request(spec.host, p.key, fetch=False):
            verdict, message = await probe.ask(
                t.http, spec.base_url, grant, mode=spec.probe.mode, client_id=client_id, ca=ca
            )
    except attempt.FailedError as error:
        # No CA, no probe. The token is as good as it was; its renewal will fail loudly.
        verdict, message = observed.Verdict.INCONCLUSIVE, error.problem.message
    except hosts.NotYetError as error:
        record.probe_due = error.at
        raise
    t.metrics.probes.labels(result=verdict.value).inc()
    was = (record.probed.verdict, record.probed.data_hash) if record.probed else None
    if verdict is observed.Verdict.INCONCLUSIVE and was == (observed.Verdict.REFUSED, data_hash):
        return verdict  # a time-out does not bring a dead token back to life
    record.probed = observed.Probed(verdict, message, data_hash)
    if verdict is observed.Verdict.REFUSED:
        logger.warning("token refused key=%s/%s url=%s", *p.key, spec.base_url)
    return verdict


def awaits_turn(t: tools.Tools, p: attempt.Pass) -> dt.datetime | None:
    """When a SquidexClient that plainly needs a token may send for one; None for now, or where it is not that plain.

    Asked before anything is looked at: a thousand new SquidexClients that wait for their turn cost no GET meanwhile.
    """
    record, client = p.record, p.record.client
    if client.spec is None or client.deleting or record.pending is not None or p.target_key in t.inventory.targets:
        return None
    if record.failure is not None or isinstance(record.credentials, backoff.Problem):
        return None
    return t.hosts.turn(client.spec.host, p.key)


def held_up(t: tools.Tools, p: attempt.Pass) -> backoff.Problem | None:
    """What to tell a SquidexClient without a token that has to wait because its server asked others to."""
    until = t.hosts.paused_until(p.spec.host)
    if until is None:
        return None
    return backoff.Problem(
        backoff.Kind.TRANSIENT,
        reasons.Reason.RATE_LIMITED,
        f"{p.spec.host} asked for no more requests until {render.format_time(until)}: a token is fetched then.",
    )


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
        raise attempt.FailedError(error.problem) from None
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


def _whose(seen: observed.TargetSeen | observed.Unknown | None) -> tuple[object, ...] | None:
    """Which Secret it is, and whose: what a decision to write goes by."""
    return (seen.name, seen.uid, seen.client_uid, seen.owner_uids) if isinstance(seen, observed.TargetSeen) else None


async def _write(
    t: tools.Tools, p: attempt.Pass, manifest: dict[str, object], step: decide.Publish
) -> dict[str, object]:
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


def _allow_repair(t: tools.Tools, p: attempt.Pass) -> None:
    """Two controllers that undo each other's work must not do it for ever."""
    at, bucket = p.record.repairs.take(t.now())
    if at > t.now():
        raise attempt.FailedError(
            backoff.Problem(
                backoff.Kind.UNKNOWN,
                reasons.Reason.TARGET_CONFLICT,
                f"Something keeps changing Secret {p.record.client.target_name!r}. Find it in the Secret's "
                "managedFields (kubectl get secret -o yaml --show-managed-fields), and stop it.",
            )
        )
    p.record.repairs = bucket


async def _is_worth_a_token(t: tools.Tools, p: attempt.Pass) -> bool:
    """Where the published keys did not fit before, a list of keys is no proof: it may be cached, or another replica's.

    One probe costs nothing that stays; each token that is fetched stays in Squidex for good.
    """
    record = p.record
    verdict = None if p.spec.probe.mode == "Off" else await ask(t, p)
    if verdict is observed.Verdict.ACCEPTED:
        disagreement.doubt(t, record)
        return False
    is_early = record.key_retry_at is not None and t.now() < record.key_retry_at
    if is_early and verdict is not observed.Verdict.REFUSED:
        # Nobody says that the lists are right: all that they say is held against those that come next.
        record.key_noted_at = t.now()
        return False
    return True
