"""What a token says of itself."""

from __future__ import annotations

import base64
import json

import pytest

from squidex_operator.policy import jwt
from tests.unit.policy import situation


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


HEADER = encoded(b'{"alg":"RS256","kid":"key-1"}')


def with_payload(payload: object) -> str:
    return f"{HEADER}.{encoded(json.dumps(payload).encode())}.c2ln"


def test_the_claims_of_a_token_of_squidex() -> None:
    claims = jwt.read(situation.jwt(exp=1780000000, kid="key-7"))
    assert claims == jwt.Claims(key_id="key-7", client_id="shop:default", expires=1780000000)


@pytest.mark.parametrize(
    ("token", "claims"),
    [
        pytest.param(with_payload({"sub": "app:x"}), jwt.Claims("key-1", "app:x", None), id="only a sub"),
        pytest.param(
            with_payload({"client_id": "a", "sub": "b"}), jwt.Claims("key-1", "a", None), id="client_id before sub"
        ),
        pytest.param(with_payload({}), jwt.Claims("key-1", "", None), id="an empty payload"),
        pytest.param(
            with_payload({"client_id": 5, "sub": ["x"], "exp": "soon"}), jwt.Claims("key-1", "", None), id="wrong types"
        ),
        pytest.param(with_payload({"client_id": "aé☃"}), jwt.Claims("key-1", "aé☃", None), id="other letters"),
        pytest.param(with_payload({"client_id": "\ud800"}), jwt.Claims("key-1", "\ud800", None), id="half a letter"),
        pytest.param(f"{encoded(b'{}')}.{encoded(b'{}')}.", jwt.Claims("", "", None), id="no kid and no signature"),
    ],
)
def test_claims_that_are_odd_are_read_as_missing(token: str, claims: jwt.Claims) -> None:
    assert jwt.read(token) == claims


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("opaque-reference-token", id="one part"),
        pytest.param("a.b", id="two parts"),
        pytest.param("a.b.c.d.e", id="five parts, encrypted"),
        pytest.param("!!.??.c2ln", id="no base64"),
        pytest.param("é.é.é", id="other letters"),
        pytest.param(f"{HEADER}.A.c2ln", id="a length that base64 cannot have"),
        pytest.param(f"{HEADER}.{encoded(b'no json')}.c2ln", id="no JSON"),
        pytest.param(f"{HEADER}.{encoded(bytes([0xFF, 0xFE, 0xFF]))}.c2ln", id="no text"),
        pytest.param(with_payload([1]), id="a list"),
        pytest.param(f"{encoded(b'null')}.{encoded(b'{}')}.c2ln", id="no header"),
        pytest.param(f"{HEADER}.{encoded(b'[' * 100_000)}.c2ln", id="JSON that is too deep"),
        pytest.param(f"{HEADER}.{encoded(b'[' + b'9' * 5000 + b']')}.c2ln", id="a number of 5000 digits"),
    ],
)
def test_anything_else_is_an_opaque_token(token: str) -> None:
    assert jwt.read(token) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0.0),
        (3600, 3600.0),
        (-5, -5.0),
        (1.5, 1.5),
        ("3600", 3600.0),
        (" 60 ", 60.0),
        ("", None),
        ("an hour", None),
        ("NaN", None),
        ("Infinity", None),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        (1e15, None),
        (-1e15, None),
        (10**400, None),
        ("1e400", None),
        (True, None),
        (None, None),
        ([3600], None),
        ({"seconds": 1}, None),
    ],
    ids=repr,
)
def test_a_number_is_a_finite_one_or_none(value: object, number: float | None) -> None:
    assert jwt.number(value) == number
