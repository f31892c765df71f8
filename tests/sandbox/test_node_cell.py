"""The node's namespaces: what runs in them, and that nothing of it is left, whatever ends it. Takes root, and a second each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.errors import SandboxError
from sandbox.node import cgroups
from sandbox.node.cell import KERNEL_SETTINGS, Cell
from sandbox.node.node import sweep
from sandbox.packages import which
from sandbox.places import REPOSITORY
from sandbox.processes import Household

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 20.0
# What a node does in its cell: mounts, interfaces, cgroups, files where others have theirs, processes that left their parent.
BUSY = """
set -e
mkdir /run/volume && mount -t tmpfs volume /run/volume
touch /var/lib/left-behind /var/log/left-behind
ip link add cni0 type bridge && ip link add pod0 type veth peer name pod1
for folder in /sys/fs/cgroup/*/; do mkdir "$folder/k8s.io" "$folder/k8s.io/pod" 2>/dev/null || true; done
setsid sleep 1000 >/dev/null 2>&1 & echo $! > /sys/fs/cgroup/pids/k8s.io/pod/cgroup.procs 2>/dev/null || true
echo ready
"""
OWNER = """
import json, sys, time
from sandbox.processes import Household
from sandbox.node import network
from sandbox.node import cgroups
from sandbox.node.cell import Cell
with Household(prefix="squidex-node") as home:
    cell = Cell(home)
    cell.start()
    net = network.choose()
    net.connect(cell)
    cell.run("sh", "-c", sys.argv[1])
    print(json.dumps({
        "dir": str(home.dir), "pid": cell.pid, "machine": net.machine, "guard": home._guard.pid,
        "cgroups": [str(folder) for folder in cell.cgroups.folders],
    }), flush=True)
    time.sleep(1000)
"""


TRAPPER = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("namespaces take root, and Linux")
    if which("ip") is None:
        pytest.skip("ip (iproute2) is not installed")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--cgroup", "true"], check=False).returncode:
        pytest.skip("this root may not make namespaces")


@pytest.fixture
def home() -> Iterator[Household]:
    with Household(prefix="squidex-node") as opened:
        yield opened


class Busy:
    """An owner whose cell is busy, and what there is of it on the machine."""

    def __init__(self) -> None:
        self.settings = {path: Path(path).read_text() for path in KERNEL_SETTINGS if Path(path).exists()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, BUSY],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = {}
        line: list[str] = []
        reader = threading.Thread(target=lambda: line.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(DEADLINE)
        if not line or not line[0]:
            self.process.terminate()
            pytest.fail("the cell did not start")
        self.facts = json.loads(line[0])
        self.namespace = Path(f"/proc/{self.facts['pid']}/ns/pid").readlink()
        assert len(self.inside()) >= 2

    def inside(self) -> list[int]:
        """The processes of its process namespace."""
        found = []
        for path in Path("/proc").glob("[0-9]*/ns/pid"):
            with contextlib.suppress(OSError):
                if path.readlink() == self.namespace:
                    found.append(int(path.parts[2]))
        return found

    def left(self) -> list[str]:
        """Everything that is still there."""
        addresses = subprocess.run(["ip", "-4", "address"], capture_output=True, text=True, check=True).stdout
        routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
        network = self.facts["machine"].rpartition(".")[0] + "."
        left = [f"process {pid}" for pid in self.inside()]
        left += [line for line in (addresses + routes).splitlines() if network in line]
        left += [folder for folder in [self.facts["dir"], *self.facts["cgroups"]] if Path(folder).exists()]
        left += [line for line in Path("/proc/mounts").read_text().splitlines() if self.facts["dir"] in line]
        left += [path for path in ("/var/lib/left-behind", "/var/log/left-behind") if Path(path).exists()]
        return left + [path for path, value in self.settings.items() if Path(path).read_text() != value]

    def end(self, number: int, *, guard: bool = False) -> None:
        """Signal the owner, perhaps the guard first, and wait for the owner's end."""
        if guard:
            os.kill(self.facts["guard"], signal.SIGKILL)
        self.process.send_signal(number)
        self.process.communicate(timeout=DEADLINE)


