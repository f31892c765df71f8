"""The one way to the API server: plain dicts in and out, errors of our own.

Always with a content type for PATCH (the client's default is refused by custom resources) and with a time-out (its default is
five minutes). The generated models are left out: building them costs more than the request.
"""

import datetime as dt
import json
import re
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import aiohttp
from kubernetes.aio.client import exceptions as kube_exceptions
from kubernetes.aio.client import rest as kube_rest

import squidex_operator
from squidex_operator.api import names
from squidex_operator.kube import access as access_module
from squidex_operator.kube import errors

TIMEOUT = 30.0
"""Seconds for a request."""

PAGE = 1000
"""Objects per page of a list."""

_USER_AGENT = f"squidex-operator/{squidex_operator.__version__}"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

_DENIED = re.compile(r' cannot (\w+) resource "([\w./-]+)" in API group "')
"""RBAC's words. An admission plugin's 403, a quota for example, has others."""

Body = dict[str, Any]


class Gateway:
    """Requests to the API server. Every method raises KubeError when it fails."""

    def __init__(self, access: access_module.Access) -> None:
        self._access = access
        self._client: Any = None

    async def open(self) -> None:
        """Get ready; the access must be loaded."""
        # The client's lower half: a connection pool, TLS and proxies, from its configuration. The upper half walks through
        # each body that is sent, to turn models into dicts; these are dicts.
        self._client = kube_rest.RESTClientObject(self._access.configuration)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()

    async def get_secret(self, namespace: str, name: str) -> Body:
        """A Secret, data included."""
        return await self._request("GET", _path(namespace, "secrets", name))

    async def get_config_map(self, namespace: str, name: str) -> Body:
        """A ConfigMap."""
        return await self._request("GET", _path(namespace, "configmaps", name))

    async def get_namespace(self, name: str) -> Body:
        """A namespace."""
        return await self._request("GET", f"/api/v1/namespaces/{name}")

    async def create_secret(self, namespace: str, body: Body) -> Body:
        """Create a Secret, never touch one that is there.

        An apply would merge into a Secret that somebody else made a moment ago; create is refused then.

        Raises:
            AlreadyExistsError: somebody else's is there.
        """
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("POST", _path(namespace, "secrets"), query=query, body=body)

    async def apply_secret(self, namespace: str, name: str, body: Body, *, force: bool = False) -> Body:
        """Server-side apply of a Secret. With `metadata.uid` and `resourceVersion` it is the one that was looked at.

        Raises:
            ManagerConflictError: another manager holds a field of ours.
            StaleError: it changed meanwhile, or is another one.
        """
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true" if force else "false"}
        path = _path(namespace, "secrets", name)
        return await self._request("PATCH", path, query=query, body=body, content_type=_APPLY)

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        """Delete the very Secret that was looked at."""
        body = {"preconditions": {"uid": uid, "resourceVersion": resource_version}}
        await self._request("DELETE", _path(namespace, "secrets", name), body=body)

    async def patch_status(self, namespace: str, name: str, uid: str, patch: Mapping[str, Any]) -> Body:
        """Merge into a SquidexClient's status. Another SquidexClient of that name, with another uid, is left alone."""
        path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}/{name}/status"
        body = {"metadata": {"uid": uid}, "status": patch}
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("PATCH", path, query=query, body=body, content_type=_MERGE)

    async def create_event(self, namespace: str, body: Body) -> None:
        """Post a Kubernetes Event."""
        await self._request("POST", _path(namespace, "events"), body=body)

    async def list_clients(self, namespace: str | None) -> AsyncIterator[Body]:
        """All SquidexClients, page by page."""
        where = f"/namespaces/{namespace}" if namespace else ""
        async for item in self._list(f"/apis/{names.API_VERSION}{where}/{names.PLURAL}", {}):
            yield item

    async def list_secrets(self, namespace: str | None) -> AsyncIterator[Body]:
        """All Secrets that have a role, page by page."""
        where = f"/namespaces/{namespace}" if namespace else ""
        async for item in self._list(f"/api/v1{where}/secrets", {"labelSelector": names.LABEL_ROLE}):
            yield item

    async def is_served(self) -> bool:
        """Whether the API server knows SquidexClients: the CRD is installed and established."""
        try:
            found = await self._request("GET", f"/apis/{names.API_VERSION}")
        except errors.NotFoundError:
            return False
        return any(resource.get("name") == names.PLURAL for resource in found.get("resources") or [])

    async def _list(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Body]:
        token = ""
        while True:
            page = await self._request("GET", path, query={**query, "limit": str(PAGE), "continue": token})
            for item in page.get("items") or []:
                yield item
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> Body:
        status, headers, raw = await self._send(method, path, query, body, content_type)
        if status == 401:
            # Its ServiceAccount token was replaced on disk, or its key: read it again, once.
            try:
                await self._access.reread()
            except access_module.AccessError as error:
                raise errors.UnavailableError(
                    f"The Kubernetes API server refuses the operator's token. {error}"
                ) from None
            status, headers, raw = await self._send(method, path, query, body, content_type)
        what = f"{method} {path}"
        try:
            parsed = json.loads(raw)
        except (ValueError, RecursionError):
            parsed = None
        answer = parsed if isinstance(parsed, dict) else {}
        if 200 <= status < 300 and "kind" in answer:
            return answer
        if 200 <= status < 300:
            # A web page of something in between: an empty list in its place would mean that everything is gone.
            raise errors.UnavailableError(f"{what}: HTTP {status} with an answer that is not Kubernetes's.")
        raise _error(what, status, headers, answer)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Body | None, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        url = f"{self._access.configuration.host}{path}"
        if query:
            url = f"{url}?{urllib.parse.urlencode(query)}"
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": _USER_AGENT}
        try:
            if (authorization := await self._access.authorization()) is not None:
                headers["Authorization"] = authorization
            response = await self._client.request(method, url, headers, body, _request_timeout=TIMEOUT)
            return response.status, response.headers, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, kube_exceptions.ApiException) as error:
            raise errors.UnavailableError(
                f"The Kubernetes API server cannot be reached ({method} {path}: {type(error).__name__})."
            ) from None


