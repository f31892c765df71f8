"""The way to Squidex: bounded in every direction, and every way of failing is foreseen."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import gzip
import logging
import socket
import ssl
import struct
import tracemalloc
import warnings
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import pytest

from sandbox import squidex
from sandbox.controlplane import certificates
from squidex_operator import proxies
from squidex_operator.api import reasons
from squidex_operator.squidex import answers, errors, http
from tests.faults import threaded
from tests.unit.squidex import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Reason = reasons.Reason

TOKEN = "eyJhbGciOiJSUzI1NiJ9.the-token-itself.sig"


def run(work: Callable[[http.Http], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        sender = http.Http(**{"connections_per_host": 4, "timeout": 5, **options})
        try:
            return await work(sender)
        finally:
            await sender.close()

    return asyncio.run(main())


def failure(work: Callable[[http.Http], Awaitable[object]], **options: Any) -> errors.SquidexError:
    with pytest.raises(errors.SquidexError) as caught:
        run(work, **options)
    return caught.value


def against(answer: bytes | wire.Handler, **options: Any) -> errors.SquidexError:
    """What a request to such a server fails with."""

    async def work(sender: http.Http) -> None:
        async with wire.serving(answer) as server:
            await sender.send("GET", server.url, headers={"Authorization": f"Bearer {TOKEN}"})

    return failure(work, **options)


def test_an_answer_is_read_whole_whatever_its_status() -> None:
    async def work(sender: http.Http) -> answers.Answer:
        async with wire.serving(wire.response("418 Teapot", b"short", "X-Some: Thing")) as server:
            return await sender.send("GET", server.url)

    found = run(work)
    assert (found.status, found.body, found.headers["x-some"]) == (418, b"short", "Thing")
    assert b"short" not in repr(found).encode()


@pytest.mark.parametrize(
    ("status", "location"), [("307 x", "/elsewhere"), ("302 x", "//169.254.169.254/"), ("301 x", "https://x.test/")]
)
def test_redirects_are_not_followed(status: str, location: str) -> None:
    async def work(sender: http.Http) -> tuple[answers.Answer, wire.Wire]:
        async with wire.serving(wire.response(status, b"", f"Location: {location}")) as server:
            return await sender.send("POST", server.url, form={"client_secret": "s"}), server

    found, server = run(work)
    assert found.status == int(status[:3])
    assert len(server.heads) == 1


def test_cookies_are_not_kept() -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("200 OK", b"", "Set-Cookie: replica=1; Path=/")) as server:
            for _ in range(2):
                await sender.send("GET", server.url)
            return server

    server = run(work)
    assert len(server.heads) == 2
    assert server.connections == 1
    assert b"cookie" not in server.heads[1].lower()


def test_a_base_path_stays_and_is_not_doubled() -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("200 OK")) as server:
            await sender.send("GET", f"{server.url}/cms/identity-server")
            return server

    assert run(work).heads[0].startswith(b"GET /cms/identity-server HTTP/1.1\r\n")


async def _hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def _drip(begin: bytes, again: bytes) -> wire.Handler:
    """Says something all the time, and never comes to an end."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0.01)

    return serve


async def _promise(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nxx")
    await asyncio.Event().wait()


async def _reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _truncate(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()


async def _endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(_hang, id="a server that says nothing"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "), id="a body that drips"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), id="headers that drip"),
        pytest.param(_drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), id="hints without end"),
        pytest.param(_promise, id="a chunk that never comes"),
    ],
)
def test_the_time_out_is_for_the_whole_exchange(server: wire.Handler) -> None:
    error = against(server, timeout=0.3)
    assert error.problem.reason is Reason.TIMEOUT
    assert "did not answer within 0.3 s" in error.problem.message


def test_a_body_without_end_is_cut_off() -> None:
    error = against(_endless)
    assert error.problem.reason is Reason.NOT_SQUIDEX
    assert "more than 256 KiB" in error.problem.message


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP"])
def test_a_body_that_a_proxy_packed_is_unpacked(coding: str) -> None:
    async def work(sender: http.Http) -> answers.Answer:
        packed = (gzip if coding.lower() == "gzip" else zlib).compress(b'{"keys": []}')
        async with wire.serving(wire.response("200 OK", packed, f"Content-Encoding: {coding}")) as server:
            return await sender.send("GET", server.url)

    assert run(work).body == b'{"keys": []}'


