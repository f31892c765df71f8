"""The switches of `/_sandbox/state`: what they are called, what they accept, what they do.

A patch is checked whole before any of it takes effect, so a test never runs against half of one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sandbox.squidex import directory, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.squidex.world import World

    Change = Callable[[], None]

_KEY_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*\Z")

NEW_KEY = "replace"


class SwitchError(ValueError):
    """A patch names an unknown switch or gives one a value it cannot take."""


def state(world: World) -> dict[str, Any]:
    """Return all switches and counts. Secrets are not among them."""
    return {
        "key": world.keys.replicas[0] if len(world.keys.replicas) == 1 else None,
        "replicas": list(world.keys.replicas),
        "keys": world.keys.kids(),
        "issuer": world.issuer,
        "lifetime": world.lifetime,
        "clockOffset": world.clock_offset,
        "basePath": world.base_path,
        "webPage": world.web_page,
        "identityServer4": world.identityserver4,
        "clients": {
            client.id: {"public": client.is_public, "admin": client.is_admin} for client in world.directory.clients()
        },
        "roles": {client.id: world.directory.role(client.id) for client in world.directory.clients() if client.app},
        "apps": {app.name: {"deleted": app.deleted, "anonymous": app.anonymous} for app in world.directory.apps()},
        "faults": world.faults.documents(),
        "counts": world.counts.document(),
    }


def patch(world: World, changes: object) -> None:
    """Set switches; raises SwitchError and changes nothing when any of them is wrong."""
    if not isinstance(changes, dict):
        raise SwitchError("the patch must be a JSON object")
    unknown = sorted(set(changes) - set(SWITCHES))
    if unknown:
        raise SwitchError(f"unknown switch {unknown[0]!r}; known: {', '.join(SWITCHES)}")
    for change in [SWITCHES[name](world, value) for name, value in changes.items()]:
        change()


def _key(world: World, value: object) -> Change:
    if value == NEW_KEY:
        return lambda: world.keys.use((world.keys.unused_name(),))
    return _replicas(world, [value])


def _replicas(world: World, value: object) -> Change:
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) and _KEY_NAME.match(name) for name in names):
        raise SwitchError(f"keys are named by lower-case words such as 'first' or 'second', not {value!r}")
    return lambda: world.keys.use(tuple(names))


def _issuer(world: World, value: object) -> Change:
    if value is not None and not (isinstance(value, str) and value):
        raise SwitchError("issuer must be a URL, or null for the server's own")

    def change() -> None:
        world.issuer_setting = value

    return change


def _lifetime(world: World, value: object) -> Change:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SwitchError("lifetime must be a whole number of seconds, at least 1")

    def change() -> None:
        world.lifetime = value

    return change


def _clock_offset(world: World, value: object) -> Change:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SwitchError("clockOffset must be a number of seconds")

    def change() -> None:
        world.clock_offset = float(value)

    return change


def _base_path(world: World, value: object) -> Change:
    if not isinstance(value, str) or not _BASE_PATH.match(value):
        raise SwitchError("basePath must be empty or like '/cms'")

    def change() -> None:
        world.base_path = value

    return change


def _flag(attribute: str) -> Callable[[World, object], Change]:
    def check(world: World, value: object) -> Change:
        if not isinstance(value, bool):
            raise SwitchError(f"{attribute.replace('_', '')} must be true or false")
        return lambda: setattr(world, attribute, value)

    return check


def _clients(world: World, value: object) -> Change:
    entries = _entries("clients", value)
    for client_id, entry in entries.items():
        if entry is not None and entry != {"public": True} and not (isinstance(entry, str) and entry):
            raise SwitchError(
                f"clients.{client_id} must be a secret (creates it), null (deletes it) or "
                '{"public": true} (a client without a secret)'
            )

    def change() -> None:
        for client_id, entry in entries.items():
            if entry is None:
                world.directory.delete_client(client_id)
            else:
                world.directory.set_client(client_id, entry if isinstance(entry, str) else None)

    return change


def _roles(world: World, value: object) -> Change:
    entries = _entries("roles", value)
    for client_id, role in entries.items():
        _check_role(f"roles.{client_id}", role)

    def change() -> None:
        for client_id, role in entries.items():
            world.directory.set_role(client_id, role)

    return change


def _apps(world: World, value: object) -> Change:
    entries = _entries("apps", value)
    for name, entry in entries.items():
        if entry is None:
            continue
        if not isinstance(entry, dict) or not set(entry) <= {"deleted", "anonymous"}:
            raise SwitchError(f"apps.{name} must be null (deletes it) or have 'deleted' and 'anonymous'")
        if not isinstance(entry.get("deleted", False), bool):
            raise SwitchError(f"apps.{name}.deleted must be true or false")
        _check_role(f"apps.{name}.anonymous", entry.get("anonymous"))

    def change() -> None:
        for name, entry in entries.items():
            world.directory.set_app(name, **({"deleted": True} if entry is None else entry))

    return change


def _faults(world: World, value: object) -> Change:
    try:
        parsed = faults.parse(value)
    except faults.FaultError as error:
        raise SwitchError(str(error)) from None
    return lambda: world.faults.replace(parsed)


def _counts(world: World, value: object) -> Change:
    if value is not None:
        raise SwitchError("counts can only be set to null, which resets them")
    return world.counts.reset


def _entries(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SwitchError(f"{name} must be an object")
    return value


def _check_role(where: str, role: object) -> None:
    if role is not None and role not in directory.ROLES:
        known = ", ".join(repr(name) for name in directory.ROLES)
        raise SwitchError(f"{where} must be one of {known}, or null")


SWITCHES: Mapping[str, Callable[[World, object], Change]] = {
    "key": _key,
    "replicas": _replicas,
    "issuer": _issuer,
    "lifetime": _lifetime,
    "clockOffset": _clock_offset,
    "basePath": _base_path,
    "webPage": _flag("web_page"),
    "identityServer4": _flag("identityserver4"),
    "clients": _clients,
    "roles": _roles,
    "apps": _apps,
    "faults": _faults,
    "counts": _counts,
}
"""Every switch with what checks its value and returns the change to make."""
