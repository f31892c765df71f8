"""Programs of the distribution: found, or installed with apt-get where that may be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from sandbox.binaries.progress import Progress, say
from sandbox.errors import PackageMissing, last_line

if TYPE_CHECKING:
    from collections.abc import Mapping

APT_TIMEOUT = 600
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def which(program: str) -> str | None:
    """Where a program is; root's PATH may lack the folders of the system's programs."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))


def install(packages: Mapping[str, str]) -> None:
    """Install what is missing of these programs (and their Debian packages); raises PackageMissing."""
    lacking = {program: package for program, package in packages.items() if which(program) is None}
    if not lacking:
        return
    names, wanted = ", ".join(lacking), sorted(set(lacking.values()))
    apt = which("apt-get")
    if apt is None or os.geteuid() != 0:
        why = "there is no apt-get" if apt is None else "only root may install packages"
        raise PackageMissing(f"{names} cannot be found, and {why}: install {', '.join(wanted)} (as Debian calls it)")
    say(f"installing {', '.join(wanted)} with apt-get: usually 10 seconds")
    bar = Progress("apt-get")
    _apt(apt, "update", "-q")  # a mirror that fails need not matter: the next one says what does
    done = _apt(apt, "install", "-y", "-q", "--no-install-recommends", *wanted)
    if done.returncode != 0:
        raise PackageMissing(f"{names} cannot be installed by apt-get: {last_line(done)}")
    bar.finish("installed")


def _apt(apt: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            [apt, *args], env=environment, capture_output=True, text=True, timeout=APT_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise PackageMissing(f"`apt-get {args[0]}` took more than {APT_TIMEOUT} s") from None
