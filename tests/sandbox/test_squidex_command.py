"""The stand-in as a program: its options, its first line, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.squidex import StandIn, keys
from tests.sandbox.squidex_client import ask, ask_token, claims_of, header_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "clients.json").write_text(json.dumps({"demo:ci": "s3cr3t", "squidex-frontend": None}))
    return ["--listen=127.0.0.1:0", f"--clients={tmp_path}/clients.json", f"--key={tmp_path}/key.pem"]


class Program:
    """The stand-in as a child process."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "sandbox.squidex", *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on http"), self.process.communicate(timeout=5)
        return line.removeprefix("listening on ").strip()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=5)
        return self.process.returncode, errors


@pytest.fixture
def program(options: list[str]) -> Iterator[Program]:
    started = Program(*options)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate(timeout=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_end(program: Program, number: int) -> None:
    url = program.url()
    assert ask_token(url).status == 200
    assert program.end(number) == (0, "")


def test_ends_at_once_though_requests_hang(program: Program) -> None:
    url = program.url()
    assert ask(url, "PATCH", "/_sandbox/state", body='{"faults": [{"kind": "hang"}]}').status == 200
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as hanging:
        hanging.sendall(b"GET /api/ping/ HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 5
        while not ask(url, "GET", "/_sandbox/state").json()["counts"]["inFlight"]:
            assert time.monotonic() < deadline
        began = time.monotonic()
        assert program.end() == (0, "")
        assert time.monotonic() - began < 2


def test_faults_make_no_noise(program: Program) -> None:
    url = program.url()
    for kind in ("reset", "truncate", "huge"):
        assert ask(url, "PATCH", "/_sandbox/state", body=json.dumps({"faults": [{"kind": kind}]})).status == 200
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as leaving:
            leaving.sendall(b"GET /api/apps/demo HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                leaving.recv(10)
    assert program.end() == (0, "")


def test_keeps_its_key_over_a_restart(options: list[str], tmp_path: Path) -> None:
    kids = set()
    for _ in range(2):
        program = Program(*options)
        kids.add(header_of(ask_token(program.url()).json()["access_token"])["kid"])
        assert program.end()[0] == 0
    assert kids == {keys.load(tmp_path / "key.pem").kid}
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0


def test_takes_issuer_and_lifetime(options: list[str]) -> None:
    program = Program(*options, "--issuer=https://cms.example.com/", "--lifetime=120")
    claims = claims_of(ask_token(program.url()).json()["access_token"])
    assert program.end()[0] == 0
    assert claims["iss"] == "https://cms.example.com/"
    assert claims["exp"] - claims["iat"] == 120


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "squidex")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_serves_https(options: list[str], tmp_path: Path) -> None:
    certificate(tmp_path)
    program = Program(*options, f"--tls-cert={tmp_path}/tls.crt", f"--tls-key={tmp_path}/tls.key")
    url = program.url()
    assert url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    path = "/identity-server/.well-known/openid-configuration"
    document = ask(url.replace("127.0.0.1", "localhost"), "GET", path, tls=trusting).json()
    assert document["issuer"] == f"{url}/"
    assert document["jwks_uri"].startswith("https://localhost:")
    assert program.end() == (0, "")


MISTAKES = {
    "no such file of clients": (["--clients=/nonexistent"], "nonexistent"),
    "a lifetime of nothing": (["--lifetime=0"], "at least 1"),
    "half of a certificate": (["--tls-cert=x"], "go together"),
    "no port": (["--listen=localhost"], "HOST:PORT"),
}


@pytest.mark.parametrize(("wrong", "message"), MISTAKES.values(), ids=MISTAKES)
def test_says_what_is_wrong_with_its_options(options: list[str], wrong: list[str], message: str) -> None:
    process = Program(*options, *wrong).process
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert message in errors
    assert "Traceback" not in errors


def test_refuses_a_key_that_is_not_rsa(options: list[str], tmp_path: Path) -> None:
    certificate(tmp_path)
    (tmp_path / "tls.key").rename(tmp_path / "key.pem")
    process = Program(*options).process
    assert "holds no RSA key" in process.communicate(timeout=10)[1]


def test_says_that_its_port_is_taken(options: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = Program(*options, f"--listen=127.0.0.1:{taken.getsockname()[1]}").process
        assert "address already in use" in process.communicate(timeout=10)[1]
    assert process.returncode == 1


def test_runs_on_a_callers_loop() -> None:
    async def scenario() -> None:
        async with StandIn({"demo:ci": "s3cr3t"}, lifetime=60) as squidex:
            answer = await asyncio.to_thread(ask_token, squidex.url)
            assert answer.json()["expires_in"] in (59, 60)
            assert squidex.state()["counts"]["token"]["total"] == 1
            assert squidex.patch({"lifetime": 30})["lifetime"] == 30
            assert [row["endpoint"] for row in squidex.log()] == ["token"]

    asyncio.run(scenario())
