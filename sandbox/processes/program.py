"""One program of the sandbox: start, stop, kill, pause, start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import ProgramFailed
from sandbox.processes import spawner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox.processes.household import Household

LAUNCHER = Path(__file__).with_name("launch.py")


class Program:
    """A command line with a log file that can be started any number of times, made by `Household.program()`.

    `argv` may be replaced between two starts. All times are seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        home: Household,
        env: Mapping[str, str] | None = None,
        graceful: bool = False,
    ) -> None:
        """Describe the program; nothing runs yet. `env` is added to this process's environment.

        `graceful` says that it deserves a SIGTERM when the household closes; the others have nothing worth
        saving.
        """
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self.env = dict(env or {})
        self.graceful = graceful
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._announced = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the last run ended (negative: the signal), None while it runs or when it never ran."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start it, without waiting for it to be ready."""
        if self.alive:
            raise ProgramFailed(self.name, "already runs")
        self._reap()
        spawner.submit(self._spawn).result()

    def _spawn(self) -> None:
        if self._home.closing:
            return
        fd = self._home.guard_fd
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(fd), str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                cwd=self._home.dir,
                pass_fds=(fd,),
                start_new_session=True,  # a Ctrl-C in the terminal is for the owner alone
            )
            self._announced = True

    def signal(self, number: int) -> None:
        """Send a signal to it and its children, if it runs."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self.wait(30)

    def stop(self, timeout: float = 10) -> int | None:
        """Ask it to end (SIGTERM) and wait; killed after `timeout`. Returns its exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended; raises subprocess.TimeoutExpired."""
        if self._process is None:
            return None
        code = self._process.wait(timeout)
        self._reap()
        return code

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nobody answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused program go on."""
        self.signal(signal.SIGCONT)

    def output(self) -> str:
        """What the current run, or the last one, has written so far."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines of the current or last run, long ones cut."""
        return "\n".join(line[:300] for line in self.output().splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Wait for `ready()`; raises ProgramFailed when the program ends first or the deadline passes."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.alive:
                raise self.failure(f"ended with code {self.returncode} before {what}")
            if time.monotonic() > deadline:
                raise self.failure(f"was not there after {timeout:.0f} s: {what} is still missing")
            time.sleep(0.03)

    def failure(self, why: str) -> ProgramFailed:
        """An error that shows this program's last lines and log."""
        return ProgramFailed(self.name, why, tail=self.tail(), log=self._home.keep_log(self.log))

    def _reap(self) -> None:
        """Tell the guard that the pid is free again, so that it never kills a stranger."""
        if self._announced and self._process is not None and self._process.poll() is not None:
            self._announced = False
            self._home.forget(self._process.pid)
