"""Command line: `python -m sandbox.squidex --listen 127.0.0.1:0 --clients clients.json --key signing.pem`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from sandbox.squidex import keys
from sandbox.squidex.server import StandIn
from sandbox.squidex.world import LIFETIME


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        standin = _standin(options)
    except (OSError, ValueError) as error:
        print(f"squidex: {error}", file=sys.stderr)
        return 2
    return asyncio.run(_serve(standin))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.squidex", description="A stand-in for Squidex.")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="port 0 picks a free one")
    parser.add_argument(
        "--clients", required=True, type=Path, metavar="FILE", help="JSON object: client id to secret, null if public"
    )
    parser.add_argument(
        "--key", required=True, type=Path, metavar="FILE", help="RSA signing key (PEM); made when there is no such file"
    )
    parser.add_argument("--issuer", metavar="URL", help="the issuer of tokens; the server's own URL by default")
    parser.add_argument(
        "--lifetime", type=int, default=LIFETIME, metavar="SECONDS", help="of access tokens; 30 days by default"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM); makes it https")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (PEM)")
    return parser


def _standin(options: argparse.Namespace) -> StandIn:
    host, _, port = options.listen.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"--listen needs HOST:PORT, not {options.listen!r}")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    if options.lifetime < 1:
        raise ValueError("--lifetime must be at least 1")
    tls = None
    if options.tls_cert is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    return StandIn(
        _clients(options.clients),
        key=_key(options.key),
        issuer=options.issuer,
        lifetime=options.lifetime,
        host=host.strip("[]") or "127.0.0.1",
        port=int(port),
        tls=tls,
    )


def _clients(path: Path) -> dict[str, str | None]:
    clients = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(clients, dict) or not all(
        secret is None or isinstance(secret, str) for secret in clients.values()
    ):
        raise ValueError(f"{path} must hold a JSON object of client ids and secrets")
    return clients


def _key(path: Path) -> keys.SigningKey:
    if not path.exists():
        key = keys.generate()
        pem = key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.touch(mode=0o600)
        path.write_bytes(pem)
        return key
    return keys.load(path)


async def _serve(standin: StandIn) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        await standin.start()
    except OSError as error:
        print(f"squidex: {error}", file=sys.stderr)
        return 1
    print(f"listening on {standin.url}", flush=True)
    await ended.wait()
    await standin.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
