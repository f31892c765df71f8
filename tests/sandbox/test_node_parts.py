"""The parts of a node that take neither root nor its programs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import packages
from sandbox.binaries import Settings
from sandbox.binaries.model import MODULE as CONTROL_PLANE
from sandbox.errors import NodeUnavailable, PackageMissing, SandboxError
from sandbox.node import archive, binaries, cgroups, conditions, network
from sandbox.node.binaries import MODULE
from sandbox.processes.guard import remove_cgroup

if TYPE_CHECKING:
    from pathlib import Path

OLD = """\
31 25 0:27 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
34 31 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
"""
UNIFIED = "35 31 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:13 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("mountinfo", "options"),
    [
        (OLD, ["none,name=systemd", "cpu,cpuacct", "memory"]),
        (OLD + UNIFIED, ["none,name=systemd", "cpu,cpuacct", "memory"]),
        (UNIFIED, [""]),
    ],
    ids=["version 1", "both, where version 2 has no controllers", "version 2"],
)
def test_containers_are_put_into_these_hierarchies(mountinfo: str, options: list[str]) -> None:
    found = cgroups.hierarchies(mountinfo)
    assert [hierarchy.options for hierarchy in found] == options
    assert found[0].unified is (options == [""])


def test_without_cgroups_there_is_no_node() -> None:
    with pytest.raises(SandboxError, match="no cgroups are mounted"):
        cgroups.hierarchies(OLD.splitlines()[0])


@pytest.mark.parametrize(
    ("name", "owner"),
    [("squidex-node-4711-0a1b2c3d", 4711), ("squidex-node-4711", None), ("squidex-node-x-0a", None), ("mine", None)],
)
def test_a_name_says_whose_it_is(name: str, owner: int | None) -> None:
    assert cgroups.owner_of(name) == owner


def test_the_guard_removes_what_is_below_a_cgroup_first(tmp_path: Path) -> None:
    (tmp_path / "cell" / "k8s.io" / "pod").mkdir(parents=True)
    (tmp_path / "cell" / "init").mkdir()
    remove_cgroup(str(tmp_path / "cell"))
    assert list(tmp_path.iterdir()) == []
    remove_cgroup(str(tmp_path / "cell"))


def routes(monkeypatch: pytest.MonkeyPatch, *destinations: str) -> None:
    told = json.dumps([{"dst": destination} for destination in destinations])
    monkeypatch.setattr(network, "_ip", lambda *_: told)


def test_the_addresses_are_of_a_network_that_no_route_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of the candidates but one network of 512.
    free = "10.200.6.0/23"
    block = network.CANDIDATES.supernet(new_prefix=10)
    others = [str(part) for part in block.address_exclude(network.ipaddress.IPv4Network(free))]
    routes(monkeypatch, "default", *others)
    monkeypatch.setattr(network.random, "randrange", lambda _: (8 * 65536 + 6 * 256) // 512)
    found = network.choose()
    assert str(found.block) == free
    assert (found.machine, found.node) == ("10.200.6.1", "10.200.6.254")
    assert (found.services, found.pods) == ("10.200.6.0/25", "10.200.7.0/24")


def test_a_machine_with_routes_everywhere_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    routes(monkeypatch, "10.0.0.0/8")
    with pytest.raises(SandboxError, match="this machine has routes to all of it"):
        network.choose()


def test_an_image_of_one_program_is_what_docker_save_writes(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF")
    file = archive.of_program(program, tmp_path / "pause.tar", name="localhost/pause:1", architecture="amd64")
    with tarfile.open(file) as tar:
        content = {name: read(tar, name) for name in tar.getnames()}
    (manifest,) = json.loads(content["manifest.json"])
    assert manifest["RepoTags"] == ["localhost/pause:1"]
    config: dict[str, Any] = json.loads(content[manifest["Config"]])
    (layer,) = manifest["Layers"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content[layer]).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/pause"]
    with tarfile.open(fileobj=io.BytesIO(content[layer])) as tar:
        assert (read(tar, "pause"), tar.getmember("pause").mode) == (b"\x7fELF", 0o755)


def read(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    assert stream is not None
    return stream.read()


def test_every_program_of_the_node_is_pinned() -> None:
    targets = binaries.targets(Settings())
    assert tuple(targets) == binaries.PROGRAMS
    for name, target in targets.items():
        if name != "pause":
            assert target.module in (MODULE, CONTROL_PLANE)
            assert f"\t{target.package}\n" in (target.module / "go.mod").read_text()
    assert (MODULE / "pause" / "main.go").exists()


def test_the_cache_tells_versions_apart() -> None:
    name = binaries.programs_folder(Settings()).name
    assert name.startswith("node-1.")
    assert len(name.split("-")) == 6


@pytest.mark.parametrize(
    ("platform", "user", "why"), [("darwin", 0, "it needs Linux"), ("linux", 1000, "it needs root")]
)
def test_one_message_says_why_there_is_no_node_and_names_the_other_way(
    monkeypatch: pytest.MonkeyPatch, platform: str, user: int, why: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(NodeUnavailable) as caught:
        conditions.prepare()
    message = str(caught.value)
    assert message.startswith(f"There is no node: {why}")
    assert "https://kind.sigs.k8s.io" in message
    assert "make e2e KUBECONFIG=" in message


def test_a_program_that_cannot_be_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "SBIN", ())
    with pytest.raises(PackageMissing, match=r"^runc cannot be found, and there is no apt-get: install runc-package"):
        packages.install({"runc": "runc-package"})


def test_an_apt_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\necho \"$*\" >> {tmp_path}/asked\necho 'E: Unable to locate package' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "SBIN", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PackageMissing, match="E: Unable to locate package"):
        packages.install({"runc": "runc"})
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["update -q", "install -y -q --no-install-recommends runc"]


def test_the_command_says_it_in_one_message(tmp_path: Path) -> None:
    """As a user who is not root sees it; the exit code is what .ci/run tells from an error of ours."""
    code = "import os, sys; os.geteuid = lambda: 1000; from sandbox.__main__ import main; sys.exit(main(['node', '--prepare']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("There is no node: it needs root")
    assert "Traceback" not in done.stderr
