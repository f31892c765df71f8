"""What looks like a token never gets through, wherever it comes from."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

import pytest

from squidex_operator.observe import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJkZW1vOmNpIn0.c2lnbmF0dXJl-_x"


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The logging of the tests is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kopf", "httpx", "aiohttp.access", "asyncio")}
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


HIDDEN = {
    "a token": JWT,
    "a token without its signature": JWT.rpartition(".")[0] + ".",
    "the first part of a token": JWT.partition(".")[0],
    "a token in a Secret's data": base64.b64encode(JWT.encode()).decode(),
    "a header": "Authorization: Bearer opaque-token-of-somebody",
    "a header in capital letters": "AUTHORIZATION: BEARER opaque-token-of-somebody==",
    "a form": "grant_type=client_credentials&client_secret=s3cr3t%2F&scope=x",
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("way", ["message", "argument", "exception"])
def test_it_is_hidden(text: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("DEBUG")
    logger = logging.getLogger("test")
    if way == "message":
        logger.info(text)
    elif way == "argument":
        logger.info("text=%s", text)
    else:
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it failed")
    written = capsys.readouterr().err
    assert "[redacted]" in written
    for secret in (JWT[:20], JWT[-15:], base64.b64encode(JWT.encode()).decode()[20:40], "opaque-token", "s3cr3t"):
        assert secret not in written


SHOWN = [
    "published key=shop/shop secret=shop cause=FirstToken token=Token(yGi1vAqOExbmgDqohleWzQ, expires 2026-05-01T12:00:00Z)",
    "failed key=shop/shop reason=InvalidClient failures=3",
    "listed clients=3 namespaces=all",
    "the bearer of bad news",
]


@pytest.mark.parametrize("text", SHOWN)
def test_everything_else_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("test").info(text)
    assert capsys.readouterr().err.rstrip().endswith(text)


def test_a_line_has_a_time_with_its_zone_a_level_and_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("squidex_operator.test").warning("event key=%s", "value")
    time, level, name, *rest = capsys.readouterr().err.split()
    assert (level, name, rest) == ("WARNING", "squidex_operator.test", ["event", "key=value"])
    assert time[10] == "T"
    assert time[-5] in "+-"


def test_the_level_counts_and_the_libraries_stay_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("DEBUG")
    for name in ("kopf.objects", "httpx", "aiohttp.access", "asyncio"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("squidex_operator").debug("detail")
    written = capsys.readouterr().err
    assert "chatter" not in written
    assert "detail" in written
    logs.configure("ERROR")
    logging.getLogger("squidex_operator").warning("minor")
    assert "minor" not in capsys.readouterr().err


def test_to_configure_twice_writes_every_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    logging.getLogger("test").info("once")
    assert capsys.readouterr().err.count("once") == 1
