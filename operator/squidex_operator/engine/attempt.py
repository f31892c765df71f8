"""One reconcile of one SquidexClient: what was looked at in it, and how a failure of it is recorded."""

import dataclasses
import datetime as dt
import logging

from squidex_operator.api import reasons, resource
from squidex_operator.engine import inventory, tools
from squidex_operator.policy import backoff, observed, render
from squidex_operator.policy import credentials as credentials_policy

logger = logging.getLogger(__name__)

CREDENTIALS_RECHECK = dt.timedelta(minutes=1)
"""How soon credentials that are missing, or that failed, are looked at again where they are not watched: one GET."""


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
    fetch_allowed: dt.datetime | None = None
    """When the server may be asked for a token, where it was not this SquidexClient's turn."""
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


def fail(t: tools.Tools, p: Pass, problem: backoff.Problem, *, meanwhile: bool = False) -> None:
    """Record a failure. `meanwhile`: of something else, while the wait after the last one is under way, which goes on."""
    record = p.record
    t.metrics.failures.labels(reason=problem.reason).inc()
    if meanwhile:
        record.meanwhile = backoff.next_failure(
            record.meanwhile, problem, now=t.now(), generation=record.client.generation, inputs_hash="", draw=t.draw()
        )
        _log("failed meanwhile", p, record.meanwhile)
        return
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
    if problem.reason is reasons.Reason.TLS_ERROR and record.client.spec is not None:
        # The certificates may have been replaced since they were read.
        t.trust.forget(p.key.namespace, record.client.spec.tls)
    refused = record.probed is not None and record.probed.verdict is observed.Verdict.REFUSED
    if problem.reason is reasons.Reason.NEW_TOKEN_REFUSED and refused and record.probe_due is not None:
        # The old one is asked about again, too. Where it was not refused, its own time for that is not put off.
        record.probe_due = record.failure.next_attempt
    if t.inventory.watched_credentials(record.client) is None and problem.kind is backoff.Kind.PERMANENT:
        # A person will correct an unlabelled Secret, and nothing else will tell us.
        record.credentials_due = t.now() + CREDENTIALS_RECHECK
    _log("failed", p, record.failure)


def _log(event: str, p: Pass, failure: backoff.Failure) -> None:
    logger.warning(
        "%s key=%s/%s reason=%s failures=%d next=%s message=%r",
        event,
        *p.key,
        failure.problem.reason,
        failure.count,
        render.format_time(failure.next_attempt),
        failure.problem.message,
    )
