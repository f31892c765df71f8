"""Addresses that nothing on this machine uses, and the one link between the machine and the cell.

    machine  .1 ─── link ─── .254  cell  ─── bridge cni0 ─── pods
             API server (port 443), Squidex      kubelet

The link's network is also the range of Services. So the API server's own address is that of the Service "kubernetes",
under which pods look for it: no rule of a firewall, no kube-proxy. The machine's end of the link goes with the cell's.
"""

from __future__ import annotations

import ipaddress
import json
import random
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from sandbox.node.cell import Cell

# Of the private addresses, a part that is seldom in use; asked for all the same.
CANDIDATES = ipaddress.ip_network("10.192.0.0/10")
ATTEMPTS = 200
INTERFACE = "sqn"


@dataclass(frozen=True)
class Network:
    """The addresses of one cell: two networks of 256."""

    block: ipaddress.IPv4Network

    @property
    def link(self) -> ipaddress.IPv4Network:
        """The link between machine and cell."""
        return next(self.block.subnets(new_prefix=24))

    @property
    def services(self) -> str:
        """The range of Services: the lower half of the link's network."""
        return str(next(self.link.subnets(new_prefix=25)))

    @property
    def machine(self) -> str:
        """The machine's end, where API server and Squidex listen; the first address of the range of Services."""
        return str(self.link[1])

    @property
    def node(self) -> str:
        """The cell's end: the node's address."""
        return str(self.link[254])

    @property
    def pods(self) -> str:
        """The pods' network, routed to the cell."""
        return str(list(self.block.subnets(new_prefix=24))[1])

    def connect(self, cell: Cell) -> None:
        """Lay the link and the routes; raises SandboxError."""
        name = f"{INTERFACE}{secrets.token_hex(4)}"
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(cell.pid))
        _ip("address", "add", f"{self.machine}/24", "dev", name)
        _ip("link", "set", name, "up")
        inside = f"link set lo up\naddress add {self.node}/24 dev eth0\nlink set eth0 up\n"
        inside += f"route add default via {self.machine}\n"
        cell.run("ip", "-batch", "-", input=inside)
        cell.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        _ip("route", "add", self.pods, "via", self.node, "dev", name)


def choose() -> Network:
    """A network to which no route of this machine leads; raises SandboxError."""
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    used = [ipaddress.ip_network(route["dst"]) for route in routes if route.get("dst", "default") != "default"]
    first = int(CANDIDATES.network_address)
    for _ in range(ATTEMPTS):
        block = ipaddress.ip_network((first + 512 * random.randrange(CANDIDATES.num_addresses // 512), 23))
        if isinstance(block, ipaddress.IPv4Network) and not any(block.overlaps(other) for other in used):
            return Network(block)
    raise SandboxError(f"no free network was found in {CANDIDATES}: this machine has routes to all of it")


def _ip(*args: str) -> str:
    try:
        done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SandboxError(f"`ip` does not run: {error}") from error
    if done.returncode != 0:
        raise SandboxError(f"ip {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout
