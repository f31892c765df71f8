"""What wakes a key: Kopf watches SquidexClients and Secrets with a role, and every event goes to the inventory.

The only module that imports Kopf. `on.event` handlers alone: they keep no state on objects, add no finalizers, and have no
retries, so they do no I/O. Everything else of Kopf stays out (docs/adr/0001).
"""

import asyncio
import datetime as dt
import itertools
import logging
import signal
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import kopf

from squidex_operator.api import names
from squidex_operator.kube import access as access_module

logger = logging.getLogger(__name__)

LOGIN_PAUSE = dt.timedelta(seconds=5)


class Listener(Protocol):
    """Where events go."""

    def client_event(self, kind: str | None, body: dict[str, Any]) -> None:
        """A SquidexClient was listed (kind None), added, modified or deleted."""
        ...

    def secret_event(self, kind: str | None, body: dict[str, Any]) -> None:
        """A Secret with a role was listed (kind None), added, modified or deleted."""
        ...


def build_registry(
    listener: Listener, access: access_module.Access, *, pause: dt.timedelta = LOGIN_PAUSE
) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own. `pause` is how long a token that was refused is not tried again."""
    registry = kopf.OperatorRegistry()
    tries = itertools.count()
    last: access_module.Connection | None = None

    @kopf.on.login(registry=registry, backoff=5)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        # Called at the start, and again after each 401: the token may have been replaced on disk.
        await access.reread()
        nonlocal last
        if access.connection() == last:
            # It was not: the API server is just starting, or has another key and the kubelet has not noticed yet.
            logger.warning("own token refused retry=%ds", pause.total_seconds())
            await asyncio.sleep(pause.total_seconds())
            await access.reread()
        last = found = access.connection()
        return kopf.ConnectionInfo(
            # Kopf never takes credentials again that equal some that were refused: it would end the process.
            priority=next(tries),
            server=found.server,
            ca_path=found.ca_path,
            scheme="Bearer" if found.token else None,
            token=found.token,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            insecure=found.insecure,
        )

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def client_event(event: kopf.RawEvent, **_: Any) -> None:
        listener.client_event(event["type"], dict(event["object"]))

    @kopf.on.event("v1", "secrets", registry=registry)
    async def secret_event(event: kopf.RawEvent, **_: Any) -> None:
        listener.secret_event(event["type"], dict(event["object"]))

    return registry


def build_settings(*, inactivity: dt.timedelta) -> kopf.OperatorSettings:
    """How Kopf is to behave: watch, and nothing else. A watch is opened anew after `inactivity`."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Neither namespaces nor CRDs are watched: both would need rights that nothing else needs.
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # Without an end: a watch that gives up would end the process in any outage of the API server.
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.chunk_size = 1000
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = inactivity.total_seconds()
    settings.queueing.idle_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 20
    settings.persistence.diffbase_storage = _NoDiffBase()
    # In Kopf 1.45 the key is (version, plural); 'v1/secrets' would match nothing, silently, and watch every Secret.
    settings.watching.label_selectors["v1", "secrets"] = names.LABEL_ROLE
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """Kopf copies every object to see what has changed in it; nothing here asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Nothing is kept."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


class _Backoffs:
    """Seconds between tries of one request: growing to ten, for ever."""

    def __iter__(self) -> "_Endless":
        return _Endless()


class _Endless:
    def __init__(self) -> None:
        self._next = 0.5

    def __iter__(self) -> "_Endless":
        return self

    def __next__(self) -> float:
        self._next = min(self._next * 2, 10.0)
        return self._next


async def watch(
    listener: Listener,
    access: access_module.Access,
    namespaces: Sequence[str],
    stop: asyncio.Event,
    *,
    inactivity: dt.timedelta,
) -> None:
    """Watch until stopped, by a signal too. Ends with an exception where Kopf gives up."""
    # kopf.operator() is these two calls. In between, the signals are taken from Kopf: its own way leaves the flag unset.
    tasks = await kopf.spawn_tasks(
        registry=build_registry(listener, access),
        settings=build_settings(inactivity=inactivity),
        # Of use to peers only; but Kopf would ask for the user's name, which a user who is just a number has not.
        identity=names.FIELD_MANAGER,  # type: ignore[arg-type]  # a NewType that Kopf does not export
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kopf.run_tasks(tasks, ignored=_Everything())


class _Everything(Collection[Any]):
    """What Kopf is to leave alone when it ends.

    It takes every task that began after it for its own, gives it five seconds and cancels it: our work on a key, with a
    token that was fetched and is not written yet.
    """

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0
