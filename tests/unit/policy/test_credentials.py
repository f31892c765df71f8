"""The client's id and secret, as they stand in a Secret."""

from __future__ import annotations

import base64

import pytest

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff, credentials

REF = resource.CredentialsSecretRef(name="keys")


def data(**values: bytes) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in values.items()}


@pytest.mark.parametrize(
    ("values", "client_id", "secret", "trimmed"),
    [
        pytest.param({"clientId": b"a:b", "clientSecret": b"s"}, "a:b", "s", False, id="as they should be"),
        pytest.param({"clientId": b"a:b\n", "clientSecret": b"s"}, "a:b", "s", True, id="an id made with echo"),
        pytest.param({"clientId": b"a:b", "clientSecret": b"s\r\n"}, "a:b", "s", True, id="a secret made on Windows"),
        pytest.param({"clientId": b"\t a:b", "clientSecret": b" s "}, "a:b", "s", True, id="blanks around both"),
        pytest.param({"clientId": b"\xef\xbb\xbfa:b", "clientSecret": b"s"}, "a:b", "s", False, id="a byte order mark"),
        pytest.param(
            {"clientId": b"a:b", "clientSecret": b"a+b/c=d e&f"}, "a:b", "a+b/c=d e&f", False, id="blanks inside"
        ),
        pytest.param({"clientId": "ü:b".encode(), "clientSecret": "☃".encode()}, "ü:b", "☃", False, id="other letters"),
    ],
)
def test_id_and_secret_are_read_without_white_space_around_them(
    values: dict[str, bytes], client_id: str, secret: str, trimmed: bool
) -> None:
    assert credentials.read(data(**values), REF) == credentials.Credentials(client_id, secret, trimmed)


def test_the_keys_are_those_that_the_spec_names() -> None:
    ref = resource.CredentialsSecretRef(name="keys", client_id_key="id", client_secret_key="pw")
    found = credentials.read(data(id=b"a:b", pw=b"s", clientId=b"no", clientSecret=b"no"), ref)
    assert found == credentials.Credentials("a:b", "s", trimmed=False)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        pytest.param(None, "has no key 'clientId'", id="no data at all"),
        pytest.param({}, "has no key 'clientId'", id="no keys"),
        pytest.param(data(clientId=b"a:b"), "has no key 'clientSecret'", id="no secret"),
        pytest.param(data(clientSecret=b"s"), "has no key 'clientId'", id="no id"),
        pytest.param(data(clientId=b"", clientSecret=b"s"), "has nothing under 'clientId'", id="an empty id"),
        pytest.param(data(clientId=b"a", clientSecret=b" \n"), "has nothing under 'clientSecret'", id="a blank secret"),
        pytest.param(
            data(clientId=b"\xff\xfe", clientSecret=b"s"), "under 'clientId' that is not UTF-8 text", id="not UTF-8"
        ),
        pytest.param({"clientId": "!", "clientSecret": "cw=="}, "under 'clientId' that is not UTF-8", id="not base64"),
        pytest.param(
            {"clientId": "é", "clientSecret": "cw=="}, "under 'clientId' that is not UTF-8", id="not even ASCII"
        ),
    ],
)
def test_a_problem_names_the_secret_the_key_and_what_it_needs(raw: dict[str, str] | None, what: str) -> None:
    found = credentials.read(raw, REF)
    assert isinstance(found, backoff.Problem)
    assert (found.kind, found.reason) == (backoff.Kind.CLUSTER, reasons.Reason.CREDENTIALS_INCOMPLETE)
    assert what in found.message
    assert "'keys'" in found.message
    assert "It needs the keys 'clientId' and 'clientSecret'." in found.message


def test_a_missing_secret_is_named_with_the_keys_to_give_it() -> None:
    found = credentials.missing(REF)
    assert (found.kind, found.reason) == (backoff.Kind.CLUSTER, reasons.Reason.CREDENTIALS_MISSING)
    assert found.message == "Secret 'keys' does not exist. Create it with the keys 'clientId' and 'clientSecret'."


def test_the_secret_is_in_no_repr() -> None:
    found = credentials.Credentials("a:b", "s3cr3t", trimmed=False)
    seen = credentials.CredentialsSeen("uid", "1", "a:b", trimmed=False, fingerprint="f1ng3r")
    assert "s3cr3t" not in repr(found)
    assert "f1ng3r" not in repr(seen)