def _path(namespace: str, plural: Literal["secrets", "configmaps", "events"], name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def _error(what: str, status: int, headers: Mapping[str, str], answer: Mapping[str, Any]) -> errors.KubeError:
    reason = answer.get("reason") or ""
    details = answer.get("details")
    if status == 404:
        return errors.NotFoundError(f"{what}: not found.")
    if status == 409 and reason == "AlreadyExists":
        return errors.AlreadyExistsError(f"{what}: it exists already.")
    causes = details.get("causes") if isinstance(details, dict) else None
    causes = [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []
    conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if status == 409 and conflicts:
        return _manager_conflict(conflicts)
    if status == 409:
        return errors.StaleError(f"{what}: it changed meanwhile.")
    if status in (401, 408, 429) or status >= 500:
        seconds = re.fullmatch(r"\s*([0-9]{1,6})\s*", str(headers.get("Retry-After", "")))
        retry_after = dt.timedelta(seconds=int(seconds[1])) if seconds else None
        return errors.UnavailableError(f"{what}: the API server answered HTTP {status}.", retry_after=retry_after)
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return errors.TerminatingError(f"{what}: the namespace is being deleted.")
    if status == 403 and (denied := _DENIED.search(str(answer.get("message") or ""))):
        return errors.NotAllowedError(
            f"{what}: the operator's ServiceAccount may not {denied[1]} {denied[2]}. "
            "Install the roles of this version, which are among its manifests."
        )
    advice = "Does a quota or an admission policy of the cluster forbid it?" if status == 403 else ""
    if status == 422:
        advice = "Is the Secret immutable, or of another type? Then delete it, or choose another spec.target.name."
    fields = _fields(causes)
    return errors.RefusedError(f"{what}: the API server refuses it (HTTP {status} {reason}){fields}. {advice}".strip())


def _manager_conflict(conflicts: list[Mapping[str, Any]]) -> errors.ManagerConflictError:
    # The API server's words: conflict with "NAME" for an apply, conflict with "NAME" using v1 at TIME for an update.
    texts = [str(cause.get("message") or "") for cause in conflicts]
    managers = sorted({found[1] for text in texts if (found := re.search(r'conflict with "([^"]*)"', text))})
    by_hand = all('" using ' in text or '" with subresource' in text for text in texts)
    fields = ", ".join(sorted({str(cause.get("field")) for cause in conflicts}))
    return errors.ManagerConflictError(
        f"The field manager {', '.join(managers)} also applies {fields} of the target Secret. "
        "Leave these fields to the operator, or choose another spec.target.name.",
        managers=managers,
        by_hand=by_hand,
    )


def _fields(causes: list[Mapping[str, Any]]) -> str:
    # The names of fields, not the causes' messages: those may quote a value.
    fields = sorted({str(cause.get("field")) for cause in causes if cause.get("field")})
    return f" because of {', '.join(fields)}" if fields else ""
