"""How the API server is reached: in a pod by its ServiceAccount, elsewhere by a kubeconfig. One place for Kopf and us."""

import asyncio
import dataclasses
import datetime as dt
import os
import pathlib
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import client as kube_client
from kubernetes.aio import config as kube_config

from squidex_operator import proxies

TOKEN_REREAD = dt.timedelta(minutes=1)
"""A kubelet replaces a projected token when 80 % of its life is over; client-go reads the file again as often."""


class AccessError(Exception):
    """No way to the API server is configured; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Connection:
    """What Kopf needs for its own connections."""

    server: str
    ca_path: str | None
    token: str | None = dataclasses.field(repr=False)
    certificate_path: str | None
    private_key_path: str | None
    insecure: bool


class Access:
    """The configuration of a client, whose token is read again from its file."""

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        self._kubeconfig = kubeconfig or os.environ.get("KUBECONFIG") or None
        self._context = context
        self._read_at = -TOKEN_REREAD.total_seconds()
        self.configuration = kube_client.Configuration()

    async def load(self) -> None:
        """Read the configuration.

        Raises:
            AccessError: where there is none, or it cannot be read.
        """
        await self._read(self.configuration)
        self._read_at = asyncio.get_running_loop().time()
        # More would not be faster, and asyncio keeps a quarter of a megabyte for each TLS connection.
        self.configuration.connection_pool_maxsize = 16
        # The client would read proxy variables and ~/.netrc anew for each request, in a thread: a fifth of all CPU.
        self.configuration.client_session_kwargs = {"trust_env": False, "cookie_jar": aiohttp.DummyCookieJar()}
        self.configuration.proxy = self.configuration.proxy or proxies.proxy_for(self.configuration.host)

    async def reread(self) -> None:
        """Read the token again, now: the API server refused the one that we had.

        Raises:
            AccessError: where it cannot be read.
        """
        fresh = kube_client.Configuration()
        await self._read(fresh)
        self._read_at = asyncio.get_running_loop().time()
        self.configuration.api_key = dict(fresh.api_key)

    async def authorization(self) -> str | None:
        """The header of a request, read again from its file when it is old; None where certificates do it."""
        if asyncio.get_running_loop().time() - self._read_at >= TOKEN_REREAD.total_seconds():
            # A file that is being replaced just now keeps the old token for another minute.
            try:
                await self.reread()
            except AccessError:
                self._read_at = asyncio.get_running_loop().time()
        header: str | None = self.configuration.api_key.get("BearerToken")
        return header

    def connection(self) -> Connection:
        """The same access, for Kopf."""
        header = self.configuration.api_key.get("BearerToken") or ""
        return Connection(
            server=self.configuration.host,
            ca_path=self.configuration.ssl_ca_cert,
            token=header.partition(" ")[2] or None,
            certificate_path=self.configuration.cert_file,
            private_key_path=self.configuration.key_file,
            insecure=not self.configuration.verify_ssl,
        )

    async def _read(self, configuration: Any) -> None:
        try:
            await self._read_unchecked(configuration)
        except (kube_config.ConfigException, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            found = str(error)
        except yaml.YAMLError as error:
            # Not its text: that repeats lines of the file, where a token may stand.
            found = f"it is not YAML ({type(error).__name__})"
        else:
            return
        raise AccessError(
            "There is no way to a Kubernetes API server: run in a pod with a ServiceAccount, or set KUBECONFIG "
            f"(or --kubeconfig) to a kubeconfig that can be read. What was found: {found}"
        )

    async def _read_unchecked(self, configuration: Any) -> None:
        if self._kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
            return
        path = await asyncio.to_thread(_existing, self._kubeconfig or "~/.kube/config")
        await kube_config.load_kube_config(
            config_file=path, context=self._context, client_configuration=configuration, persist_config=False
        )


def _existing(path: str) -> str:
    found = pathlib.Path(path).expanduser()
    if not found.exists():
        raise kube_config.ConfigException(f"{found} does not exist")
    return str(found)
