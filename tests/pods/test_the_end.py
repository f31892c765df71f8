"""`make node` as its user sees it: what it leaves running, how it ends, and that nothing of it is left then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.errors import BinariesNotFound, ImageUnavailable, NodeUnavailable
from sandbox.node import preparation
from sandbox.node.cell import KERNEL_SETTINGS
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 120.0
FIREWALL = (("iptables-save",), ("nft", "list", "ruleset"))


@pytest.fixture(scope="module", autouse=True)
def _prepared(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--kubeconfig", default=None):
        pytest.skip("these are about the sandbox's own node")
    try:
        preparation.prepare()
    except (NodeUnavailable, ImageUnavailable, BinariesNotFound) as error:
        pytest.skip(" ".join(str(error).split()))


@pytest.fixture
def home() -> Iterator[Path]:
    """$TMPDIR and the state of this test alone: the node of another test or of this machine's user is not looked at."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sq") as folder:
        (Path(folder) / "tmp").mkdir()
        yield Path(folder)
        subprocess.run([*COMMAND, "down"], env=environment(Path(folder)), cwd=folder, capture_output=True, check=False)


COMMAND = (sys.executable, "-W", "error", "-m", "sandbox")


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "XDG_STATE_HOME": f"{home}/state",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "TMPDIR": f"{home}/tmp",
        "PYTHONPATH": str(REPOSITORY),
    }


def wait_for(condition: Callable[[], Any], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Traces:
    """What there is of the node whose folder is below `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kernel = {path: Path(path).read_text() for path in KERNEL_SETTINGS if Path(path).exists()}
        self.firewall = [self._say(*command) for command in FIREWALL]
        self.network = ""

    def look(self) -> None:
        """Remember the node's addresses while it is there."""
        (folder,) = (self.home / "tmp").glob("squidex-node-*")
        found = re.search(r"https://(\d+\.\d+\.\d+)\.\d+:443", (folder / "admin.kubeconfig").read_text())
        assert found
        self.network = found[1]

    def all(self) -> list[str]:
        """Everything that is there."""
        traces = [
            f"process {line}"
            for line in self._say("ps", "-eww", "-o", "pid,args").splitlines()
            if str(self.home) in line
        ]
        if self.network:
            lines = (self._say("ip", "-4", "address") + self._say("ip", "-4", "route")).splitlines()
            traces += [line for line in lines if f"{self.network}." in line]
        traces += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.home) in line]
        folders = [path.name for path in (self.home / "tmp").iterdir()]
        traces += folders
        traces += [str(path) for name in folders for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
        traces += [path for path, value in self.kernel.items() if Path(path).read_text() != value]
        return traces

    def assert_firewall_unchanged(self) -> None:
        assert [self._say(*command) for command in FIREWALL] == self.firewall

    @staticmethod
    def _say(*command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return re.sub(r"\[\d+:\d+\]|^#.*$", "", done.stdout, flags=re.MULTILINE)  # counters and times of iptables-save


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *args],
        cwd=home,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_runs_detached_until_it_is_ended(home: Path) -> None:
    traces = Traces(home)
    process = start(home, "node", "--detach")
    told, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, told
    traces.look()
    assert len(traces.all()) > 20, "the test sees what there is"
    kubeconfig = re.search(r"KUBECONFIG=(\S+)", told)
    assert kubeconfig
    kubectl = re.search(r"PATH=(\S+):\$PATH", told)
    assert kubectl
    command = [f"{kubectl[1]}/kubectl", f"--kubeconfig={kubeconfig[1]}", "--namespace=squidex-operator"]
    rows = subprocess.run([*command, "get", "pods", "--no-headers"], capture_output=True, text=True, check=True)
    assert re.match(r"squidex-operator-\S+ +1/1 +Running", rows.stdout)
    (archive,) = (home / "tmp").glob("squidex-node-*/node/pause.tar")
    loaded = start(home, "image", str(archive))
    assert loaded.communicate(timeout=DEADLINE)[0] == f"the node has the images of {archive}\n"
    ended = subprocess.run(
        [*COMMAND, "down"], cwd=home, env=environment(home), capture_output=True, text=True, check=True
    )
    assert "all its processes and its folder are gone" in ended.stdout
    wait_for(lambda: not traces.all(), traces.all)
    traces.assert_firewall_unchanged()


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, "containerd.log"),  # Ctrl-C while it starts
        (signal.SIGINT, ""),
        (signal.SIGKILL, ""),
    ],
    ids=["Ctrl-C at the start", "Ctrl-C", "a SIGKILL"],
)
def test_nothing_is_left(home: Path, number: int, when: str) -> None:
    traces = Traces(home)
    process = start(home, "node")
    try:
        if when:
            wait_for(lambda: list((home / "tmp").glob(f"squidex-node-*/logs/{when}")), lambda: f"no {when}")
        else:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("The end"):
                    break
        traces.look()
        assert len(traces.all()) > 10, "the test sees what there is"
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: not traces.all(), traces.all)
    traces.assert_firewall_unchanged()
