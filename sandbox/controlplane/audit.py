"""Who asked the API server for what: exact counts for tests and benchmarks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SERVICE_ACCOUNT = "system:serviceaccount:"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
READS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class AuditEvent:
    """One request; `resource` has its subresource ("squidexclients/status").

    `code` is 200 for a watch that still runs, `received_at` RFC 3339 with microseconds, `credential` tells a user's tokens
    apart ("JTI=…", https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
    """

    id: str
    user: str
    user_agent: str
    verb: str
    resource: str
    group: str
    namespace: str
    name: str
    code: int
    uri: str
    received_at: str
    annotations: dict[str, str]
    credential: str = ""

    @property
    def is_write(self) -> bool:
        """Whether it may have changed something."""
        return self.verb not in READS

    @classmethod
    def parse(cls, line: str) -> Self:
        """From one line of the log (audit.k8s.io/v1 Event)."""
        event: dict[str, Any] = json.loads(line)
        what = event.get("objectRef", {})
        resource = what.get("resource", "")
        return cls(
            id=event["auditID"],
            user=event.get("user", {}).get("username", ""),
            user_agent=event.get("userAgent", ""),
            verb=event["verb"],
            resource=f"{resource}/{what['subresource']}" if what.get("subresource") else resource,
            group=what.get("apiGroup", ""),
            namespace=what.get("namespace", ""),
            name=what.get("name", ""),
            code=event.get("responseStatus", {}).get("code", 0),
            uri=event["requestURI"],
            received_at=event["requestReceivedTimestamp"],
            annotations=event.get("annotations", {}),
            credential=next(iter(event.get("user", {}).get("extra", {}).get(CREDENTIAL_ID, [])), ""),
        )


def read(log: Path, *, since: int = 0) -> list[AuditEvent]:
    """The requests whose answer began after byte `since` of the log, in that order.

    A long request is logged when it starts and when it ends: the later line wins, at the place of the first.
    """
    if not log.exists():
        return []
    events: dict[str, AuditEvent] = {}
    with log.open("rb") as stream:
        stream.seek(since)
        for line in stream:
            if line.endswith(b"\n"):  # the last line may be half-written
                event = AuditEvent.parse(line.decode())
                events[event.id] = event
    return list(events.values())


def of_user(events: Iterable[AuditEvent], user: str) -> list[AuditEvent]:
    """The requests of one user; "namespace/name" or "namespace:name" stands for a ServiceAccount."""
    full = SERVICE_ACCOUNT + user.replace("/", ":")
    return [event for event in events if event.user in (user, full)]
