"""The operator's settings: flags of the command line, each with an environment variable of the same name."""

import argparse
import datetime as dt
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic

import squidex_operator
from squidex_operator.api import resource

_PREFIX = "SQUIDEX_OPERATOR_"

Positive = Annotated[int, pydantic.Field(ge=1)]
Seconds = Annotated[resource.Duration, pydantic.Field(ge=dt.timedelta(seconds=1), le=dt.timedelta(days=7))]

_LISTEN = re.compile(r"([\w.-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Settings(pydantic.BaseModel):
    """Every flag is a field: its description is the flag's help, its default the flag's default."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    namespaces: list[str] = pydantic.Field(
        [], description="namespaces to serve, separated by commas; all of them where none is named"
    )
    kubeconfig: str = pydantic.Field(
        "", description="kubeconfig file; by default $KUBECONFIG, or the pod's ServiceAccount"
    )
    context: str = pydantic.Field("", description="context of the kubeconfig; by default its current one")
    health_listen: str = pydantic.Field(
        ":8080", description="address for /livez, /readyz and /metrics; port 0 picks a free one"
    )
    log_level: str = pydantic.Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )
    allowed_hosts: list[str] = pydantic.Field(
        [],
        description="hosts that credentials may be sent to, separated by commas; *.example.com matches the names below it",
    )
    keys_interval: Seconds = pydantic.Field(
        dt.timedelta(minutes=5), description="how often each server is asked for its signing keys"
    )
    relist_interval: Seconds = pydantic.Field(
        dt.timedelta(minutes=10), description="how often everything is listed, to find what a watch missed"
    )
    watch_grace: Seconds = pydantic.Field(
        dt.timedelta(minutes=1), description="how long the watch may take to report what a list showed"
    )
    watch_inactivity: Seconds = pydantic.Field(
        dt.timedelta(seconds=70),
        description="a watch that brings nothing for so long is opened anew; the API server sends a sign each minute",
    )
    workers: Positive = pydantic.Field(64, description="SquidexClients in work at once")
    host_rate: Annotated[float, pydantic.Field(gt=0)] = pydantic.Field(
        20.0, description="token requests per second and server"
    )
    host_burst: Positive = pydantic.Field(30, description="token requests at once and server, before the rate counts")
    host_concurrency: Positive = pydantic.Field(16, description="requests at once and server")
    client_fetch_interval: Seconds = pydantic.Field(
        dt.timedelta(minutes=1), description="one token request per interval and SquidexClient, after a burst"
    )
    client_fetch_burst: Positive = pydantic.Field(
        10, description="token requests per SquidexClient before the interval counts"
    )

    @pydantic.field_validator("namespaces")
    @classmethod
    def _check_namespaces(cls, value: list[str]) -> list[str]:
        for name in value:
            # Kopf would take * and ! for patterns, and a comma for a part of the name.
            if not _NAMESPACE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a namespace")
        return list(dict.fromkeys(value))

    @pydantic.field_validator("health_listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        found = _LISTEN.fullmatch(value)
        if found is None or int(found[2]) > 65535:
            raise ValueError("must be HOST:PORT, :PORT or [IPV6]:PORT, such as :8080")
        return value


class SettingsError(Exception):
    """A flag or variable cannot be used; the text says which, and what it takes."""


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read flags, then variables, then defaults.

    Raises:
        SettingsError: for a value that cannot be used.
        SystemExit: for --help, --version and unknown flags.
    """
    parser = argparse.ArgumentParser(
        prog="squidex-operator",
        description="Keeps Squidex access tokens in Kubernetes Secrets.",
        epilog=f"Each flag can be given as a variable: --host-rate as {_PREFIX}HOST_RATE, "
        f"--namespace as {_PREFIX}NAMESPACES.",
    )
    parser.add_argument("--version", action="version", version=f"squidex-operator {squidex_operator.__version__}")
    parser.add_argument(
        "--namespace", action="append", default=[], help="a namespace to serve; may be given more than once"
    )
    for name, field in Settings.model_fields.items():
        text = f"{field.description} (default: {_show(field.default)})"
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=None, help=text.replace("%", "%%"))
    given = vars(parser.parse_args(argv))
    namespaces = given.pop("namespace")
    values: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        value = given[name] if given[name] is not None else environ.get(_PREFIX + name.upper())
        if value is None:
            continue
        is_list = isinstance(field.default, list)
        values[name] = [part.strip() for part in value.split(",") if part.strip()] if is_list else value
    if namespaces:
        values["namespaces"] = [*namespaces, *values.get("namespaces", [])]
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        lines = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from None


def _show(value: object) -> str:
    if isinstance(value, dt.timedelta):
        minutes, seconds = divmod(value.total_seconds(), 60)
        return f"{value.total_seconds():g}s" if seconds else f"{minutes:g}m"
    return ",".join(value) if isinstance(value, list) else str(value)
