"""What was last seen: never replaced by something older, and whom a change concerns."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import names
from squidex_operator.engine import inventory
from squidex_operator.policy import backoff, credentials, observed
from tests.unit.policy import situation

NS = "shop"
KEY = inventory.Key(NS, "shop")


def client(
    version: str = "10", uid: str = "u1", *, name: str = "shop", generation: int = 1, **changes: Any
) -> dict[str, Any]:
    metadata = {
        "namespace": NS,
        "name": name,
        "uid": uid,
        "resourceVersion": version,
        "generation": generation,
        "creationTimestamp": changes.pop("created", "2026-05-01T00:00:00Z"),
        **changes.pop("metadata", {}),
    }
    status = changes.pop("status", {})
    spec = {"url": "https://squidex.test", "credentialsSecretRef": {"name": "credentials"}, **changes}
    return {"metadata": metadata, "spec": spec, "status": status}


def secret(
    version: str = "20", uid: str = "s1", *, name: str = "shop", role: str | None = "token", of: str = "u1"
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": NS,
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "labels": {names.LABEL_ROLE: role} if role else {},
            "annotations": {names.ANNOTATION_CLIENT_UID: of},
            "ownerReferences": [{"apiVersion": names.API_VERSION, "kind": names.KIND, "uid": of}],
        }
    }


@pytest.fixture
def seen() -> inventory.Inventory:
    return inventory.Inventory()


def test_a_new_squidexclient_concerns_itself(seen: inventory.Inventory) -> None:
    assert seen.see_client(client()) == {KEY}
    assert seen.records[KEY].client.uid == "u1"


@pytest.mark.parametrize(
    ("second", "concerned"),
    [
        (client("11"), False),
        (client("11", status={"failures": 1}), False),
        (client("11", metadata={"labels": {"a": "b"}}), False),
        (client("11", generation=2), True),
        (client("11", metadata={"deletionTimestamp": "2026-05-01T00:00:00Z"}), True),
        (client("10", generation=2), False),
        (client("9", generation=2), False),
        (client("9", "u0"), False),
        (client("11", "u2"), True),
    ],
    ids=[
        "nothing",
        "the status",
        "a label",
        "the spec",
        "a deletion",
        "the same version",
        "an older version",
        "its predecessor, told late",
        "its successor",
    ],
)
def test_whom_another_version_concerns(seen: inventory.Inventory, second: dict[str, Any], *, concerned: bool) -> None:
    seen.see_client(client())
    assert seen.see_client(second) == ({KEY} if concerned else set())


def test_a_spec_is_read_once(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    before = seen.records[KEY].client
    seen.see_client(client("11", status={"failures": 1}))
    after = seen.records[KEY].client
    assert after.status == {"failures": 1}
    assert after.spec is before.spec
    seen.see_client(client("12", generation=2, url="https://other.test"))
    spec = seen.records[KEY].client.spec
    assert spec is not None
    assert spec.url == "https://other.test"


def test_an_older_version_never_replaces_a_newer_one(seen: inventory.Inventory) -> None:
    seen.see_client(client("100", generation=2))
    seen.see_client(client("99", generation=1))  # as text, 99 is more than 100
    assert seen.records[KEY].client.generation == 2
    seen.see_secret(secret("200"))
    seen.see_secret(secret("99"))
    assert seen.targets[KEY].resource_version == "200"


def test_versions_that_are_no_numbers_replace_each_other(seen: inventory.Inventory) -> None:
    seen.see_client(client("b"))
    assert seen.see_client(client("a", generation=2)) == {KEY}
    assert seen.see_client(client("a", generation=3)) == set()


def test_another_uid_is_another_squidexclient(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.records[KEY].report_failures = 7
    seen.see_client(client("11", "u2"))
    assert seen.records[KEY].report_failures == 0
    assert not seen.forget_client(KEY, "u1", "12")
    assert seen.forget_client(KEY, "u2", "13")
    assert seen.records == {}


def test_what_has_gone_is_not_brought_back_by_what_was_under_way(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.forget_client(KEY, "u1", "15")
    assert seen.see_client(client("14")) == set()
    assert seen.records == {}
    seen.see_secret(secret())
    seen.forget_secret(KEY, "s1", "25")
    assert seen.see_secret(secret("24")) == set()
    assert seen.targets == {}


def test_what_went_before_anything_was_known_of_it_is_not_brought_back(seen: inventory.Inventory) -> None:
    seen.forget_client(KEY, "u1", "15")
    seen.forget_secret(KEY, "s1", "25")
    assert seen.see_client(client("14")) == seen.see_secret(secret("24")) == set()


def test_a_secret_that_gets_its_role_back_is_seen_again(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_secret(secret("20"))
    assert seen.forget_secret(KEY, "s1", "21") == {KEY}  # it lost its label
    assert seen.see_secret(secret("22")) == {KEY}


def test_the_news_that_it_lost_its_role_may_come_late(seen: inventory.Inventory) -> None:
    seen.see_secret(secret("22"))  # the answer to our own write, which gave it back
    assert seen.forget_secret(KEY, "s1", "21") == set()
    assert KEY in seen.targets


def test_a_successor_is_not_forgotten_with_its_predecessor(seen: inventory.Inventory) -> None:
    seen.see_secret(secret("30", "s2"))
    assert seen.forget_secret(KEY, "s1", "25") == set()
    assert seen.targets[KEY].uid == "s2"
    credentials_key = inventory.Key(NS, "credentials")
    seen.see_secret(secret("30", "c2", name="credentials", role="credentials"))
    assert seen.forget_secret(credentials_key, "c1", "25") == set()
    assert seen.known_secret(credentials_key) == ("c2", "30")


def test_no_more_of_what_has_gone_is_kept_than_is_needed(seen: inventory.Inventory) -> None:
    for n in range(10_000):
        seen.forget_client(inventory.Key(NS, str(n)), f"u{n}", "5")
    assert len(seen._gone) <= 4096
    assert seen.see_client(client("4", "u9999", name="9999")) == set()


def test_a_target_concerns_its_owner_and_whoever_names_it(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_client(client("11", "u2", name="rival", target={"name": "shop"}))
    seen.see_client(client("12", "u3", name="other"))
    assert seen.see_secret(secret()) == {KEY, inventory.Key(NS, "rival")}
    assert seen.forget_secret(KEY, "s1", "21") == {KEY, inventory.Key(NS, "rival")}


def test_a_secret_that_changes_its_owner_concerns_both(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_client(client("11", "u2", name="other"))
    seen.see_secret(secret())
    assert seen.see_secret(secret("21", of="u2")) == {KEY, inventory.Key(NS, "other")}


def test_credentials_concern_whoever_uses_them_and_has_not_seen_them(seen: inventory.Inventory) -> None:
    for n, name in enumerate(("one", "two")):
        seen.see_client(client(str(10 + n), f"u{n}", name=name))
    one, two = (inventory.Key(NS, name) for name in ("one", "two"))
    assert seen.see_secret(secret("20", "c1", name="credentials", role="credentials")) == {one, two}
    known = credentials.CredentialsSeen("c1", "21", "demo:ci", trimmed=False)
    seen.records[one].credentials = known  # a GET was faster than the watch
    seen.records[two].credentials = credentials.CredentialsSeen("c1", "20", "demo:ci", trimmed=False)
    assert seen.see_secret(secret("21", "c1", name="credentials", role="credentials")) == {two}
    assert seen.records[one].credentials is known
    assert seen.records[two].credentials is observed.UNKNOWN
    assert seen.watched_credentials(seen.records[one].client) == ("c1", "21")


def test_credentials_that_go_concern_whoever_uses_them(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_secret(secret("20", "c1", name="credentials", role="credentials"))
    due = seen.records[KEY]
    due.credentials_due = None
    assert seen.forget_secret(inventory.Key(NS, "credentials"), "c1", "21") == {KEY}
    assert due.credentials_due is not None


def test_a_secret_that_changes_its_role_is_one_or_the_other(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_secret(secret("20"))
    seen.see_secret(secret("21", role="credentials"))
    assert seen.targets == {}
    assert seen.known_secret(KEY) == ("s1", "21")
    seen.see_secret(secret("20"))  # late
    assert seen.targets == {}
    seen.see_secret(secret("22"))
    assert seen._credentials == {}
    assert seen.targets[KEY].resource_version == "22"


def test_a_change_of_the_spec_makes_the_credentials_be_looked_at_again(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    record = seen.records[KEY]
    record.credentials = situation.CREDENTIALS
    record.probe_due = dt.datetime.now(dt.UTC)
    seen.see_client(client("11"))
    assert record.credentials is situation.CREDENTIALS
    seen.see_client(client("12", generation=2))
    assert record.credentials is observed.UNKNOWN
    assert record.probe_due is None


def test_the_former_target_is_the_one_that_the_status_names(seen: inventory.Inventory) -> None:
    status = {"target": {"name": "old"}}
    seen.see_client(client(status=status, target={"name": "new"}))
    record = seen.records[KEY]
    assert seen.former_targets(record) == ()
    seen.see_secret(secret(name="old"))
    seen.see_secret(secret("21", "s2", name="copy"))
    assert [former.name for former in seen.former_targets(record)] == ["old"]


@pytest.mark.parametrize("of", ["u2", ""], ids=["another's", "nobody's"])
def test_somebody_elses_secret_is_no_former_target(seen: inventory.Inventory, of: str) -> None:
    seen.see_client(client(status={"target": {"name": "old"}}, target={"name": "new"}))
    seen.see_secret(secret(name="old", of=of))
    assert seen.former_targets(seen.records[KEY]) == ()


def test_the_older_one_of_two_that_name_the_same_target_has_it(seen: inventory.Inventory) -> None:
    seen.see_client(client("10", "u1", created="2026-05-02T00:00:00Z"))
    seen.see_client(client("11", "u2", name="rival", target={"name": "shop"}, created="2026-05-01T00:00:00Z"))
    mine, rival = seen.records[KEY].client, seen.records[inventory.Key(NS, "rival")].client
    assert seen.claimed(mine)
    assert not seen.claimed(rival)
    seen.forget_client(inventory.Key(NS, "rival"))
    assert not seen.claimed(mine)


def test_of_two_that_are_as_old_exactly_one_has_it(seen: inventory.Inventory) -> None:
    seen.see_client(client("10", "u1"))
    seen.see_client(client("11", "u2", name="rival", target={"name": "shop"}))
    claims = [seen.claimed(record.client) for record in seen.records.values()]
    assert sorted(claims) == [False, True]


def test_another_owner_counts_while_it_lives(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_client(client("11", "u2", name="other"))
    seen.see_secret(secret(of="u2"))
    mine = seen.records[KEY].client
    assert seen.other_owner(mine, seen.targets[KEY])
    seen.forget_client(inventory.Key(NS, "other"))
    assert not seen.other_owner(mine, seen.targets[KEY])


def test_when_everything_has_gone_nothing_is_left(seen: inventory.Inventory) -> None:
    for n in range(20):
        seen.see_client(client(str(n + 1), f"u{n}", name=f"c{n}", credentialsSecretRef={"name": f"s{n}"}))
        seen.see_client(client(str(n + 100), f"u{n}", name=f"c{n}", generation=2, target={"name": f"t{n}"}))
        seen.see_secret(secret(str(n + 1), f"t{n}", name=f"t{n}", of=f"u{n}"))
        seen.see_secret(secret(str(n + 1), f"s{n}", name=f"s{n}", role="credentials"))
        seen.see_secret(secret(str(n + 1), f"x{n}", name=f"unused-{n}", role="credentials"))
        seen.see_client(client(str(n + 1), f"broken-{n}", name=f"broken-{n}", probe={"interval": "often"}))
    clients, secrets = seen.versions()
    assert len(clients) == 40
    assert len(secrets) == 60
    for key in clients:
        assert seen.forget_client(key)
    for key in secrets:
        seen.forget_secret(key)
    left = (seen.records, seen.targets, seen._credentials, seen._by_uid, seen._by_target, seen._by_credentials)
    assert [dict(index) for index in left] == [{}] * 6
    assert not seen.forget_client(KEY)
    assert seen.forget_secret(KEY) == set()


def test_the_squidexclients_of_a_server(seen: inventory.Inventory) -> None:
    seen.see_client(client())
    seen.see_client(client("11", "u2", name="slash", url="https://squidex.test/"))
    seen.see_client(client("12", "u3", name="other", url="https://other.test"))
    seen.see_client(client("13", "u4", name="broken", probe={"interval": "often"}))
    assert {key.name for key, _ in seen.of_server("https://squidex.test")} == {"shop", "slash"}


# After a restart


def failed(**changes: Any) -> dict[str, Any]:
    condition = {
        "type": "RefreshFailing",
        "status": "True",
        "reason": "InvalidClient",
        "message": "It said no. Next try at 2026-05-01T16:00:00Z.",
    }
    return {
        "failures": 3,
        "lastFailureTime": "2026-05-01T12:00:00Z",
        "nextAttemptTime": "2026-05-01T16:00:00Z",
        "conditions": [condition | changes.pop("condition", {})],
        "observedGeneration": 5,
        "failedInputsHash": "abc",
        **changes,
    }


def test_the_last_failure_is_read_from_the_status(seen: inventory.Inventory) -> None:
    seen.see_client(client(status=failed()))
    failure = seen.records[KEY].failure
    assert failure is not None
    assert failure.problem.kind is backoff.Kind.PERMANENT
    assert failure.problem.message == "It said no."
    assert (failure.count, failure.generation, failure.inputs_hash) == (3, 5, "abc")


@pytest.mark.parametrize(
    "status",
    [
        {},
        failed(failures=0),
        failed(lastFailureTime="yesterday"),
        failed(nextAttemptTime=None),
        failed(condition={"status": "False"}),
        failed(condition={"reason": "NoSuchReason"}),
        failed(conditions=[]),
        failed(conditions=None),
    ],
    ids=["none", "no failures", "no time", "no next time", "it is over", "an unknown reason", "no condition", "null"],
)
def test_a_status_without_a_failure(seen: inventory.Inventory, status: dict[str, Any]) -> None:
    seen.see_client(client(status=status))
    assert seen.records[KEY].failure is None


def test_a_short_wait_is_one_that_will_pass(seen: inventory.Inventory) -> None:
    seen.see_client(client(status=failed(nextAttemptTime="2026-05-01T12:05:00Z")))
    failure = seen.records[KEY].failure
    assert failure is not None
    assert failure.problem.kind is backoff.Kind.TRANSIENT


def test_a_spec_that_cannot_be_read_is_kept_with_what_is_wrong(seen: inventory.Inventory) -> None:
    seen.see_client(client(probe={"interval": "often"}))
    found = seen.records[KEY].client
    assert found.spec is None
    assert "spec.probe.interval" in found.spec_error
    assert seen.watched_credentials(found) is None


def test_what_is_kept_is_a_copy() -> None:
    status = {"conditions": [{"type": "Ready"}]}
    seen = inventory.Inventory()
    seen.see_client(client(status=status))
    status["conditions"][0]["type"] = "Changed"
    assert seen.records[KEY].client.status["conditions"][0]["type"] == "Ready"


def test_a_grant_that_is_pending_shows_nothing_of_itself() -> None:
    from squidex_operator.api import reasons
    from squidex_operator.policy import render

    now = dt.datetime.now(dt.UTC)
    grant = render.Grant("the-token", now, now, "key-1", "demo:ci")
    pending = inventory.PendingToken(grant, "abc", reasons.Cause.FIRST_TOKEN, situation.CREDENTIALS, None)
    assert "the-token" not in repr(pending)
    assert "the-token" not in repr(pending.summary)


def test_what_the_flags_forbade_is_asked_again_after_a_restart(seen: inventory.Inventory) -> None:
    condition = {"type": "RefreshFailing", "status": "True", "reason": "URLNotAllowed", "message": "No."}
    times = {"lastFailureTime": "2026-05-01T00:00:00Z", "nextAttemptTime": "2026-05-01T04:30:00Z"}
    seen.see_client(client(status={"failures": 1, "conditions": [condition], "observedGeneration": 1, **times}))
    failure = seen.records[KEY].failure
    assert failure is not None
    assert failure.problem.kind is backoff.Kind.PERMANENT
    assert failure.next_attempt == failure.at
