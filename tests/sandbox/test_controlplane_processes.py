"""Programs end with their owner, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.errors import ProgramFailed
from sandbox.places import REPOSITORY
from sandbox.processes import Household

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 20.0
SLEEP = ["sleep", "600"]
OWNER = """\
from sandbox.processes import Household
with Household() as home:
    program = home.program("sleeper", ["sleep", "600"])
    program.start()
    print(home.dir, program.pid, home._guard.pid, flush=True)
    input()
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit code yet (state Z)."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] in ("", "Z")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Household]:
    with Household(keep_logs=tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
def owner() -> Iterator[tuple[subprocess.Popen[str], Path, int, int]]:
    """Another process with a household: (process, folder, pid of the program, pid of the guard)."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    folder, program, guard = process.stdout.readline().split()
    yield process, Path(folder), int(program), int(guard)
    process.kill()
    process.communicate()


def test_the_folder_is_for_this_user_alone_and_goes(tmp_path: Path) -> None:
    with Household() as home:
        assert home.dir.stat().st_mode & 0o777 == 0o700
        program = home.program("sleeper", SLEEP)
        program.start()
        pid = program.pid
        assert pid is not None
    assert not home.dir.exists()
    assert gone(pid)
    home.close()  # harmless when repeated


def test_a_household_can_be_opened_again(tmp_path: Path) -> None:
    home = Household()
    for _ in range(2):
        with home:
            assert home.dir.exists()
        assert not home.dir.exists()


def test_a_program_runs_again_after_kill_and_stop(home: Household) -> None:
    program = home.program("sleeper", SLEEP)
    program.start()
    first = program.pid
    program.kill()
    assert (program.alive, program.pid, program.returncode) == (False, None, -signal.SIGKILL)
    program.start()
    assert program.pid not in (None, first)
    assert program.stop() == -signal.SIGTERM
    program.kill()  # harmless


def test_a_program_that_ignores_sigterm_is_killed(home: Household) -> None:
    program = home.program("stubborn", ["sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 0.05; done'])
    program.start()
    program.wait_until(lambda: "ready" in program.output(), timeout=DEADLINE, what="its trap")
    assert program.stop(timeout=0.2) == -signal.SIGKILL


def test_its_children_end_with_it(home: Household) -> None:
    program = home.program("parent", ["sh", "-c", "sleep 600 & echo $!; wait"])
    program.start()
    program.wait_until(lambda: program.output().strip() != "", timeout=DEADLINE, what="the child's pid")
    child = int(program.output())
    program.kill()
    wait_for(lambda: gone(child), "the child has ended, too")


def test_a_paused_program_can_be_stopped(home: Household) -> None:
    program = home.program("sleeper", SLEEP)
    program.start()
    program.pause()
    wait_for(lambda: _state(program.pid) == "T", "it is frozen")
    program.resume()
    wait_for(lambda: _state(program.pid) == "S", "it goes on")
    program.pause()
    assert program.stop() == -signal.SIGTERM


def _state(pid: int | None) -> str:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout[:1]


def test_output_is_that_of_the_last_run(home: Household) -> None:
    program = home.program("echo", ["sh", "-c", "echo one; echo two"])
    program.start()
    assert program.wait(DEADLINE) == 0
    program.argv = ["sh", "-c", "echo three"]
    program.start()
    program.wait(DEADLINE)
    assert program.output() == "three\n"
    assert program.log.read_text() == "one\ntwo\nthree\n"


def test_a_failure_shows_the_last_lines_and_a_log_that_outlives_the_folder(tmp_path: Path) -> None:
    with Household(keep_logs=tmp_path / "kept") as home:
        program = home.program("broken", ["sh", "-c", "echo early; echo cannot work; exit 3"])
        program.start()
        with pytest.raises(ProgramFailed) as caught:
            program.wait_until(lambda: False, timeout=DEADLINE, what="a miracle")
    message = str(caught.value)
    assert "broken ended with code 3 before a miracle" in message
    assert "  | cannot work" in message
    assert caught.value.log == tmp_path / "kept" / "broken.log"
    assert caught.value.log.read_text() == "early\ncannot work\n"


def test_what_does_not_come_is_given_up_at_the_deadline(home: Household) -> None:
    program = home.program("sleeper", SLEEP)
    program.start()
    with pytest.raises(ProgramFailed, match="a miracle is still missing"):
        program.wait_until(lambda: False, timeout=0.1, what="a miracle")


def test_a_program_outlives_the_thread_that_asked_for_it(home: Household) -> None:
    # Linux's parent death signal is about the parent thread.
    program = home.program("sleeper", SLEEP)
    thread = threading.Thread(target=program.start)
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.2)


def test_sigkill_of_the_owner_leaves_nothing(owner: tuple[subprocess.Popen[str], Path, int, int]) -> None:
    process, folder, program, guard = owner
    process.kill()
    wait_for(lambda: gone(program), "the program has ended")
    wait_for(lambda: not folder.exists(), "the folder is gone")
    wait_for(lambda: gone(guard), "the guard has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="a promise of Linux's kernel")
def test_sigkill_of_owner_and_guard_together_leaves_no_program(
    owner: tuple[subprocess.Popen[str], Path, int, int],
) -> None:
    process, folder, program, guard = owner
    os.kill(guard, signal.SIGSTOP)  # it sees nothing any more
    process.kill()
    wait_for(lambda: gone(program), "the program has ended")
    os.kill(guard, signal.SIGCONT)
    wait_for(lambda: not folder.exists(), "the folder is gone")


def test_the_terminals_ctrl_c_is_left_to_the_owner(
    owner: tuple[subprocess.Popen[str], Path, int, int],
) -> None:
    process, folder, program, _ = owner
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    process.wait(DEADLINE)
    assert gone(program)
    assert not folder.exists()


def test_a_program_is_not_started_once_the_end_has_begun(home: Household) -> None:
    program = home.program("late", SLEEP)
    home.closing = True
    program.start()
    assert not program.alive
