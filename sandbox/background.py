"""The sandbox that `make sandbox` leaves running: one for each user, found again by its state file.

The process that owns it holds a lock as long as it lives, however it ends; so a state file without a held
lock is that of a crashed one, and a pid that now belongs to somebody else is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import places
from sandbox.errors import AlreadyRunning, NotRunning, ProgramFailed, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_TIMEOUT = 180.0
END_TIMEOUT = 30.0


@dataclass(frozen=True)
class State:
    """How to reach a running sandbox; `operator_log` is empty where no operator runs beside it, `node` where there is none."""

    pid: int
    dir: str
    kubeconfig: str
    kubectl: str
    api_url: str
    squidex_url: str
    squidex_ca: str
    operator_kubeconfig: str
    operator_log: str
    node: str = ""


def state_file() -> Path:
    """What a running sandbox says about itself."""
    return places.state() / "sandbox.json"


def log_file() -> Path:
    """What its owner prints."""
    return places.state() / "sandbox.log"


def _lock_file() -> Path:
    return places.state() / "sandbox.lock"


@contextlib.contextmanager
def owning() -> Iterator[None]:
    """Hold the lock of the background sandbox; raises AlreadyRunning."""
    places.state().mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock_file().open("a+") as lock:

        def locked() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not _wait(locked, 1):  # `owner()` may hold it for an instant
            raise AlreadyRunning("a sandbox runs in the background already")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def owner() -> int | None:
    """The pid of the process that holds the lock, None when nobody does."""
    try:
        with _lock_file().open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def write(state: State) -> None:
    """Publish the state, whole or not at all."""
    path = state_file()
    temporary = path.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(asdict(state), indent=2))
    temporary.replace(path)


def read() -> State | None:
    """The published state, of a running or of a crashed sandbox."""
    try:
        content: dict[str, Any] = json.loads(state_file().read_text())
        return State(**content)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def forget() -> None:
    """Withdraw the state."""
    state_file().unlink(missing_ok=True)


def running() -> State | None:
    """The state of a sandbox whose owner lives."""
    return read() if owner() is not None else None


def start(arguments: list[str]) -> State:
    """Start an owner in the background and wait until it has published its state; raises SandboxError."""
    places.state().mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep()
    with log_file().open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "up", "--owner", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=places.REPOSITORY,
            start_new_session=True,
        )
    try:
        _wait(lambda: read() is not None or process.poll() is not None, START_TIMEOUT)
        state = running()
        if state is None:
            raise ProgramFailed("the sandbox", "did not start", tail=log_file().read_text().strip(), log=log_file())
    except BaseException:  # Ctrl-C as well: nothing half-started stays
        process.terminate()
        process.wait()
        raise
    process.returncode = 0  # it goes on without us: no warning about that when this object goes
    return state


def wait_for_start() -> State:
    """Wait for somebody else's start that is under way."""
    _wait(lambda: read() is not None or owner() is None, START_TIMEOUT)
    state = running()
    if state is None:
        raise NotRunning("the start of the sandbox that was under way has failed; try again")
    return state


def stop() -> str:
    """End the background sandbox and wait until it is gone; returns what was done, raises NotRunning."""
    pid, state = owner(), read()
    if pid is None:
        if state is None:
            raise NotRunning("no sandbox runs in the background")
        _sweep()
        return f"the sandbox had ended without cleaning up; removed {state.dir}"
    os.kill(pid, signal.SIGTERM)
    if not _wait(lambda: owner() != pid, END_TIMEOUT):
        os.kill(pid, signal.SIGKILL)  # its guard cleans up
        _wait(lambda: owner() != pid, END_TIMEOUT)
    if state is not None and not _wait(lambda: not Path(state.dir).exists(), END_TIMEOUT):
        raise SandboxError(f"process {pid} is gone, but its folder {state.dir} is still there")
    forget()
    return f"the sandbox (process {pid}) has ended; all its processes and its folder are gone"


def _sweep() -> None:
    """Remove what a crashed owner left."""
    state = read()
    if state is not None and owner() is None:
        shutil.rmtree(state.dir, ignore_errors=True)
        forget()


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
