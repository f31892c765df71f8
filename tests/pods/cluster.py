"""A cluster whose pods run: the sandbox's own, or somebody's that a kubeconfig names; both look the same to a test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import binaries, images
from sandbox.binaries.model import missing
from sandbox.binaries.settings import Settings
from sandbox.environment import Sandbox
from sandbox.errors import SandboxError, said
from sandbox.node import preparation
from sandbox.operator_process import NAMESPACE
from sandbox.places import REPOSITORY
from sandbox.standin import Squidex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from sandbox.node.node import Node
    from sandbox.processes import Household

DEADLINE = 120.0
"""Seconds to wait for something that takes a pod seconds: only what is broken needs them."""
PAUSE = 0.1
HTTP_OK, HTTP_NOT_FOUND = 200, 404

Object = dict[str, Any]


class ForeignPlane:
    """Somebody's API server, as far as tests ask a ControlPlane of the sandbox."""

    def __init__(self, kubeconfig: Path) -> None:
        self.admin_kubeconfig = kubeconfig
        folder = Settings().programs
        found = shutil.which("kubectl") or (str(folder / "kubectl") if not missing(folder, ["kubectl"]) else None)
        self.kubectl = found or str(binaries.find().kubectl)

    def kubectl_run(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002  (as subprocess.run calls it)
        check: bool = True,
    ) -> CompletedProcess[str]:
        """Run kubectl; raises SandboxError if `check`."""
        command = [self.kubectl, f"--kubeconfig={self.admin_kubeconfig}", *map(str, args)]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise SandboxError(f"kubectl {' '.join(map(str, args))}: {said(done)}")
        return done

    def get(self, path: str, *, timeout: float = 10) -> tuple[int, bytes]:
        """GET a path: (status, body)."""
        done = self.kubectl_run("get", "--raw", path, f"--request-timeout={timeout:.0f}s", check=False)
        if done.returncode == 0:
            return HTTP_OK, done.stdout.encode()
        return (HTTP_NOT_FOUND if "NotFound" in done.stderr or "not find" in done.stderr else 0), b""


