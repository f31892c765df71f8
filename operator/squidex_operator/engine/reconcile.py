"""Bring one SquidexClient to where it should be: observe, decide, act, until there is nothing to do; then report."""

import dataclasses
import datetime as dt
import itertools
import logging

from squidex_operator.api import reasons
from squidex_operator.engine import attempt, disagreement, hosts, inventory, looks, report, servers, steps, tools
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff, decide, observed
from squidex_operator.squidex import keys

logger = logging.getLogger(__name__)

_MOST_STEPS = 16
"""More than any way to a token takes: past it, two rules disagree, and a minute's wait is better than a hot loop."""

_BUG = backoff.Problem(
    backoff.Kind.UNKNOWN,
    reasons.Reason.INTERNAL_ERROR,
    "The operator met an error of its own. Its log says which: please report it.",
)

_MOST_CAS = 10
"""SquidexClients of a server whose CA is tried for the request that asks for its keys."""

_AFTER_TOO_MANY = dt.timedelta(minutes=1)


class Reconciler:
    """Works on the keys of the queue."""

    def __init__(self, t: tools.Tools) -> None:
        self._t = t

    async def work(self, key: tools.QueueKey) -> None:
        """One key."""
        if isinstance(key, servers.ServerKey):
            await self._check_keys(key)
        else:
            await self._reconcile(key)

    async def _reconcile(self, key: inventory.Key) -> None:
        t = self._t
        record = t.inventory.records.get(key)
        if record is None:
            return
        p = attempt.Pass(key, record)
        looks.schedule_looks(t, p)
        if at := steps.awaits_turn(t, p):
            t.queue.add(key, at)
            if problem := steps.held_up(t, p):
                await self._report(p, problem)
            return
        again, stopped = await self._bring(p)
        if t.inventory.records.get(key) is not record:
            return  # deleted, or deleted and made anew, meanwhile
        if again is not None:
            t.queue.add(key, again)
        await self._report(p, stopped)
        if record.client.spec is not None and not record.client.deleting:
            self._watch_server(record.client.spec.base_url)

    async def _bring(self, p: attempt.Pass) -> tuple[dt.datetime | None, backoff.Problem | None]:
        """Step by step to a decision that waits. When to come back, and why everything has stopped, if it has."""
        t, record = self._t, p.record
        for _ in range(_MOST_STEPS):
            if t.inventory.records.get(p.key) is not record:
                return None, None
            now = t.now()
            seen = self._observe(p, now)
            decision = decide.decide(now, seen)
            # What fails now must not end the wait that is under way: after a wrong secret, it is hours.
            is_held = not isinstance(decision, decide.Fetch) and decide.is_waiting(now, seen)
            match decision:
                case decide.Stop(problem):
                    return None, problem
                case decide.Wait(until, settled):
                    if settled:
                        record.failure = record.interrupted = record.meanwhile = record.pending = None
                    return until, None
                case decide.Blocked(problem):
                    self._block(p, problem, seen)
                    break
                case decide.Fetch() if self._resume(p, seen, now):
                    continue
            try:
                await self._act(p, decision)
            except hosts.NotYetError as error:
                if not isinstance(decision, decide.Fetch):
                    return error.at, None
                p.fetch_allowed = error.at  # what is there is mended before that
            except attempt.FailedError as error:
                attempt.fail(t, p, error.problem, meanwhile=is_held)
            except (kube_errors.StaleError, kube_errors.AlreadyExistsError):
                # What is there now may be somebody else's: look before anything else.
                p.target = observed.UNKNOWN
                await self._look_again(p, meanwhile=is_held)
            except kube_errors.TerminatingError:
                p.namespace_terminating = True
            except kube_errors.KubeError as error:
                attempt.fail(t, p, error.problem, meanwhile=is_held)
                if not isinstance(decision, decide.Publish | decide.Remove):
                    break
            except Exception:
                # A bug: it must show in the status and wait like any other failure, not fetch a token every minute.
                logger.exception("unforeseen key=%s/%s", *p.key)
                t.queue.unforeseen += 1
                attempt.fail(t, p, _BUG, meanwhile=is_held)
                break
        else:
            logger.error("undecided key=%s/%s decision=%s", *p.key, type(decision).__name__)
            return t.now() + _AFTER_TOO_MANY, None
        return self._next_attempt(p), None

    def _observe(self, p: attempt.Pass, now: dt.datetime) -> observed.Observed:
        t, record, client = self._t, p.record, p.record.client
        seen = p.target_seen(t.inventory)
        is_seen = isinstance(seen, observed.TargetSeen)
        pending = record.pending
        at, _ = record.fetches.take(now)
        return observed.Observed(
            client=client,
            target=seen,
            credentials=record.credentials,
            watched_credentials=t.inventory.watched_credentials(client),
            former_targets=t.inventory.former_targets(record),
            other_owner=isinstance(seen, observed.TargetSeen) and t.inventory.other_owner(client, seen),
            claimed=t.inventory.claimed(client),
            namespace_terminating=p.namespace_terminating,
            fetched_with=record.fetched_with,
            pending=pending.summary if pending else None,
            probed=record.probed,
            failure=record.failure,
            meanwhile=record.meanwhile,
            key_vanished=is_seen and t.servers.key_vanished(record, seen, now),  # type: ignore[arg-type]
            credentials_due=record.credentials_due,
            # Nobody asks about a token whose successor is in line.
            probe_due=None if p.fetch_allowed else record.probe_due,
            keys_disagree_until=disagreement.until(record, now),
            replacement_allowed=record.key_retry_at,
            fetch_allowed=max(at, p.fetch_allowed) if p.fetch_allowed else at,
        )

    async def _act(self, p: attempt.Pass, decision: decide.Decision) -> None:
        t = self._t
        match decision:
            case decide.Look(subject):
                await looks.look(t, p, subject)
            case decide.Fetch(cause):
                await steps.fetch(t, p, cause)
            case decide.Publish():
                await steps.publish(t, p, decision)
            case decide.Remove(former):
                await steps.remove(t, p, former)
            case decide.Probe():
                await steps.ask(t, p)
                if p.record.probed and p.record.probed.verdict is observed.Verdict.REFUSED:
                    # One refused token is reason enough to ask whether the key was replaced for all.
                    t.queue.add(servers.ServerKey(p.spec.base_url), t.servers.soonest(p.spec.base_url, t.now()))

    async def _look_again(self, p: attempt.Pass, *, meanwhile: bool) -> None:
        try:
            await looks.look(self._t, p, decide.Subject.TARGET)
        except kube_errors.KubeError as error:
            attempt.fail(self._t, p, error.problem, meanwhile=meanwhile)

    def _resume(self, p: attempt.Pass, seen: observed.Observed, now: dt.datetime) -> bool:
        """Go on with a wait that was interrupted, where all that it was for is the same."""
        failure, p.record.interrupted = p.record.interrupted, None
        if failure is None or not decide.is_held(now, dataclasses.replace(seen, failure=failure), p.spec):
            return False
        p.record.failure = failure
        return True

    def _block(self, p: attempt.Pass, problem: backoff.Problem, seen: observed.Observed) -> None:
        """The same block, woken by an event before its time, is not another failure."""
        failure = p.record.failure
        if p.record.interrupted is None and decide.is_held(self._t.now(), seen, p.spec):
            p.record.interrupted = failure
        same = failure is not None and failure.problem == problem and failure.generation == p.record.client.generation
        if not same or failure is None or not failure.is_waiting(self._t.now()):
            attempt.fail(self._t, p, problem)

    def _next_attempt(self, p: attempt.Pass) -> dt.datetime | None:
        """After a failure: its own time, or that of the next look at the credentials, where that is still to come.

        A look that is due already is what failed, or what waits for something else: to come back for it at once would
        be a hot loop.
        """
        record, now = p.record, self._t.now()
        failures = [failure.next_attempt for failure in (record.failure, record.meanwhile) if failure is not None]
        times = [record.credentials_due, *failures]
        return min((time for time in times if time is not None and time > now), default=now + _AFTER_TOO_MANY)

    async def _report(self, p: attempt.Pass, stopped: backoff.Problem | None) -> None:
        await report.report(self._t, p, self._observe(p, self._t.now()), stopped)

    def _watch_server(self, base_url: str) -> None:
        key = servers.ServerKey(base_url)
        if self._t.servers.begin(base_url):
            self._t.queue.add(key, self._t.servers.first_check(base_url, self._t.now()))

    async def _check_keys(self, key: servers.ServerKey) -> None:
        """Ask a server for its signing keys, with the CA of one of its SquidexClients."""
        t, now = self._t, self._t.now()
        vanished, told = await t.servers.check(key.base_url, now, self._fetch_keys)
        t.metrics.key_checks.labels(result="told" if told else "inconclusive").inc()
        for client_key in vanished:
            if record := t.inventory.records.get(client_key):
                seen = t.inventory.targets.get(inventory.Key(client_key.namespace, record.client.target_name))
                if seen is not None and record.key_asked != seen.data_hash:
                    # Where no new token can be had, the server is asked at least what it makes of the old one: once, for
                    # a refusal asks for the keys in its turn, and with replicas that disagree each answer is another.
                    record.key_asked, record.probe_due = seen.data_hash, now
            t.queue.wake(client_key)
        if at := t.servers.next_check(key.base_url, now):
            t.queue.add(key, at)

    async def _fetch_keys(self, base_url: str) -> frozenset[str] | None:
        t = self._t
        # A copy, because the inventory may change at each await; and not a GET for each of a thousand broken references.
        for key, record in list(itertools.islice(t.inventory.of_server(base_url), _MOST_CAS)):
            p, spec = attempt.Pass(key, record), record.client.spec
            if spec is None or spec.base_url != base_url:
                continue  # it was changed while another's CA was looked at
            try:
                ca = await looks.trusted_ca(t, p)
            except (attempt.FailedError, kube_errors.KubeError):
                continue
            server = servers.ServerKey(base_url)
            try:
                async with t.hosts.request(spec.host, server, fetch=False):
                    return await keys.fetch(t.http, base_url, ca=ca)
            except hosts.NotYetError:
                return None
        return None
