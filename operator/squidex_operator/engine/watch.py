"""The periodic list: it finds what a watch missed, and a watch that has gone silent.

Kopf never reports a delete that fell into a gap of its watch (after a 410), and a connection can stay open with nothing
coming. A list tells: what has gone is forgotten, what has changed is taken in. Where the watch has still not reported such a
change a while later, it is dead, and the process ends: a fresh one has a fresh watch.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence

from squidex_operator.engine import inventory as inventory_module
from squidex_operator.engine import tools
from squidex_operator.kube import errors as kube_errors

logger = logging.getLogger(__name__)

Versions = dict[tuple[str, inventory_module.Key], str]

CLIENT = "client"
SECRET = "secret"
_DELETED = "deleted at "


class SilentWatchError(Exception):
    """The watch does not report what the API server has."""


class RestoredError(Exception):
    """The API server has an older state than it had: its store was restored from a backup."""


class Watch:
    """What Kopf's handlers report to, and what the lists are compared with."""

    def __init__(
        self,
        t: tools.Tools,
        *,
        namespaces: Sequence[str],
        relist_interval: dt.timedelta,
        grace: dt.timedelta = dt.timedelta(minutes=1),
    ) -> None:
        """No namespaces: all of them. `grace` is how long the watch may take to report what a list showed."""
        self._t = t
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._interval = relist_interval
        self._grace = grace
        self._heard: Versions = {}
        self.listed = False
        """The first list is done: what is there is known."""
        self.failing = False
        """The last list failed: the API server is away, and nothing can be said of the watch."""
        self.heard_at = t.now()
        """When the watch last reported something, or a list confirmed that there was nothing to report."""

    def client_event(self, kind: str | None, body: dict[str, object]) -> None:
        """A SquidexClient was added, changed or deleted, says the watch."""
        key, uid = self._heard_of(CLIENT, kind, body)
        if kind == "DELETED":
            self._forget_client(key, uid, _version(body))
            return
        for concerned in self._t.inventory.see_client(body):
            self._t.queue.wake(concerned)

    def secret_event(self, kind: str | None, body: dict[str, object]) -> None:
        """A Secret with a role was added, changed or deleted (or lost its role), says the watch."""
        key, uid = self._heard_of(SECRET, kind, body)
        seen = self._t.inventory
        for concerned in seen.forget_secret(key, uid, _version(body)) if kind == "DELETED" else seen.see_secret(body):
            self._t.queue.wake(concerned)

    async def relist(self) -> Versions:
        """Take in what the API server has now. What had changed without the watch having said so."""
        t = self._t
        known_clients, known_secrets = t.inventory.versions()
        missed: Versions = {}
        secrets: set[inventory_module.Key] = set()
        clients: set[inventory_module.Key] = set()
        # Secrets first: a SquidexClient whose token is there already must not be taken for one without.
        for namespace in self._namespaces:
            async for body in t.gateway.list_secrets(namespace):
                key = _key(body)
                secrets.add(key)
                _compare(SECRET, key, known_secrets.get(key), _version(body), missed)
                self._wake(t.inventory.see_secret(body))
        for namespace in self._namespaces:
            async for body in t.gateway.list_clients(namespace):
                key = _key(body)
                clients.add(key)
                _compare(CLIENT, key, known_clients.get(key), _version(body), missed)
                self._wake(t.inventory.see_client(body))
        self._forget_gone(known_clients, clients, known_secrets, secrets)
        return missed

    async def run(self) -> None:
        """List once more every interval, for ever.

        Raises:
            SilentWatchError: the watch is dead.
            RestoredError: nothing that is known of the cluster can be relied on.
        """
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            before = dict(self._heard)
            try:
                missed = await self.relist()
                self.failing = False
            except kube_errors.KubeError as error:
                self.failing = True
                logger.warning("list failed message=%r", error.problem.message)
                continue
            if missed:
                await asyncio.sleep(self._grace.total_seconds())
            unheard = [
                which
                for which, version in missed.items()
                if self._heard.get(which) == before.get(which) and self._heard.get(which) != version
            ]
            if unheard:
                self._t.metrics.missed_events.inc(len(unheard))
                kind, key = unheard[0]
                raise SilentWatchError(f"the watch missed {len(unheard)} changes, the first of {kind} {key}")
            self.heard_at = self._t.now()
            self._heard = {which: version for which, version in self._heard.items() if not version.startswith(_DELETED)}

    async def first_list(self) -> None:
        """The list at the start: nothing is decided before it is done."""
        await self.relist()
        self.listed = True
        self.heard_at = self._t.now()

    def _heard_of(self, what: str, kind: str | None, body: dict[str, object]) -> tuple[inventory_module.Key, str]:
        metadata = body["metadata"]
        assert isinstance(metadata, dict)  # noqa: S101 - for the type checker
        key = inventory_module.Key(metadata["namespace"], metadata["name"])
        version = _version(body)
        self._heard[what, key] = f"{_DELETED}{version}" if kind == "DELETED" else version
        self.heard_at = self._t.now()
        return key, metadata.get("uid", "")

    def _forget_client(self, key: inventory_module.Key, uid: str | None = None, version: str = "") -> None:
        if self._t.inventory.forget_client(key, uid, version):
            self._t.queue.forget(key)
            self._t.hosts.forget(key)

    def _forget_gone(
        self,
        known_clients: dict[inventory_module.Key, str],
        clients: set[inventory_module.Key],
        known_secrets: dict[inventory_module.Key, str],
        secrets: set[inventory_module.Key],
    ) -> None:
        """Only what was known before the list began: what came since is not in it for that reason."""
        now_clients, now_secrets = self._t.inventory.versions()
        for key in known_secrets.keys() - secrets:
            if now_secrets.get(key) == known_secrets[key]:
                self._wake(self._t.inventory.forget_secret(key))
                self._heard.pop((SECRET, key), None)
        for key in known_clients.keys() - clients:
            if now_clients.get(key) == known_clients[key]:
                self._heard.pop((CLIENT, key), None)
                self._forget_client(key)

    def _wake(self, keys: set[inventory_module.Key]) -> None:
        for key in keys:
            self._t.queue.wake(key)


def _compare(what: str, key: inventory_module.Key, known: str | None, listed: str, missed: Versions) -> None:
    if known is not None and inventory_module.is_older(listed, known):
        # A list gives the newest state there is (https://kubernetes.io/docs/reference/using-api/api-concepts/), so this
        # is proof; and all that is known would hold off what is really there.
        raise RestoredError(f"{what} {key} is older in the API server than it was: was etcd restored from a backup?")
    if known != listed:
        missed[what, key] = listed


def _version(body: dict[str, object]) -> str:
    metadata = body["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - for the type checker
    return str(metadata.get("resourceVersion", ""))


def _key(body: dict[str, object]) -> inventory_module.Key:
    metadata = body["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - for the type checker
    return inventory_module.Key(metadata["namespace"], metadata["name"])