class Cluster:
    """What the tests of this folder act on.

    `control_plane` has kubectl_run() and get(); `squidex` is the stand-in, at an address that pods and this process reach;
    `node` is the sandbox's node, None in somebody's cluster; `image` is the operator's, as the Deployment calls it.
    """

    def __init__(self, control_plane: Any, squidex: Squidex, *, image: images.Built | None, node: Node | None) -> None:
        self.control_plane = control_plane
        self.squidex = squidex
        self.built = image
        self.node = node

    @property
    def image(self) -> str:
        """An image that has Python and sh, and is there already: the operator's own."""
        container = self.get(NAMESPACE, "deployment", "squidex-operator")["spec"]["template"]["spec"]["containers"][0]
        return str(container["image"])

    def need_node(self) -> Node:
        """The sandbox's node, for what only its owner may do; skips the test in somebody's cluster."""
        if self.node is None:
            pytest.skip("this takes the node itself, and the cluster is somebody's (KUBECONFIG)")
        return self.node

    def kubectl(
        self, *args: str | Path, namespace: str = "", text: str | None = None, check: bool = True
    ) -> CompletedProcess[str]:
        """Run kubectl as the administrator."""
        where = [f"--namespace={namespace}"] if namespace else []
        return self.control_plane.kubectl_run(*where, *args, input=text, check=check)

    def apply(self, *objects: Object, namespace: str = "") -> None:
        """kubectl apply."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", text=text, namespace=namespace)

    def find(self, namespace: str, kind: str, name: str) -> Object | None:
        """An object, or None."""
        done = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json", namespace=namespace)
        return dict(json.loads(done.stdout)) if done.stdout.strip() else None

    def get(self, namespace: str, kind: str, name: str) -> Object:
        """An object that must be there."""
        found = self.find(namespace, kind, name)
        assert found is not None, f"{kind} {name} is not there"
        return found

    def pods(self, namespace: str, selector: str = "") -> list[Object]:
        """The pods that are not being deleted."""
        done = self.kubectl("get", "pods", f"--selector={selector}", "-o", "json", namespace=namespace)
        return [pod for pod in json.loads(done.stdout)["items"] if "deletionTimestamp" not in pod["metadata"]]

    def wait(
        self,
        look: Callable[[], Any],
        what: str,
        *,
        namespace: str = "",
        deadline: float = DEADLINE,
        pause: float = PAUSE,
    ) -> Any:
        """Wait until `look` gives something true; that. What the namespace's pods are doing is told otherwise."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(pause)
        told = self.kubectl("describe", "pods", namespace=namespace, check=False).stdout if namespace else ""
        raise AssertionError(f"waited {deadline:g} s in vain for {what}\n{told}")

    def wait_pod(self, namespace: str, name: str, *, phase: str = "", deadline: float = DEADLINE) -> Object:
        """Wait until a pod is Ready or, with a `phase`, in it; the pod."""

        def look() -> Object | None:
            pod = self.find(namespace, "pod", name)
            return pod if pod is not None and (pod["status"]["phase"] == phase if phase else is_ready(pod)) else None

        return self.wait(look, f"pod {name} to be {phase or 'ready'}", namespace=namespace, deadline=deadline)

    def exec(self, namespace: str, pod: str, *command: str, container: str = "", check: bool = True) -> str:
        """Run a program in a pod; what it says."""
        which = [f"--container={container}"] if container else []
        return self.kubectl("exec", pod, *which, "--", *command, namespace=namespace, check=check).stdout

    def logs(self, namespace: str, pod: str, *args: str) -> str:
        """What a pod, or "deployment/…", has said."""
        return self.kubectl("logs", pod, *args, namespace=namespace).stdout

    def import_image(self, archive: Path) -> None:
        """Load an image as `docker save` writes it; into somebody's cluster only where that is kind."""
        if self.node is not None:
            self.node.import_image(archive)
            return
        context = self.kubectl("config", "current-context").stdout.strip()
        if not context.startswith("kind-") or shutil.which("kind") is None:
            pytest.skip(f"an image cannot be loaded into the cluster {context}: that is known for kind only")
        command = ["kind", "load", "image-archive", str(archive), "--name", context.removeprefix("kind-")]
        subprocess.run(command, check=True, capture_output=True)

    def operator_pod(self) -> Object | None:
        """The operator's pod while there is exactly one that is ready."""
        found = self.pods(NAMESPACE, "app.kubernetes.io/name=squidex-operator")
        return found[0] if len(found) == 1 and is_ready(found[0]) else None

    def wait_for_operator(self, *, other_than: Object | None = None) -> Object:
        """Wait for the operator's one pod to be ready; that pod, other than an earlier one."""
        old = other_than["metadata"]["uid"] if other_than else ""

        def look() -> Object | None:
            pod = self.operator_pod()
            return pod if pod is not None and pod["metadata"]["uid"] != old else None

        return self.wait(look, "the operator's pod to be ready", namespace=NAMESPACE)


def is_ready(pod: Object) -> bool:
    """Whether a pod's condition Ready is True."""
    return any(row["type"] == "Ready" and row["status"] == "True" for row in pod["status"].get("conditions", []))


def sandbox_with_a_node() -> tuple[Sandbox, images.Built]:
    """The sandbox's own cluster, and the operator's image for it; raises what preparation.prepare() does."""
    built = preparation.prepare()
    return Sandbox(node=True, images=[built.archive]), built


def foreign(kubeconfig: Path, home: Household) -> Cluster:
    """Somebody's cluster: the operator gets installed in it, and a stand-in runs on this machine."""
    plane = ForeignPlane(kubeconfig)
    nodes = json.loads(plane.kubectl_run("get", "nodes", "-o", "json").stdout)["items"]
    addresses = [row["address"] for row in nodes[0]["status"]["addresses"] if row["type"] == "InternalIP"]
    squidex = Squidex(home, address=_address_towards(addresses[0]))
    squidex.start()
    return Cluster(plane, squidex, image=None, node=None)


def _address_towards(host: str) -> str:
    """This machine's address as somebody there sees it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def install(cluster: Cluster) -> None:
    """Install the operator as README says, in somebody's cluster."""
    cluster.kubectl("apply", "--server-side", "-k", REPOSITORY / "manifests")
