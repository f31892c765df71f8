"""The SquidexClient as Python."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pydantic
import pytest

from squidex_operator.api import resource

MINIMAL = {"credentialsSecretRef": {"name": "keys"}}


def test_a_minimal_spec_has_the_defaults_of_the_crd() -> None:
    spec = resource.parse_spec(MINIMAL)
    assert spec.url == "https://cloud.squidex.io"
    assert spec.scope == "squidex-api"
    assert spec.tls is None
    assert spec.credentials_secret_ref.client_id_key == "clientId"
    assert spec.credentials_secret_ref.client_secret_key == "clientSecret"
    assert (spec.refresh.renew_before, spec.refresh.renew_before_percentage) == (None, None)
    assert (spec.probe.mode, spec.probe.interval) == ("Auto", dt.timedelta(hours=1))
    assert (spec.target.name, spec.target.type) == (None, "Opaque")


def test_a_full_spec_is_read() -> None:
    spec = resource.parse_spec(
        {
            "url": "https://cms.example.com/base/",
            "credentialsSecretRef": {"name": "keys", "clientIdKey": "id", "clientSecretKey": "secret"},
            "scope": "squidex-api openid",
            "tls": {"caRef": {"kind": "Secret", "name": "ca", "key": "root.pem"}},
            "refresh": {"renewBefore": "72h"},
            "probe": {"mode": "Off", "interval": "10m"},
            "target": {"name": "token", "type": "example.com/token"},
        }
    )
    assert spec.tls is not None
    assert (spec.tls.ca_ref.kind, spec.tls.ca_ref.name, spec.tls.ca_ref.key) == ("Secret", "ca", "root.pem")
    assert spec.refresh.renew_before == dt.timedelta(days=3)
    assert spec.probe.interval == dt.timedelta(minutes=10)
    assert (spec.credentials_secret_ref.client_id_key, spec.target.type) == ("id", "example.com/token")


def test_fields_of_a_newer_crd_are_passed_over() -> None:
    assert resource.parse_spec({**MINIMAL, "later": {"field": 1}}) == resource.parse_spec(MINIMAL)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        resource.parse_spec(MINIMAL).url = "https://elsewhere.example.com"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "base", "host"),
    [
        pytest.param("https://a.example", "https://a.example", "https://a.example", id="plain"),
        pytest.param("https://a.example///", "https://a.example", "https://a.example", id="trailing slashes"),
        pytest.param("https://a.example/cms/", "https://a.example/cms", "https://a.example", id="a path"),
        pytest.param("https://A.Example:8443/Cms", "https://A.Example:8443/Cms", "https://a.example:8443", id="a port"),
        pytest.param("HTTPS://a.example", "HTTPS://a.example", "https://a.example", id="a scheme in upper case"),
        pytest.param("https://[::1]:5000/", "https://[::1]:5000", "https://[::1]:5000", id="an IPv6 address"),
    ],
)
def test_the_base_url_has_no_trailing_slash_and_a_host_is_shared_by_all_its_spellings(
    url: str, base: str, host: str
) -> None:
    spec = resource.parse_spec({**MINIMAL, "url": url})
    assert (spec.base_url, spec.host) == (base, host)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("72h", dt.timedelta(hours=72)),
        ("10m", dt.timedelta(minutes=10)),
        ("1h30m", dt.timedelta(minutes=90)),
        ("1.5h", dt.timedelta(minutes=90)),
        ("90m0s", dt.timedelta(minutes=90)),
        ("3600000ms", dt.timedelta(hours=1)),
        (dt.timedelta(hours=2), dt.timedelta(hours=2)),
    ],
)
def test_durations_are_read_as_go_reads_them(text: object, length: dt.timedelta) -> None:
    assert resource.parse_spec({**MINIMAL, "refresh": {"renewBefore": text}}).refresh.renew_before == length


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({}, "spec.credentialsSecretRef: Field required", id="no credentials"),
        pytest.param([], "spec: Input should be a valid dictionary", id="no object at all"),
        pytest.param(
            {**MINIMAL, "tls": {"caRef": {"name": "ca"}}}, "spec.tls.caRef.kind: Field required", id="a CA of no kind"
        ),
        pytest.param(
            {**MINIMAL, "tls": {"caRef": {"kind": "File", "name": "ca"}}},
            "spec.tls.caRef.kind: Input should be 'ConfigMap' or 'Secret'",
            id="a CA of another kind",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBefore": "soon"}},
            "spec.refresh.renewBefore: must be a duration such as 72h, 10m or 1h30m",
            id="a duration that is none",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBefore": ""}},
            "spec.refresh.renewBefore: must be a duration such as 72h, 10m or 1h30m",
            id="an empty duration",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBefore": "9" * 40 + "h"}},
            "spec.refresh.renewBefore: must be a duration such as 72h, 10m or 1h30m",
            id="a duration longer than time",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBefore": "-1h"}},
            "spec.refresh.renewBefore: must be longer than zero",
            id="a renewal after the expiry",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBeforePercentage": 0}},
            "spec.refresh.renewBeforePercentage: Input should be greater than or equal to 1",
            id="no percent",
        ),
        pytest.param(
            {**MINIMAL, "refresh": {"renewBeforePercentage": 91}},
            "spec.refresh.renewBeforePercentage: Input should be less than or equal to 90",
            id="91 percent",
        ),
        pytest.param(
            {**MINIMAL, "probe": {"interval": "59s"}},
            "spec.probe.interval: must be at least 1m",
            id="an interval below a minute",
        ),
        pytest.param(
            {**MINIMAL, "url": "https://ex\u2100mple.com"},
            "spec.url: must be printable ASCII",
            id="a host of other letters",
        ),
        pytest.param({**MINIMAL, "url": "https://a.example/a b"}, "spec.url: must be printable ASCII", id="a space"),
        pytest.param({**MINIMAL, "url": "https://a.example\n"}, "spec.url: must be printable ASCII", id="a newline"),
        pytest.param({**MINIMAL, "url": "https://[::1"}, "spec.url: must be an absolute URL", id="half an address"),
        pytest.param({**MINIMAL, "url": "https://a:99999"}, "spec.url: must be an absolute URL", id="no such port"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_should_be(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^spec") as caught:
        resource.parse_spec(fields)
    assert str(caught.value).startswith(message)
    assert "Value error" not in str(caught.value)


def test_all_wrong_fields_are_named_at_once_and_no_value_is_repeated() -> None:
    with pytest.raises(ValueError, match="; ") as caught:
        resource.parse_spec({"url": 5, "scope": ["pasted-secret"], "probe": {"mode": "pasted-secret"}})
    assert len(str(caught.value).split("; ")) == 4
    assert "pasted-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