def test_a_packed_body_that_would_fill_the_memory_is_cut_off() -> None:
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    tracemalloc.start()
    try:
        error = against(wire.response("200 OK", bomb, "Content-Encoding: gzip"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.problem.reason is Reason.NOT_SQUIDEX
    assert most < 8 * 1024 * 1024


SPARE = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + wire.response("200 OK", b"{}"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    "a header in another charset": b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    "a coding that nobody knows": wire.response("200 OK", b"{}", "Content-Encoding: none"),
}


@pytest.mark.parametrize("answer", SPARE.values(), ids=SPARE)
def test_what_is_odd_and_can_be_read_is_read(answer: bytes) -> None:
    async def work(sender: http.Http) -> answers.Answer:
        async with wire.serving(answer) as server:
            return await sender.send("GET", server.url)

    assert run(work).body == b"{}"


def test_a_body_of_just_the_limit_is_read() -> None:
    async def work(sender: http.Http) -> answers.Answer:
        async with wire.serving(wire.response("200 OK", b"x" * http.MAX_BODY)) as server:
            return await sender.send("GET", server.url)

    assert len(run(work).body) == http.MAX_BODY


BROKEN: dict[str, bytes | wire.Handler] = {
    "a reset": _reset,
    "a close without an answer": _close,
    "an answer that is cut off": _truncate,
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a status that is a word": b"HTTP/1.1 fine\r\n\r\n",
    "a header as long as a book": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a length that is a word": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a length that is negative": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "gzip that is none": wire.response("200 OK", b"no gzip at all", "Content-Encoding: gzip"),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "more headers than anybody reads": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a second answer that nobody asked for": wire.response("200 OK", b"{}") + b"garbage",
    "a header with a NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("server", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_an_error_of_ours_and_tells_nothing(
    server: bytes | wire.Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = against(server)
    assert error.problem.reason is Reason.UNREACHABLE
    assert "http://127.0.0.1:" in error.problem.message
    assert TOKEN not in " ".join([str(error), repr(error), repr(error.__cause__), caplog.text])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_is_closed_when_it_is_used_again_costs_one_try_at_most(method: str) -> None:
    served: dict[object, int] = {}

    async def once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served[writer] = served.get(writer, 0) + 1
        if served[writer] > 1:
            writer.transport.abort()
            return
        writer.write(wire.response("200 OK", b"{}"))
        await writer.drain()

    async def work(sender: http.Http) -> list[str]:
        form = {"client_id": "a"} if method == "POST" else None
        outcomes = []
        async with wire.serving(once) as server:
            for _ in range(5):
                try:
                    outcomes.append(str((await sender.send(method, server.url, form=form)).status))
                except errors.UnavailableError as error:
                    outcomes.append(error.problem.reason)
        return outcomes

    # What may be sent twice is sent again by itself; a token request is not: each one makes a token.
    expected = ["200"] * 5 if method == "GET" else ["200", Reason.UNREACHABLE, "200", Reason.UNREACHABLE, "200"]
    assert run(work) == expected


def test_a_refused_connection_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = failure(lambda sender: sender.send("GET", url))
    assert error.problem.reason is Reason.UNREACHABLE
    assert "connection refused" in error.problem.message


def test_a_reset_says_so() -> None:
    assert "connection reset" in against(_reset).problem.message


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names as a resolver of the test's own knows them: no test asks the network."""
    known: dict[str, list[str]] = {}

    async def resolve(_self: object, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        if host not in known:
            raise OSError(socket.EAI_NONAME, "Name or service not known")
        return [
            {"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for address in known[host]
        ]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    return known


def test_a_name_that_nobody_knows_says_so(names: dict[str, list[str]]) -> None:
    error = failure(lambda sender: sender.send("GET", "https://nowhere.test/"))
    assert error.problem.reason is Reason.UNREACHABLE
    assert "the name cannot be resolved" in error.problem.message


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["127.0.0.1", "169.254.0.1"], ["fe80::1"]])
def test_a_name_that_leads_to_a_link_local_address_is_refused(
    names: dict[str, list[str]], addresses: list[str]
) -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("200 OK")) as server:
            names["metadata.svc"] = addresses
            with pytest.raises(errors.UnavailableError):
                await sender.send("GET", f"http://metadata.svc:{server.url.rpartition(':')[2]}/")
            return server

    assert run(work).heads == []


def test_a_name_that_leads_elsewhere_is_asked(names: dict[str, list[str]]) -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("200 OK")) as server:
            names["squidex.shop.svc"] = ["127.0.0.1"]
            await sender.send("GET", f"http://squidex.shop.svc:{server.url.rpartition(':')[2]}/")
            return server

    assert len(run(work).heads) == 1


REFUSED_URLS = [
    "http://squidex.test/",
    "https://169.254.169.254/",
    "https://[fe80::1]/",
    "https://user:password@squidex.test/",
    "https://squidex.test:99999/",
    "https://[abc/",
    "https://squidex\n.test/",
    "https://⒈com/",
    "ftp://squidex.test/",
    "file:///etc/passwd",
    "squidex.test",
    "",
    "https://",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str, names: dict[str, list[str]]) -> None:
    error = failure(lambda sender: sender.send("GET", url))
    assert error.problem.reason is Reason.URL_NOT_ALLOWED
    assert "No request was sent" in error.problem.message
    assert "password" not in error.problem.message


@pytest.mark.parametrize("host", ["a..b", "-.test", "xn--", "a" * 70 + ".test", "x y", "%zz", "127.1", "2852039166"])
def test_a_host_that_no_resolver_takes_is_an_error_of_ours(host: str, names: dict[str, list[str]]) -> None:
    with pytest.raises(errors.SquidexError):
        run(lambda sender: sender.send("GET", f"https://{host}/"))


def test_only_allowed_hosts_are_asked() -> None:
    error = failure(lambda sender: sender.send("GET", "https://squidex.test/"), allowed_hosts=["other.test"])
    assert "--allowed-hosts" in error.problem.message


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "tökén", "a\0b"])
def test_a_header_that_would_end_early_is_never_sent(value: str) -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("200 OK")) as server:
            with pytest.raises(errors.SquidexError) as caught:
                await sender.send("GET", server.url, headers={"Authorization": value})
            assert value not in str(caught.value)
            return server

    assert run(work).heads == []


