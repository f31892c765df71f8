"""Faults: what goes wrong, where, for whom and how often.

A fault is one JSON object in the list `faults` of the state. Every fault that matches a request takes part;
where several would give the answer, the first does. These members say which requests match:

    kind        required, see below
    on          an endpoint or a list of them: token, probe, jwks, discovery, introspection, userinfo,
                authorize, api, health, other, all. Default "all". "probe" is /api/apps/{app} and /api/languages/
    client      only requests of this client id: the one a token request names, or the probe's token was for
    app         only probes of this app
    times       only so many matching requests; then the fault is gone
    skip        let so many matching requests pass first

Kinds that replace the answer:

    status      {status, body?, contentType?, headers?, retryAfter?, retryAfterDate?}: any answer. `retryAfter`
                is sent as it is; `retryAfterDate` is seconds from now, sent as an HTTP date
    html        {status?}: a web page, 200 unless said otherwise
    redirect    {status?, location?}: 307 unless said otherwise, to the same URL with https unless said otherwise
    oauth       {error, status?, description?}: an OAuth error; 401 for invalid_client, else 400

Kinds that change the answer:

    json        {set?, remove?, body?}: members set and removed in the JSON object, or another document altogether
    token       {claims?, expIn?, opaque?, key?}: changes the access token that is issued: claims (null leaves one
                out), `exp` in so many seconds, an opaque string, or a signature by the key of that name

Kinds that change how it is sent:

    slow        {seconds}: waits before it answers
    drip        {seconds, bytes?}: sends so many bytes of the body at a time (1) and waits in between
    hang        {}: does not answer while the fault is there; taken away, the request is answered
    reset       {}: closes the connection with a TCP reset
    truncate    {bytes?}: promises the whole body, sends so much of it (half) and closes
    huge        {bytes?}: the body is followed by white space up to this size (64 MiB)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ENDPOINTS = (
    "token",
    "probe",
    "jwks",
    "discovery",
    "introspection",
    "userinfo",
    "authorize",
    "api",
    "health",
    "other",
    "all",
)


class FaultError(ValueError):
    """A fault is not described as it should be; the message says what is wrong."""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _status(value: object) -> bool:
    return _whole(value) and isinstance(value, int) and 200 <= value < 600


def _any_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _headers(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _number_or_text(value: object) -> bool:
    return _any_number(value) or _text(value)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _anything(value: object) -> bool:  # noqa: ARG001 -- the one check that does not look
    return True


_MATCHING: Mapping[str, Callable[[object], bool]] = {
    "client": _text,
    "app": _text,
    "times": _whole,
    "skip": _whole,
}

KINDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "status": {
        "status": _status,
        "body": _text,
        "contentType": _text,
        "headers": _headers,
        "retryAfter": _number_or_text,
        "retryAfterDate": _any_number,
    },
    "html": {"status": _status},
    "redirect": {"status": _status, "location": _text},
    "oauth": {"error": _text, "status": _status, "description": _text},
    "json": {"set": _object, "remove": _names, "body": _anything},
    "token": {"claims": _object, "expIn": _any_number, "opaque": _flag, "key": _text},
    "slow": {"seconds": _number},
    "drip": {"seconds": _number, "bytes": _whole},
    "hang": {},
    "reset": {},
    "truncate": {"bytes": _whole},
    "huge": {"bytes": _whole},
}
"""Members of each kind, and what their values may be."""

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "status": ("status",),
    "oauth": ("error",),
    "slow": ("seconds",),
    "drip": ("seconds",),
}


@dataclass(slots=True)
class Fault:
    """A fault with what is left of it."""

    kind: str
    on: frozenset[str]
    details: Mapping[str, Any]
    client: str | None
    app: str | None
    times: int | None
    skip: int
    gone: asyncio.Event
    """Set once the fault is over: requests that hang on it then go on."""

    def matches(self, endpoint: str, client: str | None, app: str | None) -> bool:
        """Tell whether the fault is meant for such a request."""
        return (
            (endpoint in self.on or "all" in self.on)
            and (self.client is None or self.client == client)
            and (self.app is None or self.app == app)
        )

    def document(self) -> dict[str, Any]:
        """Return the fault as it was described, with the counts that are left."""
        left: dict[str, Any] = {"kind": self.kind, "on": sorted(self.on), **self.details}
        optional = {"client": self.client, "app": self.app, "times": self.times, "skip": self.skip or None}
        return left | {name: value for name, value in optional.items() if value is not None}


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def replace(self, faults: Sequence[Fault]) -> None:
        """Switch on these faults and switch off all others."""
        for fault in self._faults:
            fault.gone.set()
        self._faults = list(faults)

    def take(self, endpoint: str, client: str | None, app: str | None) -> list[Fault]:
        """Return the faults for a request, and use each of them up by one."""
        if not self._faults:
            return []
        taken = []
        for fault in [fault for fault in self._faults if fault.matches(endpoint, client, app)]:
            if fault.skip > 0:
                fault.skip -= 1
                continue
            taken.append(fault)
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
        return taken

    def documents(self) -> list[dict[str, Any]]:
        """Return the faults as JSON has them."""
        return [fault.document() for fault in self._faults]


def parse(value: object) -> list[Fault]:
    """Return the faults that a JSON list describes; raises FaultError."""
    if not isinstance(value, list):
        raise FaultError("faults must be a list")
    return [_parse_one(item) for item in value]


def _parse_one(item: object) -> Fault:
    if not isinstance(item, dict):
        raise FaultError("a fault must be an object")
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultError(f"unknown kind of fault {kind!r}; known: {', '.join(KINDS)}")
    members = KINDS[kind]
    for name, found in item.items():
        if name in ("kind", "on"):
            continue
        accepts = members.get(name) or _MATCHING.get(name)
        if accepts is None:
            known = ", ".join(("kind", "on", *_MATCHING, *members))
            raise FaultError(f"a fault of kind {kind!r} has no {name!r}; known: {known}")
        if not accepts(found):
            raise FaultError(f"{name!r} of a fault of kind {kind!r} cannot be {found!r}")
    for name in _REQUIRED.get(kind, ()):
        if name not in item:
            raise FaultError(f"a fault of kind {kind!r} needs {name!r}")
    if item.get("times") == 0:
        raise FaultError("'times' must be at least 1")
    return Fault(
        kind=kind,
        on=_endpoints(item.get("on", "all")),
        details={name: found for name, found in item.items() if name in members},
        client=item.get("client"),
        app=item.get("app"),
        times=item.get("times"),
        skip=item.get("skip", 0),
        gone=asyncio.Event(),
    )


def _endpoints(value: object) -> frozenset[str]:
    names = value if isinstance(value, list) else [value]
    unknown = [name for name in names if name not in ENDPOINTS]
    if unknown:
        raise FaultError(f"unknown endpoint {unknown[0]!r}; known: {', '.join(ENDPOINTS)}")
    return frozenset(names)
