"""How a control plane starts and ends: side by side, on a port that is taken, cut off, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox import binaries
from sandbox.binaries import PROGRAMS, Binaries
from sandbox.controlplane import ControlPlane, plane
from sandbox.controlplane.ports import HeldPort
from sandbox.errors import ProgramFailed
from sandbox.places import REPOSITORY
from sandbox.processes import Household, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 30.0
OWNER = """\
from sandbox.controlplane import ControlPlane
with ControlPlane() as cp:
    print("ready", flush=True)
    input()
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def processes_in(folder: Path) -> list[str]:
    """The command lines that name a folder."""
    done = subprocess.run(["ps", "-ww", "-eo", "stat=,args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(folder) in line and not line.startswith("Z")]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A $TMPDIR of its own (and a short one, for sockets): what is left in it has been left behind."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sq") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder).resolve()


def nothing_left(temporary: Path) -> bool:
    return not any(temporary.iterdir()) and not processes_in(temporary)


def script(folder: Path, **programs: str) -> Binaries:
    """Programs of ours: shell scripts."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n" + programs.get(name.replace("-", "_"), "exec sleep 600") + "\n")
        (folder / name).chmod(0o755)
    return Binaries(folder)


def start_owner() -> subprocess.Popen[str]:
    """A process of its own that holds a control plane."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_side_by_side_do_not_meet(temporary: Path) -> None:
    planes = [ControlPlane(), ControlPlane()]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ControlPlane.start, planes))
        first, second = planes
        assert first.port != second.port
        assert first.dir != second.dir
        first.kubectl_run("create", "namespace", "only-here")
        assert "only-here" not in second.kubectl_run("get", "namespaces", "-o", "name").stdout
        refused = second.kubectl_run("get", "namespaces", f"--server={first.url}", check=False)
        assert "certificate signed by unknown authority" in refused.stderr
        first.stop()
        assert second.get("/readyz")[0] == 200
    finally:
        for each in planes:
            each.stop()
    assert nothing_left(temporary)


def test_sigkill_of_the_owner_leaves_no_process_and_no_folder(temporary: Path) -> None:
    owner = start_owner()
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    for name in PROGRAMS[:3]:
        assert any(name in line for line in processes_in(temporary))
    owner.kill()
    owner.communicate()
    wait_for(lambda: nothing_left(temporary), "all programs and the folder are gone")


@pytest.mark.parametrize("program", ["etcd", "kube-apiserver", "kube-controller-manager"])
def test_ctrl_c_while_a_program_starts_leaves_nothing(temporary: Path, program: str) -> None:
    owner = start_owner()
    wait_for(lambda: any(temporary.glob(f"*/logs/{program}.log")), f"{program} is being started")
    owner.send_signal(signal.SIGINT)
    out, _ = owner.communicate(timeout=DEADLINE)
    assert (out, owner.returncode) == ("", -signal.SIGINT)
    assert nothing_left(temporary)


def interrupting(step: Callable[..., object]) -> Callable[..., object]:
    """The step, and a Ctrl-C right after it."""

    def interrupted(*args: object, **kwargs: object) -> object:
        step(*args, **kwargs)
        raise KeyboardInterrupt

    return interrupted


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (Household, "_open"),
        (Household, "open"),
        (ControlPlane, "_write_files"),
        (ControlPlane, "_make_programs"),
        (Program, "_spawn"),
        (Program, "start"),
        (ControlPlane, "_write_kubeconfigs"),
    ],
)
def test_ctrl_c_between_two_steps_leaves_nothing(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    programs = script(tmp_path / "bin")
    monkeypatch.setattr(owner, step, interrupting(getattr(owner, step)))
    with pytest.raises(KeyboardInterrupt):
        ControlPlane(binaries=programs).start()
    assert nothing_left(temporary)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("etcd", r"^etcd ended with code 7\nlast lines of etcd:\n  \| disk on fire\nwhole log: "),
        ("kube_apiserver", r"^kube-apiserver ended with code 7 before a yes from /readyz\nlast lines of kube-apis"),
    ],
)
def test_a_program_that_fails_is_named_with_its_last_lines_and_its_log(
    temporary: Path, tmp_path: Path, name: str, message: str
) -> None:
    programs = script(tmp_path / "bin", **{name: "echo disk on fire; exit 7"})
    with pytest.raises(ProgramFailed, match=message) as caught:
        ControlPlane(binaries=programs).start()
    assert caught.value.log is not None
    assert caught.value.log.read_text() == "disk on fire\n"
    assert nothing_left(temporary)


def test_a_start_that_takes_too_long_is_given_up(temporary: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="a yes from /readyz is still missing"):
        ControlPlane(binaries=script(tmp_path / "bin"), timeout=0.3).start()
    assert nothing_left(temporary)


def test_a_port_that_was_taken_in_between_is_changed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken: int = stranger.getsockname()[1]

        class FirstTaken(HeldPort):
            tries = 0

            def __init__(self, address: str, number: int) -> None:
                super().__init__(address, number)
                FirstTaken.tries += 1
                if FirstTaken.tries == 1:
                    self.number = taken

        monkeypatch.setattr(plane, "HeldPort", FirstTaken)
        with ControlPlane() as cp:
            assert cp.port != taken
            assert cp.kubectl_run("get", "namespaces").returncode == 0
            assert "address already in use" in cp.apiserver.log.read_text()
        assert FirstTaken.tries == 2


def test_a_held_port_is_given_to_nobody_else() -> None:
    held = HeldPort()
    try:
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", held.number))
        others = [HeldPort() for _ in range(200)]
        numbers = {other.number for other in others}
        for other in others:
            other.release()
        assert len(numbers) == 200
        assert held.number not in numbers
    finally:
        held.release()


def test_a_temporary_folder_too_long_for_sockets_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "long" * 30)
    assert Household().dir.parent == Path("/tmp")


def test_the_programs_are_looked_for_before_anything_is_made(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Binaries:
        raise KeyboardInterrupt  # during a build

    monkeypatch.setattr(binaries, "find", nothing)
    with pytest.raises(KeyboardInterrupt):
        ControlPlane().start()
    assert nothing_left(temporary)