# TLS


@pytest.fixture(scope="module")
def authority() -> certificates.Authority:
    return certificates.Authority("test-authority")


@pytest.fixture(scope="module")
def tls(authority: certificates.Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(authority, tmp_path_factory.mktemp("tls"), "127.0.0.1")


def server_context(authority: certificates.Authority, folder: Any, name: str) -> ssl.SSLContext:
    authority.serving([name]).write(folder, "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def over_tls(tls: ssl.SSLContext, ca: str) -> answers.Answer:
    async def work(sender: http.Http) -> answers.Answer:
        async with wire.serving(wire.response("200 OK", b"{}"), tls=tls) as server:
            return await sender.send("GET", server.url, ca=ca)

    return run(work)


def test_the_ca_of_the_spec_is_trusted(authority: certificates.Authority, tls: ssl.SSLContext) -> None:
    assert over_tls(tls, authority.cert.decode()).status == 200


def test_a_bundle_may_have_comments_in_any_language(authority: certificates.Authority, tls: ssl.SSLContext) -> None:
    other = certificates.Authority("other").cert.decode()
    assert over_tls(tls, f"# Főtanúsítvány\n{other}\n# Autorité\n{authority.cert.decode()}\n").status == 200


@pytest.mark.parametrize("which", ["the system's", "another one"])
def test_a_certificate_of_another_ca_is_not_trusted(which: str, tls: ssl.SSLContext) -> None:
    ca = "" if which == "the system's" else certificates.Authority("other").cert.decode()
    with pytest.raises(errors.UnclearError) as caught:
        over_tls(tls, ca)
    assert caught.value.problem.reason is Reason.TLS_ERROR
    assert "is not trusted" in caught.value.problem.message
    assert "spec.tls.caRef" in caught.value.problem.message
    assert "no reason given" not in caught.value.problem.message


def test_a_certificate_for_another_name_is_not_trusted(authority: certificates.Authority, tmp_path: Any) -> None:
    with pytest.raises(errors.UnclearError) as caught:
        over_tls(server_context(authority, tmp_path, "squidex.test"), authority.cert.decode())
    assert caught.value.problem.reason is Reason.TLS_ERROR
    assert "127.0.0.1" in caught.value.problem.message
    assert "Name the server in spec.url by" in caught.value.problem.message


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [
        pytest.param(-20, -10, "has expired). Renew it on the server.", id="one that has expired"),
        pytest.param(10, 20, "is not yet valid). Is the clock", id="one of the future"),
    ],
)
def test_a_certificate_at_another_time_is_not_trusted(
    begin: float,
    end: float,
    words: str,
    authority: certificates.Authority,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "BACKDATED", dt.timedelta(minutes=-begin))
    monkeypatch.setattr(certificates, "LIFETIME", dt.timedelta(minutes=end))
    with pytest.raises(errors.UnclearError) as caught:
        over_tls(server_context(authority, tmp_path, "127.0.0.1"), authority.cert.decode())
    assert caught.value.problem.reason is Reason.TLS_ERROR
    assert words in caught.value.problem.message


def test_a_handshake_that_never_ends_is_a_time_out(authority: certificates.Authority) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts, and nobody says anything
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        error = failure(lambda sender: sender.send("GET", url, ca=authority.cert.decode()), timeout=0.3)
    assert error.problem.reason is Reason.TIMEOUT


def test_a_server_that_speaks_no_tls_says_so(authority: certificates.Authority) -> None:
    async def work(sender: http.Http) -> None:
        async with wire.serving(b"HTTP/1.1 400 Bad\r\n\r\n") as server:
            await sender.send("GET", server.url.replace("http:", "https:"), ca=authority.cert.decode())

    # Plain HTTP waits for a line break that TLS never sends: then the time is over.
    assert failure(work, timeout=1).problem.reason in (Reason.TLS_ERROR, Reason.TIMEOUT)


def test_a_server_that_answers_in_clear_says_what_to_look_at(authority: certificates.Authority) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def work(sender: http.Http) -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await sender.send("GET", f"https://127.0.0.1:{port}", ca=authority.cert.decode())
        finally:
            server.close()
            await threaded.drop_connections(port)

    error = failure(work)
    assert error.problem.reason is Reason.TLS_ERROR
    assert "Is it https that is served on that port" in error.problem.message


@pytest.mark.parametrize(
    "ca",
    [
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----",
    ],
    ids=["a text", "base64 of nothing", "no base64", "a beginning"],
)
def test_a_ca_that_is_none_is_refused(ca: str) -> None:
    error = failure(lambda sender: sender.send("GET", "https://127.0.0.1:1/", ca=ca))
    assert error.problem.reason is Reason.CA_UNAVAILABLE
    assert "spec.tls.caRef" in error.problem.message


# Connections


def test_connections_to_a_server_are_bounded_and_used_again() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)
        writer.write(wire.response("200 OK", b"{}"))
        await writer.drain()

    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(answer) as server:
            await asyncio.gather(*(sender.send("GET", server.url) for _ in range(40)))
            return server

    server = run(work, connections_per_host=3)
    assert len(server.heads) == 40
    assert server.most_open <= 3
    assert server.connections <= 6


