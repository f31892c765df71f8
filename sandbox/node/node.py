"""The node as one object: containerd and kubelet in a cell, the scheduler beside the control plane."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import packages
from sandbox.binaries.progress import say
from sandbox.errors import SandboxError
from sandbox.node import archive, binaries, cgroups, conditions, files, network
from sandbox.node.cell import HOSTNAME, Cell

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from sandbox.controlplane import ControlPlane
    from sandbox.node.binaries import NodeBinaries
    from sandbox.processes import Household, Program

READY_TIMEOUT = 120.0
CRI = "k8s.io"
"""containerd's name for the images and containers of Kubernetes."""


class Node:
    """Lives in a household, which ends it.

    `open` makes its addresses, which the control plane needs; `join` lets it register there.
    """

    name = HOSTNAME

    def __init__(self, home: Household, *, programs: NodeBinaries | None = None, sync_frequency: str = "10s") -> None:
        """Find or get what it needs, which may take minutes; nothing runs yet. Raises NodeUnavailable.

        `sync_frequency` is the kubelet's: how often it looks at a pod that nothing happens to. Its own default
        is 1m, and a changed Secret takes up to that long to be seen.
        """
        conditions.prepare()
        self.programs = programs or binaries.find()
        self.home = home
        self.network = network.choose()
        self.cell = Cell(home)
        self.dir = home.dir / "node"
        self.files = files.Files(self.dir)
        self._sync_frequency = sync_frequency

    def open(self) -> None:
        """Make the cell and its link; raises NodeUnavailable where the machine does not have what that takes."""
        for name in sweep():
            say(f"removed what a node that was killed had left: {name}")
        try:
            self.cell.start()
            self.network.connect(self.cell)
        except SandboxError as error:
            raise conditions.unavailable(f"this machine lacks something for it: {error}") from error

    def join(self, plane: ControlPlane) -> None:
        """Start containerd, kubelet and scheduler, and wait until the node is ready; raises ProgramFailed."""
        self.plane = plane
        self.dir.mkdir()
        pki = self.dir / "pki"
        pki.mkdir()
        plane.authority.serving([HOSTNAME, self.network.node]).write(pki, "kubelet")
        shutil.copy(plane.ca_file, pki / "ca.crt")
        runc = Path(packages.which("runc") or "runc")
        self.files.write(self.programs, self.network, runc=runc, pki=pki, sync_frequency=self._sync_frequency)
        self._start_containerd()
        self._start_kubelet()
        self._start_scheduler()
        self.wait_ready()

    def _start_containerd(self) -> None:
        command: list[str | Path] = [self.programs["containerd"], f"--config={self.files.containerd}"]
        self.containerd = self.cell.program_inside("containerd", command)
        self.containerd.start()
        self.containerd.wait_until(
            lambda: self.ctr("version", check=False).returncode == 0, timeout=READY_TIMEOUT, what="an answer"
        )
        pause = archive.of_program(
            self.programs["pause"], self.dir / "pause.tar", name=files.PAUSE, architecture=_architecture()
        )
        self.import_image(pause)

    def _start_kubelet(self) -> None:
        kubeconfig = self.plane.certificate_kubeconfig("kubelet", f"system:node:{HOSTNAME}", ["system:nodes"])
        command: list[str | Path] = [
            self.programs["kubelet"],
            f"--config={self.files.kubelet}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={self.files.kubelet_root}",
            f"--hostname-override={HOSTNAME}",
            f"--node-ip={self.network.node}",
        ]
        self.kubelet = self.cell.program_inside("kubelet", command)
        self.kubelet.start()

    def _start_scheduler(self) -> None:
        kubeconfig = self.plane.certificate_kubeconfig("scheduler", "system:kube-scheduler")
        self.scheduler = self.home.program(
            "kube-scheduler",
            [
                self.programs["kube-scheduler"],
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            env={"GOGC": "50"},
        )
        self.scheduler.start()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Until the node may be given pods; raises ProgramFailed."""
        self.kubelet.wait_until(self._is_ready, timeout=timeout, what="the node's condition Ready")

    def _is_ready(self) -> bool:
        status, body = self.plane.get(f"/api/v1/nodes/{HOSTNAME}")
        if status != 200:
            return False
        found: dict[str, Any] = json.loads(body)
        conditions_ = {row["type"]: row["status"] for row in found["status"].get("conditions", [])}
        return conditions_.get("Ready") == "True" and not found["spec"].get("taints")

    def restart_kubelet(self) -> None:
        """As an upgrade of it does: pods go on running."""
        self.kubelet.stop()
        self.kubelet.start()
        self.wait_ready()

    @property
    def programs_running(self) -> list[Program]:
        """What must not end by itself."""
        return [self.cell.program, self.containerd, self.kubelet, self.scheduler]

    def ctr(self, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run containerd's client in the node, for the containers of Kubernetes."""
        return self.cell.run(*ctr_command(self.programs, *args), check=check)

    def import_image(self, image: Path) -> None:
        """Load an archive as `docker save` and `buildah push docker-archive:` write it."""
        self.ctr("images", "import", image)

    def images(self) -> list[str]:
        """The names of the images that are there."""
        return [name for name in self.ctr("images", "list", "--quiet").stdout.split() if not name.startswith("sha256:")]

    def kill_container(self, container_id: str) -> None:
        """End a container's first process with SIGKILL, as the kernel does when it runs out of memory.

        `container_id` is that of the pod's status: "containerd://…".
        """
        self.ctr("tasks", "kill", "--signal=SIGKILL", container_id.removeprefix("containerd://"))

    @contextlib.contextmanager
    def kubelet_stopped(self) -> Iterator[None]:
        """Without a kubelet for a while."""
        self.kubelet.stop()
        try:
            yield
        finally:
            self.kubelet.start()
            self.wait_ready()


def ctr_command(programs: NodeBinaries, *args: str | Path) -> list[str | Path]:
    """The command line of containerd's client, for the cell."""
    return [programs["ctr"], f"--address={files.SOCKET}", f"--namespace={CRI}", *args]


def import_command(image: Path) -> list[str | Path]:
    """The command line that loads an image, for the cell."""
    return ctr_command(binaries.find(), "images", "import", image)


def _architecture() -> str:
    from sandbox.binaries.settings import Settings

    return Settings().architecture


def sweep() -> list[str]:
    """Remove what nodes left whose owner and guard were killed at once: cgroups and folders; returns their names."""
    import tempfile

    names = set(cgroups.sweep())
    for folder in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for left in folder.glob(f"{cgroups.PREFIX}-*"):
            owner = cgroups.owner_of(left.name)
            if owner is not None and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(left, ignore_errors=True)
                names.add(left.name)
    return sorted(names)
