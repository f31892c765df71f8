"""Looking: what a decision asks to know, each with one GET, and when things are looked at that nobody reports."""

from typing import Any

from squidex_operator.api import names
from squidex_operator.engine import attempt, inventory, tools, trust
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff, decide, observed, render, schedule
from squidex_operator.policy import credentials as credentials_policy


async def look(t: tools.Tools, p: attempt.Pass, subject: decide.Subject) -> None:
    """Look at one thing with one GET."""
    match subject:
        case decide.Subject.TARGET:
            await look_at_target(t, p)
        case decide.Subject.CREDENTIALS:
            await look_at_credentials(t, p)
        case decide.Subject.NAMESPACE:
            body = await t.gateway.get_namespace(p.key.namespace)
            p.namespace_terminating = bool(body["metadata"].get("deletionTimestamp"))


async def look_at_target(t: tools.Tools, p: attempt.Pass) -> None:
    """What is in the target's place, for the rest of this reconcile."""
    body = await get_secret(t, p, p.record.client.target_name)
    p.target = None if body is None else render.read_target(body)


async def get_secret(t: tools.Tools, p: attempt.Pass, name: str) -> dict[str, Any] | None:
    """A Secret, whole; None where there is none. What the answer tells is taken in like an event of the watch."""
    key = inventory.Key(p.key.namespace, name)
    known = t.inventory.known_secret(key)
    try:
        body = await t.gateway.get_secret(p.key.namespace, name)
    except kube_errors.NotFoundError:
        if known is not None:
            # The one that was known; one that came meanwhile is another.
            tell(t, p, t.inventory.forget_secret(key, *known))
        return None
    metadata = body["metadata"]
    if names.LABEL_ROLE in (metadata.get("labels") or {}):
        tell(t, p, t.inventory.see_secret(body))
    elif known is not None:
        # Another one in its place has no role: the one that was known is gone.
        gone = (metadata["uid"], metadata["resourceVersion"]) if metadata["uid"] == known[0] else known
        tell(t, p, t.inventory.forget_secret(key, *gone))
    return body


def tell(t: tools.Tools, p: attempt.Pass, concerned: set[inventory.Key]) -> None:
    """Wake the others that an answer concerns: when the watch tells the same, it is no news any more."""
    for key in concerned - {p.key}:
        t.queue.wake(key)


async def look_at_credentials(t: tools.Tools, p: attempt.Pass) -> None:
    """Read the credentials: their id and secret for this reconcile, and what may be remembered of them."""
    record, ref = p.record, p.spec.credentials_secret_ref
    client, before = record.client, t.inventory.watched_credentials(record.client)
    p.credentials = None
    body = await get_secret(t, p, ref.name)
    if record.client.generation != client.generation:
        return  # what was read is what another spec names: decide again
    told = t.inventory.watched_credentials(client)
    version = None if body is None else (body["metadata"]["uid"], body["metadata"]["resourceVersion"])
    if told is not None and told not in (before, version):
        # The watch told of a change while this answer was under way.
        record.credentials, record.credentials_due = observed.UNKNOWN, t.now()
        return
    if body is None:
        record.credentials = credentials_policy.missing(ref)
        record.credentials_due = t.now() + attempt.CREDENTIALS_RECHECK
        return
    found = credentials_policy.read(body.get("data"), ref)
    if isinstance(found, backoff.Problem):
        record.credentials = found
        record.credentials_due = t.now() + attempt.CREDENTIALS_RECHECK
        return
    p.credentials = found
    seen = record.credentials = credentials_policy.CredentialsSeen(
        uid=body["metadata"]["uid"],
        resource_version=body["metadata"]["resourceVersion"],
        client_id=found.client_id,
        trimmed=found.trimmed,
        fingerprint=t.fingerprint(found),
    )
    target = t.inventory.targets.get(p.target_key)
    if target is not None and target.inputs_hash == render.inputs_of(p.spec, seen):
        record.fetched_with = seen
    failing = record.failure is not None and record.failure.problem.kind is backoff.Kind.PERMANENT
    interval = attempt.CREDENTIALS_RECHECK if failing else p.spec.probe.interval
    record.credentials_due = None if told is not None else t.now() + interval


async def trusted_ca(t: tools.Tools, p: attempt.Pass) -> str:
    """The CA certificates of `spec.tls.caRef`, PEM; empty for the system's."""
    try:
        return await t.trust.get(p.key.namespace, p.spec.tls, t.now())
    except trust.UnavailableCAError as error:
        raise attempt.FailedError(error.problem) from None


def schedule_looks(t: tools.Tools, p: attempt.Pass) -> None:
    """Set the times that are not set: after a restart they are spread over the interval, and no restart puts them off."""
    record, spec = p.record, p.record.client.spec
    if spec is None:
        return
    slot = schedule.next_slot(t.now(), spec.probe.interval, record.client.uid, "probe")
    if record.probe_due is None and spec.probe.mode != "Off":
        record.probe_due = slot
    if record.credentials_due is None and t.inventory.watched_credentials(record.client) is None:
        record.credentials_due = slot


def schedule_probe(t: tools.Tools, p: attempt.Pass) -> None:
    """The next probe is due an interval from now."""
    if p.spec.probe.mode == "Off":
        p.record.probe_due = None
        return
    jitter = 0.9 + 0.1 * schedule.fraction(p.record.client.uid, "probe")
    p.record.probe_due = t.now() + p.spec.probe.interval * jitter
