"""Reporting: the status, written where it has changed, and a Kubernetes Event for each transition."""

import logging

from squidex_operator.api import names
from squidex_operator.engine import attempt, tools
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff, conditions, observed, render

logger = logging.getLogger(__name__)


async def report(t: tools.Tools, p: attempt.Pass, o: observed.Observed, stopped: backoff.Problem | None) -> None:
    """Write the status where it has changed, and post an event for each transition.

    Args:
        o: what is known at the end of the reconcile.
        stopped: why nothing is done, where nothing is done.
    """
    record, client = p.record, p.record.client
    if client.deleting:
        return
    status = conditions.build(t.now(), o, stopped=stopped, refreshed=record.refreshed)
    events = p.events + conditions.transitions(client.status, status)
    patch = conditions.merge_patch(client.status, status)
    if patch:
        try:
            body = await t.gateway.patch_status(*p.key, client.uid, patch)
        except kube_errors.NotFoundError:
            return  # it is gone
        except kube_errors.KubeError as error:
            record.report_failures += 1
            t.metrics.status_writes.labels(result="failed").inc()
            logger.warning("status not written key=%s/%s message=%r", *p.key, error.problem.message)
            delay = backoff.wait(backoff.Kind.TRANSIENT, record.report_failures, t.draw())
            t.queue.add(p.key, t.now() + delay)
            return
        record.report_failures = 0
        t.metrics.status_writes.labels(result="written").inc()
        if t.inventory.records.get(p.key) is not record:
            return  # deleted meanwhile: the answer must not bring it back
        t.inventory.see_client(body)
    record.refreshed = None
    if record.written or o.former_targets:
        # The status has room for one name.
        named = (record.client.status.get("target") or {}).get("name", "")
        record.written = frozenset({client.target_name, *(former.name for former in o.former_targets)} - {named})
    for kind, reason, message in events:
        await _post_event(t, p, kind, reason, message)


async def _post_event(t: tools.Tools, p: attempt.Pass, kind: str, reason: str, message: str) -> None:
    client = p.record.client
    now = render.format_time(t.now())
    body = {
        "metadata": {"generateName": f"{client.name[:200]}.", "namespace": client.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": client.namespace,
            "name": client.name,
            "uid": client.uid,
            "resourceVersion": client.resource_version,
        },
        "type": kind,
        "reason": reason,
        "message": message[:1000],
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await t.gateway.create_event(client.namespace, body)
    except kube_errors.KubeError as error:
        # An event is a courtesy: its loss changes nothing.
        logger.info("event not posted key=%s/%s reason=%s message=%r", *p.key, reason, error.problem.message)
