"""The target Secret, written and read back."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import names
from squidex_operator.policy import observed, render
from tests.unit.policy import situation

NOW = situation.NOW


def read_back(**changes: Any) -> observed.TargetSeen:
    return render.read_target(changed(situation.secret(), **changes))


def changed(body: dict[str, Any], *, data: Any = None, annotations: Any = None, **metadata: Any) -> dict[str, Any]:
    """A Secret that somebody has been at: None takes a key away."""
    for place, edits in (("data", data), ("annotations", annotations)):
        where = body["data"] if place == "data" else body["metadata"]["annotations"]
        for key, value in (edits or {}).items():
            if value is None:
                del where[key]
            else:
                where[key] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    body["metadata"] |= metadata
    return body


def test_the_target_secret_is_this_and_nothing_more() -> None:
    granted = situation.grant()
    body = render.target_secret(situation.client(), situation.spec(url="https://cms.example.com/"), granted, "hash")
    data = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
    assert data == {
        "token": granted.token,
        "tokenType": "Bearer",
        "expiresAt": "2026-05-30T12:00:00Z",
        "url": "https://cms.example.com",
    }
    annotations = body["metadata"].pop("annotations")
    assert annotations.pop("squidex-operator.io/data-hash") == render.data_hash(data, "2026-04-30T12:00:00Z", "key-1")
    assert annotations == {
        "squidex-operator.io/client-uid": situation.UID,
        "squidex-operator.io/issued-at": "2026-04-30T12:00:00Z",
        "squidex-operator.io/expires-at": "2026-05-30T12:00:00Z",
        "squidex-operator.io/key-id": "key-1",
        "squidex-operator.io/inputs-hash": "hash",
    }
    assert body == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "shop",
            "namespace": "web",
            "labels": {"squidex-operator.io/role": "token", "app.kubernetes.io/managed-by": "squidex-operator"},
            "ownerReferences": [
                {
                    "apiVersion": "squidex-operator.io/v1beta1",
                    "kind": "SquidexClient",
                    "name": "shop",
                    "uid": situation.UID,
                    "controller": True,
                }
            ],
        },
        "type": "Opaque",
        "data": body["data"],
    }


def test_what_was_written_is_read_back_whole_and_without_the_token() -> None:
    seen = render.read_target(situation.secret())
    assert (seen.name, seen.uid, seen.resource_version, seen.secret_type) == ("shop", "uid-of-target", "50", "Opaque")
    assert (seen.client_uid, seen.owner_uids, seen.labelled) == (situation.UID, {situation.UID}, True)
    assert (seen.issued_at, seen.expires_at) == (situation.ISSUED, situation.ISSUED + situation.MONTH)
    assert (seen.key_id, seen.url, seen.token_client_id) == ("key-1", "https://cms.example.com", "shop:default")
    assert seen.inputs_hash == render.inputs_of(situation.spec(), situation.CREDENTIALS)
    assert (seen.data_intact, seen.token_intact, seen.opaque, seen.deleting) == (True, True, False, False)
    assert situation.jwt() not in repr(seen)
    assert render.read_grant(situation.secret()) == situation.grant()


def test_an_opaque_token_is_held_by_its_hash() -> None:
    granted = situation.grant(token="reference", key_id="", client_id="")
    seen = render.read_target(situation.secret(granted=granted))
    assert (seen.opaque, seen.token_client_id, seen.key_id, seen.token_intact) == (True, "", "", True)
    assert render.read_grant(situation.secret(granted=granted)) == granted


def test_an_empty_token_is_none_even_where_its_hash_is_right() -> None:
    assert not render.read_target(situation.secret(granted=situation.grant(token=""))).token_intact


@pytest.mark.parametrize(
    ("change", "data_intact", "token_intact"),
    [
        pytest.param({"data": {"token": b"another"}}, False, False, id="another token"),
        pytest.param({"data": {"token": situation.jwt(jti="2").encode()}}, False, False, id="another token of ours"),
        pytest.param({"data": {"token": None}}, False, False, id="no token"),
        pytest.param({"data": {"token": b""}}, False, False, id="an empty token"),
        pytest.param({"data": {"token": b"\xff"}}, False, False, id="a token that is no text"),
        pytest.param({"data": {"token": "\u00e9"}}, False, False, id="a token that is no base64"),
        pytest.param({"data": {"token": 5}}, False, False, id="a token that is a number"),
        pytest.param({"data": {"tokenType": b"Basic"}}, False, True, id="another type of token"),
        pytest.param({"data": {"tokenType": None}}, False, True, id="no type of token"),
        pytest.param({"data": {"expiresAt": b"never"}}, False, True, id="another expiry in the data"),
        pytest.param({"data": {"url": b"https://evil.org"}}, False, False, id="another URL"),
        pytest.param({"data": {"url": None}}, False, False, id="no URL"),
        pytest.param({"data": {"theirs": b"kept"}}, True, True, id="a key of somebody else"),
        pytest.param({"annotations": {names.ANNOTATION_DATA_HASH: None}}, False, False, id="no hash"),
        pytest.param({"annotations": {names.ANNOTATION_DATA_HASH: ""}}, False, False, id="an empty hash"),
        pytest.param({"annotations": {names.ANNOTATION_ISSUED_AT: None}}, False, False, id="no time of issue"),
        pytest.param(
            {"annotations": {names.ANNOTATION_ISSUED_AT: "2026-05-01T00:00:00Z"}},
            False,
            False,
            id="a later time of issue",
        ),
        pytest.param({"annotations": {names.ANNOTATION_EXPIRES_AT: None}}, True, False, id="no expiry"),
        pytest.param(
            {"annotations": {names.ANNOTATION_EXPIRES_AT: "2027-05-30T12:00:00Z"}}, True, False, id="a later expiry"
        ),
        pytest.param({"annotations": {names.ANNOTATION_KEY_ID: "other"}}, False, False, id="another key id"),
        pytest.param({"annotations": {"theirs": "kept"}}, True, True, id="an annotation of somebody else"),
    ],
)
def test_damage_is_seen(change: dict[str, Any], data_intact: bool, token_intact: bool) -> None:
    seen = read_back(**change)
    assert (seen.data_intact, seen.token_intact) == (data_intact, token_intact)
    assert (render.read_grant(changed(situation.secret(), **change)) is not None) is token_intact


def test_a_secret_of_somebody_else_has_nothing_of_ours() -> None:
    body = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "deletionTimestamp": "2026-05-01T00:00:00Z"}}
    seen = render.read_target(body)
    assert (seen.client_uid, seen.owner_uids, seen.labelled, seen.secret_type) == ("", frozenset(), False, "")
    assert (seen.data_intact, seen.token_intact, seen.opaque, seen.deleting) == (False, False, True, True)
    assert (seen.issued_at, seen.expires_at, seen.inputs_hash, seen.data_hash) == (None, None, "", "")
    assert render.read_grant(body) is None


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [
        ({names.LABEL_ROLE: "token", names.LABEL_MANAGED_BY: "squidex-operator"}, True),
        ({names.LABEL_ROLE: "credentials", names.LABEL_MANAGED_BY: "squidex-operator"}, False),
        ({names.LABEL_ROLE: "token"}, False),
        ({names.LABEL_ROLE: "token", names.LABEL_MANAGED_BY: "Helm"}, False),
        (None, False),
    ],
    ids=["both", "another role", "no manager", "another manager", "none"],
)
def test_a_target_has_both_labels(labels: dict[str, str] | None, labelled: bool) -> None:
    assert read_back(labels=labels).labelled is labelled


def test_owners_are_squidexclients_of_any_version_and_nothing_else() -> None:
    owners = [
        {"apiVersion": "squidex-operator.io/v1beta1", "kind": "SquidexClient", "uid": "a"},
        {"apiVersion": "squidex-operator.io/v1", "kind": "SquidexClient", "uid": "b"},
        {"apiVersion": "squidex-operator.io.evil.org/v1", "kind": "SquidexClient", "uid": "c"},
        {"apiVersion": "squidex-operator.io/v1", "kind": "Other", "uid": "d"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "uid": "e"},
    ]
    assert read_back(ownerReferences=owners).owner_uids == {"a", "b"}
    assert read_back(ownerReferences=None).owner_uids == frozenset()


BASE = ("https://a.example", "squidex-api", "app:x", "uid-1", "1")


@pytest.mark.parametrize(
    ("inputs", "same"),
    [
        pytest.param(BASE, True, id="the same"),
        pytest.param(("https://a.example/", *BASE[1:]), True, id="a trailing slash"),
        pytest.param(("https://b.example", *BASE[1:]), False, id="another server"),
        pytest.param((BASE[0], "squidex-api openid", *BASE[2:]), False, id="another scope"),
        pytest.param((*BASE[:2], "app:y", *BASE[3:]), False, id="another client"),
        pytest.param((*BASE[:3], "uid-2", "1"), False, id="another Secret"),
        pytest.param((*BASE[:4], "2"), False, id="another version"),
        pytest.param((BASE[0], "squidex-api app:x", "", *BASE[3:]), False, id="the same letters, parted elsewhere"),
        pytest.param((*BASE[:3], "uid-11", ""), False, id="the same letters, parted elsewhere again"),
    ],
)
def test_the_inputs_hash_covers_what_a_token_depends_on(inputs: tuple[str, ...], same: bool) -> None:
    def of(url: str, scope: str, client_id: str, uid: str, version: str) -> str:
        return render.inputs_hash(situation.spec(url=url, scope=scope), client_id, uid, version)

    assert (of(*inputs) == of(*BASE)) is same


def test_nothing_else_of_a_spec_is_in_the_inputs_hash() -> None:
    other = situation.spec(
        tls={"caRef": {"kind": "Secret", "name": "ca"}},
        refresh={"renewBefore": "1h"},
        probe={"mode": "Off", "interval": "5m"},
        target={"name": "other"},
    )
    plain = render.inputs_of(situation.spec(), situation.CREDENTIALS)
    trimmed = dataclasses.replace(situation.CREDENTIALS, trimmed=True, fingerprint="other")
    assert render.inputs_of(other, trimmed) == plain


def test_a_hash_is_the_same_in_every_release() -> None:
    # Literals: another hash would have every token fetched again by an upgrade.
    found = render.inputs_hash(situation.spec(), "a:b", "uid", "1")
    assert found == "95a2aafe06cdd4219dfab0170be8538d4676147bf0ce38dc0fffbd7545ce9e80"
    data = {"token": "t", "tokenType": "Bearer", "expiresAt": "2026-05-30T12:00:00Z", "url": "https://a.example"}
    assert (
        render.data_hash(data, "2026-04-30T12:00:00Z", "key-1")
        == "e021364dd3a71c1b79c2fbe321995ac1519a05671aa0ea148461fd27469cb39e"
    )


def test_a_data_hash_tells_an_empty_value_from_none_and_where_one_ends() -> None:
    digests = {
        render.data_hash(data, *rest)
        for data, *rest in (
            ({"token": "a", "tokenType": "b"}, "", ""),
            ({"token": "ab", "tokenType": ""}, "", ""),
            ({"token": "ab"}, "", ""),
            ({"token": "a"}, "b", ""),
            ({"token": "a"}, "", "b"),
            ({}, "a", "b"),
        )
    }
    assert len(digests) == 6


def test_a_grant_never_shows_its_token() -> None:
    shown = "Token(key-1, expires 2026-05-30T12:00:00Z)"
    assert repr(situation.grant()) == str(situation.grant()) == f"{situation.grant()}" == shown
    assert repr(situation.grant(key_id="")) == "Token(opaque, expires 2026-05-30T12:00:00Z)"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC), "2026-05-01T12:00:00Z"),
        (dt.datetime(2026, 5, 1, 12, 0, 0, 999999, tzinfo=dt.UTC), "2026-05-01T12:00:00Z"),
        (dt.datetime(2026, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-05-01T10:00:00Z"),
        (dt.datetime(1, 1, 1, tzinfo=dt.UTC), "0001-01-01T00:00:00Z"),
        (dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC), "9999-12-31T23:59:59Z"),
    ],
    ids=["in UTC", "cut to the second", "in another zone", "the first year", "the last second"],
)
def test_times_are_written_as_rfc_3339_in_utc(time: dt.datetime, text: str) -> None:
    assert render.format_time(time) == text
    assert render.parse_time(text) == time.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        None,
        5,
        ["2026-05-01T12:00:00Z"],
        "2026-05-01",
        "2026-05-01T12:00:00",
        "2026-02-30T12:00:00Z",
        "2026-05-01T12:00:60Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-01:00",
        "2026-05-01T12:00:00Z; rm",
    ],
    ids=repr,
)
def test_anything_else_is_no_time(text: object) -> None:
    assert render.parse_time(text) is None


def test_a_time_of_another_zone_is_read_in_utc() -> None:
    found = render.parse_time("2026-05-01T14:00:00+02:00")
    assert found == NOW
    assert found is not None
    assert found.tzinfo is dt.UTC
