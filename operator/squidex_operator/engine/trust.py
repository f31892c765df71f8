"""The CA certificates that `spec.tls.caRef` names. They are no secret, and many SquidexClients share them."""

import asyncio
import base64
import datetime as dt
import weakref

from squidex_operator.api import reasons, resource
from squidex_operator.kube import errors as kube_errors
from squidex_operator.kube import gateway as gateway_module
from squidex_operator.policy import backoff
from squidex_operator.squidex import http

_KEPT = dt.timedelta(minutes=1)
_MOST = 1024


class UnavailableCAError(Exception):
    """The certificates are not where the spec says."""

    def __init__(self, problem: backoff.Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Trust:
    """Certificates as they were read, for a minute."""

    def __init__(self, gateway: gateway_module.Gateway) -> None:
        self._gateway = gateway
        self._kept: dict[tuple[str, resource.CARef], tuple[str, dt.datetime]] = {}
        self._locks: weakref.WeakValueDictionary[tuple[str, resource.CARef], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def get(self, namespace: str, tls: resource.TLS | None, now: dt.datetime) -> str:
        """PEM; empty for the system's own.

        Raises:
            UnavailableCAError: there is no such ConfigMap or Secret, or no certificate in it.
            KubeError: it cannot be read now.
        """
        if tls is None:
            return ""
        where = (namespace, tls.ca_ref)
        # A thousand SquidexClients that come together read them once.
        lock = self._locks.setdefault(where, asyncio.Lock())
        async with lock:
            text, read_at = self._kept.get(where, ("", now - _KEPT))
            if now - read_at < _KEPT:
                return text
            text = await self._read(namespace, tls.ca_ref)
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[where] = (text, now)
        return text

    def forget(self, namespace: str, tls: resource.TLS | None) -> None:
        """They did not fit the server: read them anew the next time."""
        if tls is not None:
            self._kept.pop((namespace, tls.ca_ref), None)

    async def _read(self, namespace: str, ref: resource.CARef) -> str:
        try:
            if ref.kind == "ConfigMap":
                body = await self._gateway.get_config_map(namespace, ref.name)
                text = (body.get("data") or {}).get(ref.key) or ""
            else:
                body = await self._gateway.get_secret(namespace, ref.name)
                text = base64.b64decode((body.get("data") or {}).get(ref.key) or "").decode()
        except (kube_errors.NotFoundError, ValueError):
            text = ""
        if http.is_ca(text):
            return text
        raise UnavailableCAError(
            backoff.Problem(
                backoff.Kind.CLUSTER,
                reasons.Reason.CA_UNAVAILABLE,
                f"{ref.kind} {ref.name!r} does not exist, or has no valid PEM certificates under {ref.key!r}. "
                "Correct spec.tls.caRef, or create it.",
            )
        )
