"""A build from the modules pinned in sandbox/gomodule/.

Each program is built under another name and then renamed, and Go's build cache lives in ours until all are
there: a build that was cut off, even by SIGKILL, goes on where it was.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from sandbox.binaries import toolchain
from sandbox.binaries.model import Unavailable, pinned
from sandbox.binaries.progress import Progress, say, seconds
from sandbox.processes import Household

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.binaries.settings import Settings
    from sandbox.binaries.toolchain import Go

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
POLL = 0.1


def build(settings: Settings, names: list[str]) -> None:
    """Build the named programs into `settings.programs`; raises Unavailable."""
    go = toolchain.find(settings)
    settings.work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.work).free
    if free < settings.needed_space:
        needed = settings.needed_space / 1e9
        raise Unavailable(f"a build needs {needed:.0f} GB for a while, {settings.work} has {free / 1e9:.1f} GB left")
    say(
        f"building {', '.join(names)} with Go: usually 6 minutes on 2 cores. "
        "It may be cut off at any time; the next try continues it."
    )
    started = time.monotonic()
    settings.programs.mkdir(parents=True, exist_ok=True)
    with Household(prefix="squidex-build") as home:
        for number, name in enumerate(names, 1):
            _build_one(settings, go, home, name, label=f"[{number}/{len(names)}] {name}")
    say(f"built in {seconds(time.monotonic() - started)}")


def _build_one(settings: Settings, go: Go, home: Household, name: str, *, label: str) -> None:
    unfinished = settings.programs / f"{name}.unfinished"
    command: list[str | Path] = [
        *(go.program, "build", "-C", settings.module, "-trimpath", "-buildvcs=false"),
        *(f"-ldflags={_linker_flags(settings)}", "-o", unfinished, PACKAGES[name]),
    ]
    program = home.program(f"go-build-{name}", command, env=_environment(settings, go, home.dir))
    bar = Progress(label)
    program.start()
    while program.alive:
        bar.update()
        time.sleep(POLL)
    if program.returncode != 0 or not unfinished.exists():
        failure = program.failure(f"ended with code {program.returncode}")
        raise Unavailable(f"the build of {name} failed: {failure}")
    unfinished.replace(settings.programs / name)
    bar.finish(f"built in {seconds(bar.elapsed)}")


def _linker_flags(settings: Settings) -> str:
    """Without the versions, kubectl and the API server would call themselves v0.0.0-master and refuse some of each other."""
    version = pinned(settings.module).kubernetes
    major, minor, _ = version.split(".", 2)
    base = "k8s.io/component-base/version"
    variables = {
        f"{base}.gitVersion": f"v{version}",
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": f"v{version}",
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in variables.items())])


def _environment(settings: Settings, go: Go, temporary: Path) -> dict[str, str]:
    """A build that depends on the pinned modules, not on how this user has set up Go."""
    environment = {
        "CGO_ENABLED": "0",
        "GOCACHE": str(settings.work / "go-build"),
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOTMPDIR": str(temporary),
        "GOOS": settings.system,
        "GOARCH": settings.architecture,
    }
    if go.private:
        environment["GOMODCACHE"] = str(settings.work / "go-modules")
    elif "GOMODCACHE" in os.environ:
        environment["GOMODCACHE"] = os.environ["GOMODCACHE"]
    return environment