@pytest.fixture
def busy() -> Iterator[Busy]:
    made = Busy()
    yield made
    made.process.kill()
    made.process.communicate()


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "a SIGKILL of the owner"])
def test_nothing_is_left(busy: Busy, number: int) -> None:
    assert len(busy.left()) > len(busy.facts["cgroups"]) + 3, "the test sees what there is"
    busy.end(number)
    wait_for(lambda: not busy.left(), busy.left)


def test_the_next_start_removes_what_nobody_could(busy: Busy) -> None:
    busy.end(signal.SIGKILL, guard=True)
    wait_for(lambda: not busy.inside(), busy.inside)
    name = Path(busy.facts["dir"]).name
    wait_for(lambda: all(name in thing for thing in busy.left()), busy.left)  # but for folders, the kernel took it
    assert busy.left()
    wait_for(lambda: name in sweep() or not busy.left(), busy.left)
    assert not busy.left()


def test_the_sweep_touches_no_node_that_lives(busy: Busy) -> None:
    before = busy.left()
    sweep()
    assert busy.left() == before


def test_it_has_its_own_processes_names_and_settings(home: Household) -> None:
    cell = Cell(home)
    cell.start()
    assert cell.run("cat", "/proc/1/cmdline").stdout.split("\0")[3].endswith("inside.py")
    assert cell.run("hostname").stdout == "sandbox-node\n"
    assert cell.run("cat", "/proc/sys/kernel/panic").stdout == "10\n"
    assert set(cell.run("ls", "/sys/class/net").stdout.split()) <= {"lo", "sit0", "tunl0", "ip6tnl0"}
    for line in cell.run("cat", "/proc/self/cgroup").stdout.splitlines():
        assert line.split(":")[2] in {"/", "/init"}


def test_a_program_in_it_is_stopped_as_any_other(home: Household) -> None:
    cell = Cell(home)
    cell.start()
    program = cell.program_inside("trapper", ["sh", "-c", TRAPPER])
    program.start()
    program.wait_until(lambda: "hello" in program.output(), timeout=DEADLINE, what="its greeting")
    assert program.stop() == 7
    assert "bye" in program.output()
    program.start()
    program.wait_until(lambda: "hello" in program.output(), timeout=DEADLINE, what="its greeting")
    program.kill()
    wait_for(lambda: "trap" not in cell.run("ps", "ax").stdout, lambda: cell.run("ps", "ax").stdout)


def test_what_loses_its_parent_is_buried(home: Household) -> None:
    cell = Cell(home)
    cell.start()
    cell.run("sh", "-c", "(sh -c 'true' &) ; (sleep 0.01 &)")
    wait_for(lambda: "<defunct>" not in cell.run("ps", "ax").stdout, lambda: cell.run("ps", "ax").stdout)


def test_a_folder_that_it_would_hide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.node.cell.HIDDEN", ("/tmp",))
    with Household(prefix="squidex-node") as home, pytest.raises(SandboxError, match="TMPDIR must not be below /tmp"):
        Cell(home).start()


def test_it_has_the_one_hierarchy_of_version_2(home: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with both, as far as a hierarchy without controllers can show it."""
    unified = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not unified:
        pytest.skip("no hierarchy of version 2 is mounted")
    hierarchies = cgroups.hierarchies(unified[0])
    monkeypatch.setattr(cgroups, "hierarchies", lambda: hierarchies)
    cell = Cell(home)
    cell.start()
    (folder,) = cell.cgroups.folders
    assert (folder / "init" / "cgroup.procs").read_text().split() == [str(cell.program.pid), str(cell.pid)]
    # A cgroup with processes of its own could not give controllers to those below it.
    assert (folder / "cgroup.procs").read_text() == ""
    assert cell.run("cat", "/proc/self/cgroup").stdout.splitlines()[-1] == "0::/init"
    cell.run("mkdir", "/sys/fs/cgroup/k8s.io")
    assert (folder / "k8s.io").is_dir()
    home.close()
    assert not folder.exists()
