"""What holds for all inputs, and for every order of events."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import strategies as st

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff, conditions, decide, jwt, observed, render, schedule
from tests.unit.policy import model, situation

if TYPE_CHECKING:
    from collections.abc import Callable

# The same examples on every machine: a test that fails must fail again.
quick = hypothesis.settings(max_examples=80, deadline=None, derandomize=True)
long = hypothesis.settings(max_examples=120, deadline=None, derandomize=True)

NOW = situation.NOW
seconds = st.integers(1, 366 * 86400).map(lambda n: dt.timedelta(seconds=n))
refreshes = st.one_of(
    st.just(resource.Refresh()),
    st.timedeltas(dt.timedelta(microseconds=1), dt.timedelta(days=40_000)).map(
        lambda d: resource.Refresh(renewBefore=d)
    ),
    st.integers(1, 90).map(lambda p: resource.Refresh(renewBeforePercentage=p)),
)
moments = st.integers(0, 220_000_000_000).map(lambda n: dt.datetime.fromtimestamp(n, dt.UTC))


# The schedule.


@quick
@hypothesis.given(issued=moments, lifetime=seconds, refresh=refreshes, uid=st.text(max_size=40))
def test_a_renewal_is_never_due_at_issue_and_leaves_the_runway(
    issued: dt.datetime, lifetime: dt.timedelta, refresh: resource.Refresh, uid: str
) -> None:
    due = schedule.renewal_due(issued, issued + lifetime, refresh, uid)
    assert issued < due <= issued + lifetime - schedule.runway(lifetime)


@quick
@hypothesis.given(lifetime=seconds, refresh=refreshes, parts=st.lists(st.floats(0, 1), max_size=5))
def test_no_number_of_reconciles_between_issue_and_due_moves_it(
    lifetime: dt.timedelta, refresh: resource.Refresh, parts: list[float]
) -> None:
    granted = situation.grant(issued_at=NOW, expires_at=NOW + lifetime)
    o = situation.seen(
        client=situation.client(spec=situation.spec().model_copy(update={"refresh": refresh})),
        target=situation.target(granted=granted),
    )
    assert o.client.spec is not None
    due = model.checks_due(o)
    assert due is not None
    for part in sorted(parts):
        moment = NOW + (due - NOW) * part
        if moment < due:
            assert decide.decide(moment, o) == decide.Wait(due, settled=True)
    assert decide.decide(due, o) == decide.Fetch(reasons.Cause.EXPIRING)


someday = st.one_of(st.none(), st.integers(-400 * 86400, 400 * 86400).map(lambda n: NOW + dt.timedelta(seconds=n)))


@quick
@hypothesis.given(
    now=st.integers(-400 * 86400, 400 * 86400).map(lambda n: NOW + dt.timedelta(seconds=n)),
    times=st.fixed_dictionaries(
        dict.fromkeys(
            ("credentials_due", "probe_due", "keys_disagree_until", "replacement_allowed", "fetch_allowed"), someday
        )
    ),
    probed=st.sampled_from([None, *observed.Verdict]),
    failing=st.booleans(),
    key_vanished=st.booleans(),
)
def test_nothing_is_due_in_the_past_but_what_is_done_now(
    now: dt.datetime, times: dict[str, Any], probed: Any, failing: bool, key_vanished: bool
) -> None:
    o = situation.seen(
        **times,
        probed=situation.probed(probed) if probed else None,
        failure=situation.failure() if failing else None,
        key_vanished=key_vanished,
    )
    step = decide.decide(now, o)
    if isinstance(step, decide.Wait):
        assert step.until is None or step.until > now
        # There is always a time to come back: the token in the target is to be renewed some day.
        assert step.until is not None or now >= situation.target().expires_at


numbers = st.one_of(st.none(), st.floats(-1e15, 1e15, exclude_min=True, exclude_max=True))


@quick
@hypothesis.given(expires_in=numbers, expires=numbers, server_now=numbers, now=st.floats(0, 1e11))
def test_a_lifetime_is_between_nothing_and_a_year_whatever_a_server_says(
    expires_in: float | None, expires: float | None, server_now: float | None, now: float
) -> None:
    found = schedule.lifetime_granted(expires_in=expires_in, expires=expires, server_now=server_now, now=now)
    assert dt.timedelta() <= found <= schedule.MAX_LIFETIME


@quick
@hypothesis.given(
    rate=st.floats(0.01, 50),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 100).map(lambda s: dt.timedelta(seconds=s)), min_size=1, max_size=60),
)
def test_a_bucket_never_lets_more_through_than_its_burst_and_its_rate(
    rate: float, burst: int, gaps: list[dt.timedelta]
) -> None:
    bucket, now, times = schedule.Bucket(rate, burst), NOW, []
    for gap in gaps:
        now += gap
        at, bucket = bucket.take(now)
        assert at >= now
        times.append(at)
    assert times == sorted(times)
    for first in range(len(times)):
        for last in range(first, len(times)):
            window = (times[last] - times[first]).total_seconds()
            # A microsecond per step is lost to rounding.
            assert last - first + 1 <= burst + rate * (window + 1e-6 * len(times)) + 1e-6


@quick
@hypothesis.given(
    rate=st.floats(0.01, 50), burst=st.integers(1, 5), jumps=st.lists(st.integers(-(10**9), 10**9), max_size=30)
)
def test_a_bucket_opens_again_however_the_clock_jumps(rate: float, burst: int, jumps: list[int]) -> None:
    bucket, now = schedule.Bucket(rate, burst), NOW
    for jump in jumps:
        now = min(max(now + dt.timedelta(seconds=jump), NOW.replace(year=1000)), NOW.replace(year=4000))
        at, bucket = bucket.take(now)
        assert (at - now).total_seconds() <= len(jumps) / rate + 1


# Backoff.


@quick
@hypothesis.given(
    kinds=st.lists(st.sampled_from(backoff.Kind), min_size=1, max_size=60),
    count=st.integers(-(2**31), 2**31 - 1),
    draw=st.floats(0, 1, exclude_max=True),
    asked=st.one_of(st.none(), st.timedeltas(dt.timedelta(days=-1), dt.timedelta(days=999_999))),
)
def test_a_wait_is_never_nothing_and_never_longer_than_its_cap(
    kinds: list[backoff.Kind], count: int, draw: float, asked: dt.timedelta | None
) -> None:
    last: backoff.Failure | None = situation.failure(kind=kinds[0], count=count)
    for kind in kinds:
        problem = backoff.Problem(kind, reasons.Reason.SERVER_ERROR, "", asked)
        last = backoff.next_failure(last, problem, now=NOW, generation=1, inputs_hash="", draw=draw)
        assert dt.timedelta(seconds=5) <= last.next_attempt - NOW <= dt.timedelta(hours=5)
        assert 1 <= last.count < 2**31


# What servers and strangers write.


@quick
@hypothesis.given(st.one_of(st.text(), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
def test_any_text_is_a_token_or_none(text: str) -> None:
    claims = jwt.read(text)
    assert claims is None or isinstance(claims.client_id, str)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@quick
@hypothesis.given(anything)
def test_any_json_is_a_number_or_none(value: Any) -> None:
    number = jwt.number(value)
    assert number is None or abs(number) < 1e15


@quick
@hypothesis.given(header=anything, payload=anything)
def test_any_json_in_a_token_can_be_read(header: Any, payload: Any) -> None:
    parts = [model.base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, payload)]
    claims = jwt.read(".".join([*parts, ""]))
    assert (claims is not None) == (isinstance(header, dict) and isinstance(payload, dict))


@quick
@hypothesis.given(
    annotations=st.dictionaries(
        st.sampled_from(sorted(situation.secret()["metadata"]["annotations"])),
        st.one_of(
            st.text(max_size=40), moments.map(lambda m: m.isoformat()), st.sampled_from(["9999-12-31T23:59:59-14:00"])
        ),
    ),
    data=st.dictionaries(st.sampled_from(["token", "tokenType", "expiresAt", "url"]), st.text(max_size=20)),
)
def test_whatever_is_scribbled_into_a_target_ends_in_a_decision_and_a_status(
    annotations: dict[str, str], data: dict[str, str]
) -> None:
    body = situation.secret()
    body["metadata"]["annotations"] |= annotations
    body["data"] |= data
    o = situation.seen(target=render.read_target(body), failure=situation.failure())
    decide.decide(NOW, o)
    assert conditions.build(NOW, o)


text = st.text(max_size=12)
times = st.one_of(text, moments.map(render.format_time), st.just("9999-12-31T23:59:59-23:59"))
scribbled_conditions = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.one_of(st.sampled_from([str(kind) for kind in reasons.ConditionType]), text),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.text(min_size=1, max_size=12),
            "message": text,
            "lastTransitionTime": times,
        },
        optional={"observedGeneration": st.integers(0, 2**63 - 1)},
    ),
    max_size=4,
)
statuses = st.fixed_dictionaries(
    {},
    optional={
        "observedGeneration": st.integers(-(2**63), 2**63 - 1),
        "conditions": scribbled_conditions,
        "target": st.fixed_dictionaries({}, optional={"name": text}),
        "binding": st.fixed_dictionaries({}, optional={"name": text}),
        "issuedAt": times,
        "expiresAt": times,
        "nextRefreshTime": times,
        "lastRefreshTime": times,
        "lastRefreshReason": text,
        "keyID": text,
        "failures": st.integers(0, 2**31 - 1),
        "lastFailureTime": times,
        "nextAttemptTime": times,
        "failedInputsHash": text,
    },
)


@quick
@hypothesis.given(
    status=statuses,
    target=st.sampled_from([None, observed.UNKNOWN, situation.target(), situation.target(token_intact=False)]),
    looked=st.sampled_from([observed.UNKNOWN, situation.CREDENTIALS]),
)
def test_whatever_is_scribbled_into_a_status_the_token_is_kept_and_the_report_is_right_again(
    status: dict[str, Any], target: Any, looked: Any
) -> None:
    scribbled = situation.seen(client=situation.client(status=status), target=target, credentials=looked)
    plain = situation.seen(target=target, credentials=looked)
    step = decide.decide(NOW, scribbled)
    if isinstance(target, observed.TargetSeen) and target.token_intact:
        assert isinstance(step, decide.Wait) or step == decide.Look(decide.Subject.CREDENTIALS)
    new = conditions.build(NOW, scribbled)
    conditions.transitions(status, new)
    ready = next(c for c in new["conditions"] if c["type"] == "Ready")
    expected = next(c for c in conditions.build(NOW, plain)["conditions"] if c["type"] == "Ready")
    for key in ("status", "reason", "message"):
        assert ready[key] == expected[key]


@quick
@hypothesis.given(old=st.dictionaries(text, anything, max_size=5), new=st.dictionaries(text, st.integers(), max_size=5))
def test_a_patch_makes_the_new_status_out_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = conditions.merge_patch(old, new)
    patched = {key: value for key, value in (old | patch).items() if value is not None}
    assert patched == new


# Every order of events.


def ticks(world: model.World, delta: dt.timedelta) -> None:
    world.now += delta


def credentials_become(world: model.World, client_id: str, secret: str) -> None:
    world.client_id, world.client_secret = client_id, secret
    world.touch_credentials()


def credentials_are(world: model.World, there: bool) -> None:
    world.credentials_there = there
    world.touch_credentials()


def turns_up(world: model.World, annotations: dict[str, str], labels: dict[str, str]) -> None:
    """Somebody else's Secret is in the target's place."""
    body = {"type": "Opaque", "data": {"theirs": "a2VwdA=="}}
    metadata = {"name": world.target_name, "uid": "uid-of-theirs", "resourceVersion": "9"}
    world.secrets[world.target_name] = body | {"metadata": metadata | {"annotations": annotations, "labels": labels}}


def vanishes(world: model.World) -> None:
    world.secrets.pop(world.target_name, None)


def restarts(world: model.World) -> None:
    failure = world.memory.failure  # it is in the status
    world.memory = model.Memory(failure=failure)


def replaces_key(world: model.World) -> None:
    for server in world.keys:
        world.keys[server] += 1


OUR_LABELS = situation.secret()["metadata"]["labels"]

HARMLESS: dict[str, Callable[[model.World], None]] = {
    "nothing": lambda w: None,
    "a minute passes": lambda w: ticks(w, dt.timedelta(minutes=1)),
    "an hour passes": lambda w: ticks(w, dt.timedelta(hours=1)),
    "the clock is set back": lambda w: ticks(w, dt.timedelta(hours=-3)),
    "the interval is edited": lambda w: w.edit(probe={"interval": f"{w.generation + 5}m"}),
    "the CA is edited": lambda w: w.edit(tls={"caRef": {"kind": "Secret", "name": f"ca{w.generation}"}}),
    "the url gets a slash": lambda w: w.edit(url=w.spec["url"].rstrip("/") + "/" * (w.generation % 3)),
    "the target is renamed": lambda w: w.edit(target={"name": f"token-{w.generation}"}),
    "the credentials' metadata is edited": lambda w: w.touch_credentials(),
    "the labels are stripped": lambda w: w.change_secret(labels={}),
    "the owner is stripped": lambda w: w.change_secret(owners=[]),
    "a key is added": lambda w: w.change_secret(theirs="kept"),
    "a key beside the token is damaged": lambda w: w.change_secret(tokenType="Basic"),
    "a key beside the token is taken": lambda w: w.change_secret(expiresAt=None),
    "the status is lost": lambda w: setattr(w, "status", {}),
}

OTHER: dict[str, Callable[[model.World], None]] = {
    "a day passes": lambda w: ticks(w, dt.timedelta(days=1)),
    "19 days pass": lambda w: ticks(w, dt.timedelta(days=19)),
    "40 days pass": lambda w: ticks(w, dt.timedelta(days=40)),
    "the clock jumps a year": lambda w: ticks(w, dt.timedelta(days=365)),
    "the clock jumps back a year": lambda w: ticks(w, dt.timedelta(days=-365)),
    "the server is another": lambda w: w.edit(url=model.SERVERS[1]),
    "the server is the first": lambda w: w.edit(url=model.SERVERS[0]),
    "the scope is edited": lambda w: w.edit(scope=f"squidex-api s{w.generation}"),
    "the token is to be renewed early": lambda w: w.edit(refresh={"renewBefore": "640h"}),
    "the credentials are wrong": lambda w: credentials_become(w, w.client_id, "wrong"),
    "the credentials are right": lambda w: credentials_become(w, w.client_id, f"right-{w.credentials_version}"),
    "the credentials are another client's": lambda w: credentials_become(w, f"shop:c{w.versions}", "right"),
    "the credentials go": lambda w: credentials_are(w, there=False),
    "the credentials come": lambda w: credentials_are(w, there=True),
    "the credentials lose their label": lambda w: setattr(w, "labelled", False),
    "the token is damaged": lambda w: w.change_secret(token="damaged"),
    "the token is another client's": lambda w: w.change_secret(token=situation.jwt(client_id="evil:x")),
    "the token is taken": lambda w: w.change_secret(token=None),
    "the annotations are stripped": lambda w: w.change_secret(annotations={}),
    "the target is deleted": vanishes,
    "a foreign Secret turns up": lambda w: turns_up(w, {}, {}),
    "a labelled foreign Secret turns up": lambda w: turns_up(w, {}, OUR_LABELS),
    "a Secret that names a dead client turns up": lambda w: turns_up(
        w, {"squidex-operator.io/client-uid": "uid-of-dead"}, {}
    ),
    "the operator restarts": restarts,
    "the server goes down": lambda w: setattr(w, "down", True),
    "the server comes up": lambda w: setattr(w, "down", False),
    "the key is replaced": replaces_key,
    "new tokens are refused": lambda w: setattr(w, "refuses_new", True),
    "new tokens are accepted": lambda w: setattr(w, "refuses_new", False),
    "the target cannot be written": lambda w: setattr(w, "unwritable", True),
    "the target can be written": lambda w: setattr(w, "unwritable", False),
}

EVENTS = HARMLESS | OTHER


def step(world: model.World) -> list[decide.Decision]:
    """One reconcile, and all that must hold of it."""
    foreign, was_good, was_due, before = world.foreign(), world.is_good(), world.is_due(), len(world.requests)
    old = world.token()
    taken = world.reconcile()
    acted = [one for one in taken if isinstance(one, model.ACTING)]
    assert len(acted) == len(set(map(repr, acted))), "the same was done twice"
    assert len(world.requests) - before <= 1, "more than one token was asked for"
    assert world.foreign() == foreign, "a foreign Secret was touched"
    last = taken[-1]
    if isinstance(last, decide.Wait):
        assert last.until is None or last.until > world.now, "due in the past: a hot loop"
    if was_good and world.token() != old:
        assert world.is_good(), "a good token was replaced by a worse one"
    for body in world.secrets.values():
        seen, grant = render.read_target(body), render.read_grant(body)
        if grant is not None:
            assert world.issuer(grant.token) == seen.url, "a token stands beside the URL of another server"
    if was_good and not was_due and world.requests[before:]:
        assert world.requests[-1] not in (reasons.Cause.EXPIRED, reasons.Cause.EXPIRING)
    return taken


def settle(world: model.World) -> None:
    """A reconcile, and another one at the same time, which has nothing to do and nothing to report."""
    step(world)
    status, requests = world.status, len(world.requests)
    again = step(world)
    assert not [one for one in again if isinstance(one, model.ACTING)], f"it is not settled: {again}"
    assert len(world.requests) == requests
    # What blocks counts on; nothing else may differ.
    if not isinstance(again[-1], decide.Blocked):
        assert conditions.merge_patch(status, world.status) == {}


@long
@hypothesis.given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=14))
def test_every_order_of_events_settles_after_each_of_them(events: list[str]) -> None:
    world = model.World()
    settle(world)
    for event in events:
        EVENTS[event](world)
        settle(world)


@long
@hypothesis.given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=14), st.data())
def test_every_order_of_events_ends_well_once_the_trouble_is_over(events: list[str], data: st.DataObject) -> None:
    world = model.World()
    for event in events:
        EVENTS[event](world)
        if data.draw(st.booleans()):
            step(world)
    over = ["the server comes up", "new tokens are accepted", "the target can be written", "the credentials come"]
    for event in [*over, "the credentials are right", "the target is deleted", "a day passes"]:
        EVENTS[event](world)
    settle(world)
    assert world.is_good()


@long
@hypothesis.given(st.lists(st.sampled_from(sorted(HARMLESS)), max_size=20))
def test_no_order_of_edits_that_a_token_does_not_depend_on_fetches_one(events: list[str]) -> None:
    world = model.World()
    settle(world)
    token = world.token()
    for event in events:
        HARMLESS[event](world)
        if world.is_due():
            return
        settle(world)
        assert (world.token(), len(world.requests)) == (token, 1), event


@long
@hypothesis.given(st.lists(st.sampled_from(sorted(OTHER)), max_size=8), st.integers(1, 60))
def test_no_cause_is_answered_twice(events: list[str], minutes: int) -> None:
    """Once a token is there, nothing but another cause fetches: not the passing of time, nor any number of reconciles."""
    world = model.World()
    for event in events:
        OTHER[event](world)
        settle(world)
    # What is noticed late, credentials that are not watched and a replaced key, is noticed within an interval.
    world.now += dt.timedelta(hours=2)
    settle(world)
    requests = len(world.requests)
    if not world.is_good() or world.memory.failure is not None:
        return
    for _ in range(5):
        world.now += dt.timedelta(minutes=minutes)
        if world.is_due():
            return
        settle(world)
        assert len(world.requests) == requests


@quick
@hypothesis.given(hours=st.lists(st.integers(1, 30 * 24), min_size=1, max_size=30))
def test_a_lookout_now_and_then_renews_once_in_each_lifetime(hours: list[int]) -> None:
    world = model.World()
    settle(world)
    for number in hours:
        world.now += dt.timedelta(hours=number)
        due, before = world.is_due(), len(world.requests)
        settle(world)
        assert len(world.requests) - before == (1 if due else 0)


@quick
@hypothesis.given(minutes=st.lists(st.integers(1, 120), min_size=1, max_size=40))
def test_a_wrong_secret_costs_at_most_six_requests_a_day(minutes: list[int]) -> None:
    world = model.World()
    credentials_become(world, world.client_id, "wrong")
    begin = world.now
    for number in minutes:
        world.now += dt.timedelta(minutes=number)
        step(world)
    days = (world.now - begin) / dt.timedelta(days=1)
    assert len(world.requests) <= 1 + 6 * days
