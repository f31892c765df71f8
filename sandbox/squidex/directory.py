"""Who exists: clients, the apps they belong to, and the roles they have there."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES = ("Owner", "Developer", "Editor", "Reader", "")
"""Squidex's built-in roles; the empty one stands for a role without any permission."""

DEFAULT_ROLE = "Editor"
"""What Squidex gives a new client."""

_USER_ID = re.compile(r"[0-9a-f]{24}\Z|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def split(client_id: str) -> tuple[str | None, str | None]:
    """Return app and client name of a client id: `app:client` or `app~client`, both mean the same."""
    parts = re.split("[:~]", client_id)
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1]
    return None, None


def canonical(client_id: str) -> str:
    """Return the spelling under which a client is kept."""
    app, name = split(client_id)
    return client_id if app is None else f"{app}:{name}"


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the token endpoint: of an app, of a user, of the administrator, or public."""

    id: str
    secret: str | None

    @property
    def is_public(self) -> bool:
        """Tell whether it has no secret, like the web page's own client."""
        return self.secret is None

    @property
    def app(self) -> str | None:
        """The app it belongs to, if it is an app's client."""
        return split(self.id)[0]

    @property
    def is_user(self) -> bool:
        """Tell whether the id is that of a user (a GUID or 24 hexadecimal digits)."""
        return _USER_ID.match(self.id) is not None

    @property
    def is_admin(self) -> bool:
        """Tell whether it is the client that may do everything."""
        return not (self.is_public or self.is_user or self.app is not None)

    def extra_claims(self) -> dict[str, Any]:
        """Return what its access tokens carry beyond the usual.

        A user's claims are copied as they are, the client secret among them: no one who gets to see such
        a token may print its payload.
        """
        if self.is_admin:
            return {"urn:squidex:permissions": "squidex.*"}
        if self.is_user:
            return {"name": self.id, "urn:squidex:clientSecret": self.secret}
        return {}

    def identity_claims(self, scopes: tuple[str, ...]) -> dict[str, Any]:
        """Return what its id tokens carry beyond the usual."""
        if self.is_admin:
            return {"urn:squidex:permissions": "squidex.*"}
        if self.is_user:
            return {"name": self.id} if "profile" in scopes else {}
        return {}


@dataclass(frozen=True, slots=True)
class App:
    """An app; `anonymous` is the role that its anonymous client gives to everybody, if it has one."""

    name: str
    deleted: bool = False
    anonymous: str | None = None

    @property
    def id(self) -> str:
        """An id that survives restarts, like the one in a database."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.squidex.invalid"))


class Directory:
    """Clients, apps and roles. An app exists as soon as a client of it was named once."""

    def __init__(self, clients: Mapping[str, str | None]) -> None:
        self._clients: dict[str, Client] = {}
        self._apps: dict[str, App] = {}
        self._roles: dict[str, str] = {}
        for client_id, secret in clients.items():
            known = self._clients.get(canonical(client_id))
            if known is not None and known.secret != secret:
                raise ValueError(f"{client_id!r} and {known.id!r} are one client and cannot have two secrets")
            self.set_client(client_id, secret)

    def client(self, client_id: str) -> Client | None:
        """Return the client, unless it or its app is gone."""
        client = self._clients.get(canonical(client_id))
        if client is None or (client.app is not None and self.app(client.app) is None):
            return None
        return client

    def set_client(self, client_id: str, secret: str | None) -> None:
        """Create or re-create a client; None makes it public."""
        client = Client(canonical(client_id), secret)
        self._clients[client.id] = client
        if client.app is not None:
            self._apps.setdefault(client.app, App(client.app))

    def delete_client(self, client_id: str) -> None:
        """Delete a client; tokens it was given stay authentic."""
        self._clients.pop(canonical(client_id), None)

    def app(self, name: str) -> App | None:
        """Return the app, unless it is gone."""
        app = self._apps.get(name)
        return None if app is None or app.deleted else app

    def set_app(self, name: str, **changes: Any) -> None:
        """Create an app or change some of its fields."""
        self._apps[name] = replace(self._apps.get(name, App(name)), **changes)

    def apps(self) -> tuple[App, ...]:
        """Return every app, deleted ones too, by name."""
        return tuple(self._apps[name] for name in sorted(self._apps))

    def clients(self) -> tuple[Client, ...]:
        """Return every client by id."""
        return tuple(self._clients[client_id] for client_id in sorted(self._clients))

    def role(self, client_id: str) -> str:
        """Return the client's role in its app."""
        return self._roles.get(canonical(client_id), DEFAULT_ROLE)

    def set_role(self, client_id: str, role: str | None) -> None:
        """Give the client a role; None gives it Squidex's default again."""
        if role is None:
            self._roles.pop(canonical(client_id), None)
        else:
            self._roles[canonical(client_id)] = role

    def role_in(self, app: App, client_id: str | None) -> str | None:
        """Return the role a caller has in `app`: its own, the anonymous client's, or None."""
        if client_id is not None and split(client_id)[0] == app.name and self.client(client_id) is not None:
            return self.role(client_id)
        return app.anonymous
