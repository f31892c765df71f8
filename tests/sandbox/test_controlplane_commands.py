"""`python -m sandbox up`, `up --detach`, `down`: as their user sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 60.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def home() -> Iterator[Path]:
    """$TMPDIR and the state of this test alone; whatever it left running is ended."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sq") as folder:
        (Path(folder) / "tmp").mkdir()
        yield Path(folder)
        command(Path(folder), "down")


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    env = {**os.environ, "XDG_STATE_HOME": f"{home}/state", "TMPDIR": f"{home}/tmp", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "sandbox", *args],
        cwd=home,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(home: Path, *args: str) -> tuple[int, str, str]:
    """Run to the end: (exit code, output, errors)."""
    process = start(home, *args)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def nothing_left(home: Path) -> bool:
    done = subprocess.run(["ps", "-ww", "-eo", "stat=,args="], capture_output=True, text=True, check=True)
    alive = [line for line in done.stdout.splitlines() if f"{home}/tmp" in line and not line.startswith("Z")]
    return not alive and not any((home / "tmp").iterdir())


def test_a_sandbox_in_the_background_from_start_to_end(home: Path) -> None:
    code, help_text, err = command(home, "up", "--detach")
    assert code == 0, err
    assert "usually 5 seconds" in err
    exports = dict(re.findall(r"^ *export (\w+)=(\S+)", help_text, re.MULTILINE))
    kubectl = exports["PATH"].removesuffix(":$PATH") + "/kubectl"
    names = subprocess.run(
        [kubectl, "get", "configmap,secret", "-o", "name"],
        env={**os.environ, "KUBECONFIG": exports["KUBECONFIG"], "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "configmap/sandbox-ca" in names
    assert "secret/sandbox-credentials" in names
    assert "Squidex   https://127.0.0.1:" in help_text
    assert "make sandbox-down" in help_text

    assert command(home, "up", "--detach") == (0, "A sandbox runs already.\n\n" + help_text, "")
    assert command(home, "status") == (0, help_text, "")

    code, out, _ = command(home, "down")
    assert (code, "all its processes and its folder are gone" in out) == (0, True)
    assert nothing_left(home)
    assert command(home, "down") == (0, "no sandbox runs in the background\n", "")
    assert command(home, "status") == (0, "no sandbox runs in the background\n", "")


def test_a_crashed_sandbox_is_cleaned_up(home: Path) -> None:
    code, _, err = command(home, "up", "--detach")
    assert code == 0, err
    state = json.loads((home / "state" / "squidex-operator" / "sandbox.json").read_text())
    os.kill(state["pid"], signal.SIGKILL)
    wait_for(lambda: nothing_left(home), "its guard has cleaned up")
    code, out, _ = command(home, "down")
    assert (code, out) == (0, f"the sandbox had ended without cleaning up; removed {state['dir']}\n")
    assert not (home / "state" / "squidex-operator" / "sandbox.json").exists()


def test_a_sandbox_in_the_foreground_ends_with_ctrl_c(home: Path) -> None:
    process = start(home, "up")
    assert process.stdout is not None
    assert "Kubernetes" in process.stdout.readline()
    while (line := process.stdout.readline()) and not line.startswith("The end"):
        pass
    assert line == "The end   Ctrl-C\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert err.endswith("ended\n")
    assert process.returncode == 130
    assert nothing_left(home)


def test_a_start_in_the_background_that_is_interrupted_leaves_nothing(home: Path) -> None:
    process = start(home, "up", "--detach")
    wait_for(lambda: any((home / "tmp").glob("*/logs/kube-apiserver.log")), "it starts the API server")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert nothing_left(home)
    assert command(home, "down") == (0, "no sandbox runs in the background\n", "")


def test_a_start_that_fails_shows_why(home: Path) -> None:
    assets = home / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
        (assets / name).write_text("#!/bin/sh\necho disk on fire\nexit 7\n")
        (assets / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBEBUILDER_ASSETS", str(assets))
        for arguments in (["up"], ["up", "--detach"]):
            code, _, err = command(home, *arguments)
            assert code == 1
            assert "| disk on fire" in err
            assert "Traceback" not in err
    assert nothing_left(home)


def test_a_program_that_ends_by_itself_ends_the_sandbox(home: Path) -> None:
    process = start(home, "up")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("The end"):
        pass
    (folder,) = (home / "tmp").iterdir()
    done = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    (etcd,) = [line.split()[0] for line in done.stdout.splitlines() if f"--data-dir={folder}/etcd" in line]
    os.kill(int(etcd), signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "etcd ended by itself with code -9" in err
    assert nothing_left(home)
