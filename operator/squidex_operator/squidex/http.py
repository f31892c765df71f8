"""The way to Squidex: httpx over aiohttp's transport, which is cheap at this load (docs/adr/0004).

Bounded in every direction: time, size of the answer, connections per host; redirects and cookies are not followed.
"""

import asyncio
import dataclasses
import functools
import re
import ssl
import urllib.parse
import zlib
from collections.abc import Collection, Mapping

import aiohttp
import httpx
import httpx_aiohttp

import squidex_operator
from squidex_operator import proxies
from squidex_operator.api import reasons
from squidex_operator.policy import urls
from squidex_operator.squidex import answers, errors, resolver

TIMEOUT = 15.0
"""Seconds for a whole exchange, from the name's resolution to the last byte."""

MAX_BODY = 256 * 1024
"""Bytes: a token answer is about 1 kB, an app's description a few."""

_MAX_ROUTES = 64
"""Transports kept, one for each set of CA certificates."""

_HEADERS = {
    "User-Agent": f"squidex-operator/{squidex_operator.__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)


_CERTIFICATE_ADVICE = {
    9: "Is the clock of the server, or of the operator's machine, right?",
    10: "Renew it on the server.",
    62: "Name the server in spec.url by a name that the certificate is for.",
    64: "Name the server in spec.url by an address that the certificate is for.",
}
"""By X509_V_ERR_... (https://docs.openssl.org/3.5/man3/X509_STORE_CTX_get_error/)."""


@dataclasses.dataclass
class _Route:
    """A transport with the requests that are on it: it is closed when it was put out and the last of them is done."""

    transport: httpx.AsyncBaseTransport
    in_use: int = 0


class Http:
    """Sends requests to Squidex servers. One for the process."""

    def __init__(
        self, *, connections_per_host: int, allowed_hosts: Collection[str] = (), timeout: float = TIMEOUT
    ) -> None:
        self._connections_per_host = connections_per_host
        self._allowed_hosts = frozenset(allowed_hosts)
        self._timeout = timeout
        self._routes: dict[tuple[str, str | None], _Route] = {}
        self._put_out: list[_Route] = []

    async def send(
        self,
        method: str,
        url: str,
        *,
        ca: str = "",
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> answers.Answer:
        """Send one request and read its whole answer, whatever its status.

        Args:
            ca: PEM certificates to trust instead of the system's; empty for the system's.

        Raises:
            SquidexError: where there is no answer, or one that is too large.
        """
        parsed, host = _check(url, self._allowed_hosts)
        found = self._route(host, ca)
        found.in_use += 1
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._respond(found, method, parsed, form, headers or {})
                try:
                    return await _read(response, host)
                finally:
                    await response.aclose()
        except (
            httpx.HTTPError,
            httpx.StreamError,
            httpx.InvalidURL,
            aiohttp.ClientError,
            OSError,
            ValueError,
            RuntimeError,
        ) as error:
            raise _translate(host, error, self._timeout) from None
        finally:
            found.in_use -= 1
            await self._close_unused()

    async def close(self) -> None:
        """Close all connections."""
        routes = [*self._routes.values(), *self._put_out]
        self._routes, self._put_out = {}, []
        for found in routes:
            await found.transport.aclose()

    async def _respond(
        self,
        route: _Route,
        method: str,
        url: httpx.URL,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        """Send a request; the answer's body is still to be read.

        Straight to the transport: what httpx's client would add, redirects and cookies, is what no request here may have. A
        load balancer's cookie would pin all SquidexClients to one replica.
        """
        timeouts = {"connect": self._timeout, "read": self._timeout, "pool": self._timeout}
        request = httpx.Request(
            method, url, headers={**_HEADERS, **headers}, data=form, extensions={"timeout": timeouts}
        )
        return await route.transport.handle_async_request(request)

    def _route(self, host: str, ca: str) -> _Route:
        # A cluster's only way out may be a proxy; its own services are excepted by NO_PROXY.
        proxy = proxies.proxy_for(host)
        if (found := self._routes.pop((ca, proxy), None)) is not None:
            self._routes[ca, proxy] = found  # the one used last is put out last
            return found
        context, through = _context(host, ca), _proxy(proxy)
        transport = httpx_aiohttp.AiohttpTransport(verify=context, client=lambda: self._session(context), proxy=through)
        found = self._routes[ca, proxy] = _Route(transport)
        if len(self._routes) > _MAX_ROUTES:
            self._put_out.append(self._routes.pop(next(iter(self._routes))))
        return found

    async def _close_unused(self) -> None:
        for found in [found for found in self._put_out if not found.in_use]:
            self._put_out.remove(found)
            await found.transport.aclose()

    def _session(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=context, limit=0, limit_per_host=self._connections_per_host, resolver=resolver.Resolver()
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


@functools.lru_cache(maxsize=4096)
def _check(url: str, allowed_hosts: frozenset[str]) -> tuple[httpx.URL, str]:
    """A URL that a request may go to, and its `scheme://host:port`.

    Raises:
        RejectedError: where none may.
    """
    try:
        problem = urls.check(url, allowed_hosts)
        parts = urllib.parse.urlsplit(url)
        parsed = httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise errors.RejectedError(
            reasons.Reason.URL_NOT_ALLOWED, "spec.url is not a valid URL. No request was sent. Correct spec.url."
        ) from None
    if problem:
        raise errors.RejectedError(problem.reason, problem.message)
    return parsed, f"{parts.scheme}://{parts.netloc}"


async def _read(response: httpx.Response, host: str) -> answers.Answer:
    names = {name.lower(): value for name, value in response.headers.items()}
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY:
            break
    whole = _decoded(bytes(body), names.get("content-encoding", ""))
    if len(whole) > MAX_BODY:
        raise errors.UnclearError(
            reasons.Reason.NOT_SQUIDEX,
            f"{host} sent more than {MAX_BODY // 1024} KiB: that is no answer of Squidex.",
        )
    return answers.Answer(host, response.status_code, names, whole)


def _decoded(body: bytes, coding: str) -> bytes:
    """A body whose coding some proxy chose, though none was asked for. Never much more than the limit comes out of it."""
    if coding.lower() not in ("gzip", "x-gzip", "deflate") or not body:
        return body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise ValueError("the body is not of the coding that it says") from None


@functools.lru_cache(maxsize=16)
def is_ca(text: str) -> bool:
    """Whether there are certificates in a text, and all of them can be read."""
    try:
        _context("", text)
    except errors.RejectedError:
        return False
    return bool(text)


def _context(host: str, ca: str) -> ssl.SSLContext:
    # The certificates alone: bundles have comments with the CAs' names in any language, and OpenSSL takes only ASCII.
    pem = "\n".join(_CERTIFICATE.findall(ca))
    try:
        if ca and not pem:
            raise ssl.SSLError
        return ssl.create_default_context(cadata=pem or None)
    except ssl.SSLError:
        raise errors.RejectedError(
            reasons.Reason.CA_UNAVAILABLE,
            f"The certificates that spec.tls.caRef names, for {host}, are not valid PEM.",
        ) from None


def _proxy(url: str | None) -> httpx.Proxy | None:
    try:
        return httpx.Proxy(url) if url else None
    except (ValueError, httpx.InvalidURL):
        # Not the URL itself: it may carry a password.
        raise errors.UnavailableError(
            reasons.Reason.UNREACHABLE,
            "The operator's HTTPS_PROXY or HTTP_PROXY is not a URL such as http://proxy.example.com:3128.",
        ) from None


def _translate(host: str, error: Exception, timeout: float) -> errors.SquidexError:
    """What went wrong on the way. The exception's own text is not passed on: nobody knows what a library puts there."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            # aiohttp's own error is one too, but only OpenSSL's says why.
            said = link if getattr(link, "verify_message", None) else link.__cause__
            why, code = getattr(said, "verify_message", "no reason given"), getattr(said, "verify_code", None)
            advice = _CERTIFICATE_ADVICE.get(code or 0, "Put the CA that signed it in spec.tls.caRef.")
            return errors.UnclearError(
                reasons.Reason.TLS_ERROR, f"The certificate of {host} is not trusted ({why}). {advice}"
            )
        if isinstance(link, ssl.SSLError | aiohttp.ClientSSLError):
            return errors.UnclearError(
                reasons.Reason.TLS_ERROR,
                f"No TLS connection to {host} could be made. Is it https that is served on that port, in TLS 1.2 or later?",
            )
    if any(isinstance(link, TimeoutError | httpx.ReadTimeout | httpx.PoolTimeout) for link in chain):
        return errors.UnavailableError(reasons.Reason.TIMEOUT, f"{host} did not answer within {timeout:g} s.")
    return errors.UnavailableError(
        reasons.Reason.UNREACHABLE, f"{host} cannot be reached, or it broke off ({_kind(chain)})."
    )


def _kind(chain: list[BaseException]) -> str:
    for link in reversed(chain):
        if isinstance(link, aiohttp.ClientConnectorDNSError):
            return "the name cannot be resolved"
        if isinstance(link, ConnectionRefusedError):
            return "connection refused"
        if isinstance(link, ConnectionResetError):
            return "connection reset"
    return type(chain[0]).__name__
