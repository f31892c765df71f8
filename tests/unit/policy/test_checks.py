"""Is a new token needed, and why?"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import checks, credentials, observed
from tests.unit.policy import situation

NOW = situation.NOW
Cause = reasons.Cause
client = situation.client
OTHER = dataclasses.replace(situation.CREDENTIALS, resource_version="8", client_id="shop:second", fingerprint="second")
TOUCHED = dataclasses.replace(situation.CREDENTIALS, resource_version="8")


def target(**changes: Any) -> observed.TargetSeen:
    found: observed.TargetSeen = situation.target(**changes)
    return found


def of_token(**claims: Any) -> observed.TargetSeen:
    return target(granted=situation.grant(token=situation.jwt(**claims)))


PROBLEM = credentials.missing(situation.spec().credentials_secret_ref)
NO_STATUS = client(status={})
EDITED = client(generation=2)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        pytest.param({}, None, id="nothing is needed where all is well"),
        pytest.param({"target": None, "client": NO_STATUS}, Cause.FIRST_TOKEN, id="no target and no report: the first"),
        pytest.param({"target": None}, Cause.TARGET_DELETED, id="no target, but a report: it was deleted"),
        pytest.param(
            {"target": None, "former_targets": (target(name="old"),)},
            Cause.TARGET_RENAMED,
            id="a former target: renamed",
        ),
        pytest.param({"target": target(token_intact=False)}, Cause.TARGET_DAMAGED, id="a damaged token"),
        pytest.param({"target": target(issued_at=None)}, Cause.TARGET_DAMAGED, id="no time of issue"),
        pytest.param({"target": target(expires_at=None)}, Cause.TARGET_DAMAGED, id="no expiry"),
        pytest.param(
            {"target": target(inputs_hash="")}, Cause.TARGET_DAMAGED, id="nothing says what it was fetched with"
        ),
        pytest.param({"target": target(data_intact=False)}, None, id="damage beside the token needs no new one"),
        pytest.param(
            {"target": of_token(client_id="evil:x")},
            Cause.TARGET_DAMAGED,
            id="another client's token that was pasted in",
        ),
        pytest.param(
            {"target": of_token(client_id="evil:x"), "credentials": observed.UNKNOWN},
            None,
            id="credentials not looked at",
        ),
        pytest.param(
            {"target": of_token(client_id="", sub="")},
            None,
            id="a token that does not say whose it is is held by its hash",
        ),
        pytest.param(
            {"target": target(granted=situation.grant(token="opaque"))}, None, id="an opaque token is held by its hash"
        ),
        pytest.param({"credentials": OTHER, "fetched_with": None}, Cause.CREDENTIALS_CHANGED, id="other credentials"),
        pytest.param({"credentials": OTHER}, Cause.CREDENTIALS_CHANGED, id="other credentials, the old ones known"),
        pytest.param({"credentials": TOUCHED}, None, id="the credentials' metadata changed"),
        pytest.param(
            {"credentials": TOUCHED, "fetched_with": None},
            Cause.CREDENTIALS_CHANGED,
            id="the credentials' version changed, and nothing says that only metadata did",
        ),
        pytest.param(
            {"credentials": TOUCHED, "fetched_with": dataclasses.replace(OTHER, resource_version="5")},
            Cause.CREDENTIALS_CHANGED,
            id="the credentials' version changed, and the token was fetched with others",
        ),
        pytest.param(
            {"client": client(spec=situation.spec(scope="squidex-api openid"), generation=2), "target": target()},
            Cause.SPEC_CHANGED,
            id="another scope",
        ),
        pytest.param(
            {"client": client(spec=situation.spec(scope="squidex-api openid")), "target": target()},
            Cause.SPEC_CHANGED,
            id="another scope that was reported on, as its first attempt failed",
        ),
        pytest.param(
            {"client": EDITED, "credentials": OTHER, "fetched_with": None},
            Cause.SPEC_CHANGED,
            id="other credentials together with an edit of the spec",
        ),
        pytest.param(
            {"client": client(spec=situation.spec(url="https://b.example"), generation=2), "target": target()},
            Cause.SPEC_CHANGED,
            id="another server",
        ),
        pytest.param(
            {
                "client": client(spec=situation.spec(url="https://b.example"), generation=2),
                "target": target(),
                "credentials": PROBLEM,
            },
            Cause.SPEC_CHANGED,
            id="another server, whatever is known of the credentials",
        ),
        pytest.param({"client": EDITED}, None, id="an edit of the spec that a token does not depend on"),
        pytest.param({"credentials": PROBLEM}, None, id="credentials that went need no new token"),
        pytest.param({"credentials": observed.UNKNOWN}, None, id="credentials that were not looked at need none"),
        pytest.param({"key_vanished": True}, Cause.KEY_REPLACED, id="its key is published no more"),
        pytest.param(
            {"probed": situation.probed(observed.Verdict.REFUSED)},
            Cause.REFUSED,
            id="the server refused this very token",
        ),
        pytest.param(
            {"probed": situation.probed(observed.Verdict.REFUSED, target(data_hash="former"))},
            None,
            id="it refused another",
        ),
        pytest.param({"probed": situation.probed(observed.Verdict.ACCEPTED)}, None, id="the server accepts it"),
        pytest.param({"probed": situation.probed(observed.Verdict.APP_NOT_FOUND)}, None, id="the app is gone"),
        pytest.param({"probed": situation.probed(observed.Verdict.INCONCLUSIVE)}, None, id="the server does not say"),
        pytest.param(
            {"key_vanished": True, "probed": situation.probed(observed.Verdict.REFUSED)},
            Cause.REFUSED,
            id="refused comes before a key that vanished",
        ),
        pytest.param(
            {"credentials": OTHER, "probed": situation.probed(observed.Verdict.REFUSED)},
            Cause.CREDENTIALS_CHANGED,
            id="other credentials come before refused",
        ),
        pytest.param(
            {"target": target(token_intact=False), "credentials": OTHER},
            Cause.TARGET_DAMAGED,
            id="damage comes before other credentials",
        ),
    ],
)
def test_why_a_token_is_needed(changes: dict[str, Any], cause: reasons.Cause | None) -> None:
    o = situation.seen(**changes)
    assert o.client.spec is not None
    assert checks.token_needed(NOW, o, o.client.spec) is cause


@pytest.mark.parametrize(
    ("after", "cause"),
    [
        pytest.param(dt.timedelta(days=18.4), None, id="before a third is left"),
        pytest.param(dt.timedelta(days=20), Cause.EXPIRING, id="a third is left"),
        pytest.param(dt.timedelta(days=30) - dt.timedelta(microseconds=1), Cause.EXPIRING, id="the last moment"),
        pytest.param(dt.timedelta(days=30), Cause.EXPIRED, id="the very second of its expiry: it is dead"),
        pytest.param(dt.timedelta(days=-8), None, id="a clock that was set back"),
        pytest.param(
            dt.timedelta(days=-400), Cause.EXPIRING, id="a clock that was set back, from where it would be dead"
        ),
    ],
)
def test_a_token_grows_old(after: dt.timedelta, cause: reasons.Cause | None) -> None:
    assert checks.token_needed(situation.ISSUED + after, situation.seen(), situation.spec()) is cause


@pytest.mark.parametrize("seen", [None, observed.UNKNOWN, target(issued_at=None), target(expires_at=None)], ids=str)
def test_without_a_token_there_is_no_renewal(seen: Any) -> None:
    o = situation.seen(target=seen)
    assert checks.renewal_due(o, situation.spec()) is None
    assert not checks.is_due(NOW + dt.timedelta(days=400), o, situation.spec())


def test_the_target_is_what_was_looked_at() -> None:
    assert checks.target(situation.seen(target=observed.UNKNOWN)) is None
    assert checks.target(situation.seen(target=None)) is None
    assert checks.target(situation.seen()) == target()
    assert not checks.is_refused(situation.seen(target=None))
    assert not checks.same_credentials(situation.seen(target=None), situation.spec())


@pytest.mark.parametrize(
    ("status", "changed"), [({}, True), ({"observedGeneration": 2}, True), ({"observedGeneration": 1}, False)], ids=str
)
def test_a_spec_has_changed_until_it_is_reported_on(status: dict[str, Any], changed: bool) -> None:
    assert checks.spec_changed(situation.seen(client=client(status=status))) is changed
