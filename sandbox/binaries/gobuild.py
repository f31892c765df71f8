"""A build from pinned modules: the control plane's in sandbox/gomodule/, the node's in sandbox/node/gomodule/ as well.

Each program is built under another name and then renamed, and Go's build cache lives in ours until all are
there: a build that was cut off, even by SIGKILL, goes on where it was.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.binaries import toolchain
from sandbox.binaries.model import Unavailable, pinned
from sandbox.binaries.progress import Progress, say, seconds
from sandbox.processes import Household

if TYPE_CHECKING:
    from collections.abc import Mapping
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


@dataclass(frozen=True)
class Target:
    """What a program is built of: a package of a module, with build tags and the values of variables in it."""

    package: str
    module: Path
    variables: Mapping[str, str]
    tags: str = ""


def build(settings: Settings, names: list[str]) -> None:
    """Build the named programs of the control plane into `settings.programs`; raises Unavailable."""
    variables = kubernetes_variables(settings)
    targets = {name: Target(PACKAGES[name], settings.module, variables) for name in names}
    build_targets(settings, targets, settings.programs, usually="6 minutes on 2 cores")


def build_targets(settings: Settings, targets: Mapping[str, Target], folder: Path, *, usually: str) -> None:
    """Build each target into `folder` under its name; raises Unavailable."""
    go = toolchain.find(settings)
    settings.work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.work).free
    if free < settings.needed_space:
        needed = settings.needed_space / 1e9
        raise Unavailable(f"a build needs {needed:.0f} GB for a while, {settings.work} has {free / 1e9:.1f} GB left")
    say(
        f"building {', '.join(targets)} with Go: usually {usually}. "
        "It may be cut off at any time; the next try continues it."
    )
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with Household(prefix="squidex-build") as home:
        for number, (name, target) in enumerate(targets.items(), 1):
            _build_one(settings, go, home, target, folder / name, label=f"[{number}/{len(targets)}] {name}")
    say(f"built in {seconds(time.monotonic() - started)}")


def _build_one(settings: Settings, go: Go, home: Household, target: Target, file: Path, *, label: str) -> None:
    unfinished = file.with_name(f"{file.name}.unfinished")
    linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in target.variables.items())])
    command: list[str | Path] = [
        *(go.program, "build", "-C", target.module, "-trimpath", "-buildvcs=false"),
        *(f"-tags={target.tags}", f"-ldflags={linker}", "-o", unfinished, target.package),
    ]
    if nice := shutil.which("nice"):
        command = [nice, "-n", "5", *command]  # minutes of all cores, while somebody works here
    program = home.program(f"go-build-{file.name}", command, env=_environment(settings, go, home.dir))
    bar = Progress(label)
    program.start()
    while program.alive:
        bar.update()
        time.sleep(POLL)
    if program.returncode != 0 or not unfinished.exists():
        failure = program.failure(f"ended with code {program.returncode}")
        raise Unavailable(f"the build of {file.name} failed: {failure}")
    unfinished.replace(file)
    bar.finish(f"built in {seconds(bar.elapsed)}")


def kubernetes_variables(settings: Settings) -> dict[str, str]:
    """Without the versions, kubectl and the API server would call themselves v0.0.0-master and refuse some of each other."""
    version = pinned(settings.module).kubernetes
    major, minor, _ = version.split(".", 2)
    base = "k8s.io/component-base/version"
    return {
        f"{base}.gitVersion": f"v{version}",
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": f"v{version}",
    }


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