def test_more_cas_than_are_kept_cost_no_connection_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_ROUTES", 2)
    cas = [certificates.Authority(f"number-{n}").cert.decode() for n in range(4)]

    async def work(sender: http.Http) -> wire.Wire:
        gate = asyncio.Event()

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            writer.write(wire.response("200 OK", b"{}"))
            await writer.drain()

        async with wire.serving(answer) as server:
            first = asyncio.create_task(sender.send("GET", server.url, ca=cas[0]))
            others = [asyncio.create_task(sender.send("GET", server.url, ca=ca)) for ca in cas[1:]]
            await server.wait_for(4)
            gate.set()
            # The one whose client was put out meanwhile is answered like the others.
            assert [found.status for found in await asyncio.gather(first, *others)] == [200] * 4
            assert len(sender._routes) == 2
            assert sender._put_out == []
            assert (await sender.send("GET", server.url, ca=cas[0])).status == 200
            return server

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(work)
        gc.collect()


def test_a_cancelled_request_gives_its_connection_back() -> None:
    async def work(sender: http.Http) -> None:
        async with wire.serving(_hang) as server:
            for _ in range(5):  # more than there are connections
                task = asyncio.create_task(sender.send("GET", server.url))
                await server.wait_for(1)
                server.heads.clear()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(work, connections_per_host=2)


def test_after_the_end_a_request_is_an_error_of_ours() -> None:
    async def work(sender: http.Http) -> None:
        async with squidex.StandIn({"demo:ci": "s"}) as server:
            await sender.send("GET", f"{server.url}/healthz")
            await next(iter(sender._routes.values())).transport.aclose()
            with pytest.raises(errors.SquidexError):
                await sender.send("GET", f"{server.url}/healthz")

    run(work)


@pytest.mark.parametrize("url", ["user:the-password@proxy", "ftp://proxy", "proxy\n"])
def test_a_proxy_that_is_none_is_an_error_of_ours_that_does_not_show_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "proxy_for", lambda _: url)
    error = failure(lambda sender: sender.send("GET", "https://squidex.test/"))
    assert error.problem.reason is Reason.UNREACHABLE
    assert "HTTPS_PROXY" in error.problem.message
    assert "the-password" not in error.problem.message


def test_a_failure_without_a_cause_in_the_chain_has_a_name() -> None:
    error = http._translate("https://squidex.test", ValueError(TOKEN), 1)
    assert "(ValueError)" in str(error)
    assert TOKEN not in str(error)
