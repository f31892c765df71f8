"""Everything together: a control plane with our CRD and manifests, a stand-in Squidex, and the operator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from sandbox.controlplane import ControlPlane
from sandbox.controlplane.commands import Site
from sandbox.errors import SandboxError
from sandbox.operator_process import NAMESPACE, SERVICE_ACCOUNT, Operator
from sandbox.places import REPOSITORY
from sandbox.processes import Household
from sandbox.standin import Squidex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.binaries import Binaries
    from sandbox.node.node import Node

CA_CONFIG_MAP = "sandbox-ca"
CREDENTIALS = "sandbox-credentials"
TOKEN_SECONDS = 30 * 24 * 3600


class Sandbox:
    """A context manager; afterwards no process and no folder is left.

    `control_plane` and `squidex` are there once it is started; `start_operator` adds replicas of the
    operator.
    """

    def __init__(
        self,
        *,
        binaries: Binaries | None = None,
        repository: Path = REPOSITORY,
        squidex_clients: Mapping[str, str] | None = None,
        squidex_args: Sequence[str] = (),
        audit_log: bool = True,
        node: bool = False,
        images: Sequence[Path] = (),
    ) -> None:
        """Describe it; nothing runs yet. With a `node`, raises NodeUnavailable where there can be none.

        `images` are archives that the node has before manifests/ are applied: the operator's Deployment starts at once.
        """
        self.repository = repository
        self.home = Household(prefix="squidex-node" if node else "squidex-sandbox")
        self.dir = self.home.dir
        self.node: Node | None = None
        self._images = images
        site = Site()
        if node:
            from sandbox.node.node import Node

            self.node = Node(self.home)
            network = self.node.network
            site = Site(address=network.machine, port=443, services=network.services, nodes=True)
        self.control_plane = ControlPlane(
            binaries=binaries, home=self.home, crds=_manifests(repository / "crds"), audit_log=audit_log, site=site
        )
        self.squidex = Squidex(self.home, clients=squidex_clients, extra_args=squidex_args, address=site.address)
        self.operators: list[Operator] = []

    def start(self) -> Self:
        """Start all but the operator; raises SandboxError and leaves nothing behind."""
        _ = self.control_plane.binaries
        try:
            self.home.open()
            if self.node is not None:
                self.node.open()
            self.control_plane.start()
            self.squidex.start()
            if self.node is not None:
                self.node.join(self.control_plane)
                for image in self._images:
                    self.node.import_image(image)
            self.control_plane.apply(*_manifests(self.repository / "manifests"))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything. Harmless when repeated."""
        self.home.close()
        self.control_plane.stop()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def has_manifests(self) -> bool:
        """Whether manifests/ has anything in it: without them the operator has no ServiceAccount."""
        return bool(_manifests(self.repository / "manifests"))

    def start_operator(
        self,
        *,
        namespaces: Sequence[str] | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Operator:
        """Start a (further) replica with a token of its own ServiceAccount, and wait until it is ready."""
        number = len(self.operators) + 1
        operator = Operator(
            self.home,
            kubeconfig=self.operator_kubeconfig(),
            source=self.repository / "operator",
            name="operator" if number == 1 else f"operator-{number}",
            namespaces=namespaces,
            extra_args=extra_args,
            env=env,
        )
        self.operators.append(operator)
        operator.start(wait=wait)
        return operator

    def wait_for_deployment(self, timeout: float = 120) -> None:
        """Until the operator's Deployment of manifests/ is ready, on the node; raises SandboxError with its events."""
        where = f"--namespace={NAMESPACE}"
        command = ("rollout", "status", "deployment/squidex-operator", where, f"--timeout={timeout:.0f}s")
        done = self.control_plane.kubectl_run(*command, check=False)
        if done.returncode != 0:
            told = self.control_plane.kubectl_run("describe", "pods", where, check=False).stdout
            raise SandboxError(f"the operator's Deployment is not ready: {done.stderr.strip()}\n{told}")

    def operator_kubeconfig(self) -> Path:
        """What the operator may do, and no more: manifests/ brings the ServiceAccount and its RBAC."""
        path = self.dir / "operator.kubeconfig"
        if not path.exists():
            self.control_plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT, path=path, seconds=TOKEN_SECONDS)
        return path

    def add_namespace(self, name: str, *, client_id: str | None = None) -> str:
        """A namespace with the stand-in's authority and a client's credentials, ready for a SquidexClient.

        The ConfigMap "sandbox-ca" has the authority under `ca.crt`, the Secret "sandbox-credentials" one of
        the stand-in's clients under `clientId` and `clientSecret`.
        """
        chosen = client_id or next(iter(self.squidex.clients))
        if chosen not in self.squidex.clients:
            raise SandboxError(f"the stand-in has no client {chosen}")
        credentials = {"clientId": chosen, "clientSecret": self.squidex.clients[chosen]}
        objects = [
            _object("Namespace", name, None),
            _object("ConfigMap", CA_CONFIG_MAP, name) | {"data": {"ca.crt": self.squidex.ca}},
            _object("Secret", CREDENTIALS, name) | {"stringData": credentials},
        ]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.control_plane.kubectl_run("apply", "--server-side", "-f", "-", input=text)
        return name


def _object(kind: str, name: str, namespace: str | None) -> dict[str, object]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def _manifests(folder: Path) -> list[Path]:
    """The folder, if it holds anything to apply."""
    return [folder] if any(folder.glob("*.yaml")) else []
