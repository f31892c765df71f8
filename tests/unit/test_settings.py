"""Flags, then variables, then defaults; and a clear word for what cannot be used."""

from __future__ import annotations

import datetime as dt

import pytest

import squidex_operator
from squidex_operator import settings

PREFIX = "SQUIDEX_OPERATOR_"


def test_without_anything_the_defaults_count() -> None:
    found = settings.parse([], {})
    assert found == settings.Settings()
    assert (found.namespaces, found.workers, found.health_listen) == ([], 64, ":8080")


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    environ = {f"{PREFIX}WORKERS": "7", f"{PREFIX}HOST_RATE": "2.5"}
    found = settings.parse(["--workers=9"], environ)
    assert (found.workers, found.host_rate, found.host_burst) == (9, 2.5, 30)


@pytest.mark.parametrize("name", settings.Settings.model_fields)
def test_every_field_is_a_flag_and_a_variable_and_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "list": "a,b",
        "timedelta": "90s",
        "int": "3",
        "float": "0.5",
        "str": "DEBUG" if name == "log_level" else ":1",
    }
    field = settings.Settings.model_fields[name]
    value = values[type(field.default).__name__]
    by_flag = settings.parse([f"--{name.replace('_', '-')}={value}"], {})
    by_variable = settings.parse([], {PREFIX + name.upper(): value})
    assert by_flag == by_variable != settings.Settings()
    assert field.description
    with pytest.raises(SystemExit) as caught:
        settings.parse(["--help"], {})
    assert caught.value.code == 0
    assert f"--{name.replace('_', '-')}" in capsys.readouterr().out


def test_durations_are_written_as_go_writes_them() -> None:
    assert settings.parse(["--keys-interval=1h30m"], {}).keys_interval == dt.timedelta(minutes=90)


@pytest.mark.parametrize(
    ("argv", "variables", "expected"),
    [
        (["--namespace=a", "--namespace", "b"], {}, ["a", "b"]),
        (["--namespaces=a, b ,,"], {}, ["a", "b"]),
        ([], {"NAMESPACES": "a,b"}, ["a", "b"]),
        (["--namespace=a", "--namespaces=b,a"], {}, ["a", "b"]),
        ([], {"NAMESPACES": ""}, []),
        (["--namespace=c"], {"NAMESPACES": "a"}, ["c", "a"]),
    ],
    ids=["one by one", "in one", "as a variable", "both, and each once", "none", "flag and variable"],
)
def test_namespaces(argv: list[str], variables: dict[str, str], expected: list[str]) -> None:
    assert settings.parse(argv, {PREFIX + key: value for key, value in variables.items()}).namespaces == expected


WRONG = {
    "no number": ("--workers=many", "--workers"),
    "no worker": ("--workers=0", "--workers"),
    "a negative rate": ("--host-rate=-1", "--host-rate"),
    "no rate": ("--host-rate=nan", "--host-rate"),
    "no duration": ("--keys-interval=soon", "--keys-interval"),
    "a duration of nothing": ("--keys-interval=0s", "--keys-interval"),
    "a duration that is negative": ("--relist-interval=-5m", "--relist-interval"),
    "a duration of a life": ("--relist-interval=999999h", "--relist-interval"),
    "a number without a unit": ("--relist-interval=10", "--relist-interval"),
    "no such level": ("--log-level=LOUD", "--log-level"),
    "a pattern, which Kopf would take": ("--namespace=team-*", "--namespaces"),
    "two in one flag": ("--namespace=a,b", "--namespaces"),
    "capital letters": ("--namespace=Shop", "--namespaces"),
    "no port": ("--health-listen=localhost", "--health-listen"),
    "a port that is a word": ("--health-listen=:http", "--health-listen"),
    "a port past the last one": ("--health-listen=:65536", "--health-listen"),
    "an IPv6 address without brackets": ("--health-listen=::1:8080", "--health-listen"),
}


@pytest.mark.parametrize(("flag", "named"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_named(flag: str, named: str) -> None:
    with pytest.raises(settings.SettingsError, match=named):
        settings.parse([flag], {})


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(settings.SettingsError) as caught:
        settings.parse(["--workers=0", "--keys-interval=x"], {})
    assert "--workers" in str(caught.value)
    assert "--keys-interval" in str(caught.value)


def test_a_wrong_variable_is_named_as_well() -> None:
    with pytest.raises(settings.SettingsError, match="--workers"):
        settings.parse([], {f"{PREFIX}WORKERS": "x"})


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(["--no-such-flag"], {})
    assert caught.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings.parse(["--version"], {})
    assert capsys.readouterr().out == f"squidex-operator {squidex_operator.__version__}\n"


@pytest.mark.parametrize("listen", [":8080", "0.0.0.0:8080", "localhost:0", "[::1]:8080", "health.local:80"])
def test_addresses(listen: str) -> None:
    assert settings.parse([f"--health-listen={listen}"], {}).health_listen == listen
