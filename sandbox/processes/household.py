"""A folder, the programs that live in it, and the guard that cleans up after a killed owner."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandbox import places
from sandbox.errors import SandboxError
from sandbox.processes import spawner
from sandbox.processes.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GUARD = Path(__file__).with_name("guard.py")
# A Unix socket's path may have 108 bytes (104 on macOS); ours are put right into the folder.
LONGEST_FOLDER = 80


def choose_folder(prefix: str) -> Path:
    """A name nobody uses; falls back to /tmp where $TMPDIR is too long for Unix sockets."""
    name = f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"
    folder = Path(tempfile.gettempdir()).resolve() / name
    return folder if len(str(folder)) <= LONGEST_FOLDER else Path("/tmp") / name


class Household:
    """Context manager: the folder exists and programs may be started inside; after it, neither is left."""

    def __init__(self, *, prefix: str = "squidex-sandbox", keep_logs: Path | None = None) -> None:
        """Choose a folder (created by `open`); logs of failed programs are copied to `keep_logs`."""
        self.dir = choose_folder(prefix)
        self.closing = False
        self._keep_logs = keep_logs or places.state() / "logs"
        self._guard: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._pipe_lock = threading.Lock()
        self._programs: list[Program] = []

    def open(self) -> Self:
        """Create the folder (for this user only) and start the guard."""
        self.closing = False
        try:
            spawner.submit(self._open).result()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        if self.closing or self._guard is not None:
            return
        self.dir.mkdir(mode=0o700)
        (self.dir / "logs").mkdir()
        read, self._pipe = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(self.dir)],
                stdin=read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(read)

    @property
    def guard_fd(self) -> int:
        """The pipe on which programs announce themselves."""
        if self._pipe < 0:
            raise SandboxError("the sandbox is not open")
        return self._pipe

    def program(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        graceful: bool = False,
    ) -> Program:
        """A program that ends, at the latest, with this household; it is not started yet."""
        log = self.dir / "logs" / f"{name}.log"
        program = Program(name=name, argv=argv, log=log, home=self, env=env, graceful=graceful)
        self._programs.append(program)
        return program

    def end_cgroup(self, folder: Path) -> None:
        """Have a cgroup, and those below it, removed after the programs have ended, whatever ends them."""
        os.write(self.guard_fd, f"{folder}\n".encode())

    def forget(self, pid: int) -> None:
        """The pid has been reaped and may belong to somebody else from now on."""
        with self._pipe_lock, contextlib.suppress(OSError):
            if self._pipe >= 0:
                os.write(self._pipe, b"-%d\n" % pid)

    def keep_log(self, log: Path) -> Path:
        """Copy a log out of the folder, which goes, so that a message can name it."""
        kept = self._keep_logs / log.name
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
        except OSError:
            return log
        return kept

    def close(self) -> None:
        """End the programs, the graceful ones first, and remove the folder. Harmless when repeated."""
        self.closing = True
        spawner.submit(lambda: None).result()  # a start that was under way is finished, no other one begins
        for program in reversed(self._programs):
            if program.graceful:
                program.stop()
        for program in self._programs:
            program.signal(signal.SIGKILL)
        for program in self._programs:
            program.kill()
        guard = self._guard
        if guard is not None:
            with self._pipe_lock, contextlib.suppress(OSError):
                os.write(self._pipe, b"end\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(20)
            if guard.poll() is None:
                guard.send_signal(signal.SIGKILL)
                guard.wait()
            self._guard = None
        with self._pipe_lock:
            if self._pipe >= 0:
                os.close(self._pipe)
                self._pipe = -1
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        """Open it."""
        return self.open()

    def __exit__(self, *_: object) -> None:
        """Close it, whatever happened."""
        self.close()
