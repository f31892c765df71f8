"""The SquidexClient as Python: pydantic models of `spec`, held against crds/ by tests/unit/api/test_crd.py.

The API server validates and fills in defaults before we see an object. The models read it again, because an object can be
older than the CRD that is installed, and give the same defaults.
"""

import datetime as dt
import functools
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import durationpy
import pydantic
import pydantic.alias_generators

DEFAULT_URL = "https://cloud.squidex.io"
DEFAULT_SCOPE = "squidex-api"


def _parse_duration(value: object) -> dt.timedelta:
    if isinstance(value, dt.timedelta):
        return value
    try:
        parsed: dt.timedelta = durationpy.from_str(str(value))
    except Exception as error:
        raise ValueError("must be a duration such as 72h, 10m or 1h30m") from error
    return parsed


def _longer_than_zero(value: dt.timedelta) -> dt.timedelta:
    if value <= dt.timedelta():
        raise ValueError("must be longer than zero")
    return value


def _at_least_a_minute(value: dt.timedelta) -> dt.timedelta:
    if value < dt.timedelta(minutes=1):
        raise ValueError("must be at least 1m")
    return value


Duration = Annotated[dt.timedelta, pydantic.BeforeValidator(_parse_duration)]
"""A Go-style duration (`72h`, `10m`), read as a timedelta."""


class _Model(pydantic.BaseModel):
    """Unknown fields are ignored: an older operator may run with a newer CRD."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="ignore", alias_generator=pydantic.alias_generators.to_camel, populate_by_name=True
    )


class CredentialsSecretRef(_Model):
    """The Secret that holds the client's id and secret, in the SquidexClient's namespace."""

    name: str
    client_id_key: str = "clientId"
    client_secret_key: str = "clientSecret"


class CARef(_Model):
    """Where the CA certificates (PEM) are that sign the server's certificate."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    key: str = "ca.crt"


class TLS(_Model):
    """How the server's certificate is checked. There is no way to skip the check."""

    ca_ref: CARef


class Refresh(_Model):
    """When a token is renewed. Without either: at 2/3 of its lifetime."""

    renew_before: Annotated[Duration, pydantic.AfterValidator(_longer_than_zero)] | None = None
    renew_before_percentage: Annotated[int, pydantic.Field(ge=1, le=90)] | None = None


class Probe(_Model):
    """How the server is asked whether it still accepts the token."""

    mode: Literal["Auto", "App", "Languages", "Off"] = "Auto"
    interval: Annotated[Duration, pydantic.AfterValidator(_at_least_a_minute)] = dt.timedelta(hours=1)


class Target(_Model):
    """The Secret that the token is written to, in the SquidexClient's namespace."""

    name: str | None = None
    type: str = "Opaque"


class Spec(_Model):
    """`spec` of a SquidexClient."""

    url: str = DEFAULT_URL
    credentials_secret_ref: CredentialsSecretRef
    scope: str = DEFAULT_SCOPE
    tls: TLS | None = None
    refresh: Refresh = Refresh()
    probe: Probe = Probe()
    target: Target = Target()

    @pydantic.field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        # Go, Python and httpx do not agree on what else is a URL (a host that IDNA refuses, one with U+2100 in it): what
        # one of them cannot read must end in a condition, not in an exception somewhere later.
        if not all("!" <= letter <= "~" for letter in value):
            raise ValueError("must be printable ASCII: write other letters of a host as xn--, of a path as %XX")
        try:
            _ = urllib.parse.urlsplit(value).port
        except ValueError:
            raise ValueError("must be an absolute URL such as https://cloud.squidex.io") from None
        return value

    @property
    def base_url(self) -> str:
        """The URL without trailing slashes: Squidex answers 404 to a double slash."""
        return self.url.rstrip("/")

    @property
    def host(self) -> str:
        """`scheme://host:port` of the URL: what rate limits, backoff and key checks are shared by."""
        return _host(self.url)


@functools.lru_cache(maxsize=4096)
def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc.lower()}"


def parse_spec(raw: Mapping[str, Any]) -> Spec:
    """Read `spec` of a SquidexClient as the API server returns it.

    Raises:
        ValueError: with one line per wrong field, fit for a condition's message.
    """
    try:
        return Spec.model_validate(raw)
    except pydantic.ValidationError as error:
        # Not str(error): pydantic repeats the input, and a user may have pasted a secret into the wrong field.
        raise ValueError("; ".join(_line(found) for found in error.errors())) from None


def _line(found: Mapping[str, Any]) -> str:
    place = ".".join(["spec", *(str(part) for part in found["loc"])])
    # Our own words without pydantic's "Value error, " in front.
    return f"{place}: {found['ctx']['error'] if found['type'] == 'value_error' else found['msg']}"
