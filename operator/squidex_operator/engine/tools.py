"""What a reconcile works with. One for the process."""

import dataclasses
import datetime as dt
import hashlib
import secrets
from collections.abc import Callable

from squidex_operator.engine import clock as clock_module
from squidex_operator.engine import hosts, inventory, queue, servers, trust
from squidex_operator.kube import gateway
from squidex_operator.observe import metrics
from squidex_operator.policy import credentials as credentials_policy
from squidex_operator.squidex import http

QueueKey = inventory.Key | servers.ServerKey


@dataclasses.dataclass(frozen=True)
class Tools:
    """Everything that acts, or is not pure."""

    clock: clock_module.Clock
    gateway: gateway.Gateway
    http: http.Http
    inventory: inventory.Inventory
    queue: "queue.Queue[QueueKey]"
    hosts: hosts.Hosts
    servers: servers.Servers
    trust: trust.Trust
    metrics: metrics.Metrics
    draw: Callable[[], float]
    """Random in [0, 1): for backoff."""
    mac_key: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Dies with the process, so that a fingerprint says nothing to anybody else."""

    def now(self) -> dt.datetime:
        """Aware UTC."""
        return self.clock.now()

    def fingerprint(self, found: credentials_policy.Credentials) -> str:
        """Tells whether two versions of a Secret hold the same id and secret."""
        text = f"{found.client_id}\0{found.client_secret}".encode()
        return hashlib.blake2b(text, key=self.mac_key, digest_size=16).hexdigest()
