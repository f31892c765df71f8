"""The image: what the Dockerfile says, and, where buildah is, what comes of it when it runs as the Deployment runs it.

Building needs root, buildah, and the base image in a store of its own in the cache folder. SANDBOX_BASE_IMAGE=pull gets it
from its registry, SANDBOX_BASE_IMAGE=debootstrap makes a stand-in of Debian packages (the same Python minor version); both
are done once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import squidex_operator
from sandbox import places
from sandbox.controlplane.ports import LOOPBACK, free_port
from sandbox.operator_process import NAMESPACE, SERVICE_ACCOUNT, Operator
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.environment import Sandbox
    from tests.e2e.world import World

DOCKERFILE = REPOSITORY / "Dockerfile"
MIB = 1024 * 1024
LARGEST = 120 * MIB
"""Bytes of our layers, as they lie on a disk, and of the Python interpreter below them."""
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

CONTAINER = """
set -eu
root=$1 user=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
if [ -n "$ACCOUNT" ]; then
    mkdir -p "$root/run/secrets/kubernetes.io/serviceaccount"
    mount --bind "$ACCOUNT" "$root/run/secrets/kubernetes.io/serviceaccount"
fi
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all env -i "$@"
"""
"""A container as the Deployment asks for: a read-only root, a user who is not root, no capabilities, PID 1."""


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_start_from_the_same_exact_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", bases[0])


def test_the_label_has_the_packages_version() -> None:
    labels = re.findall(r'image\.version="([^"]*)"', DOCKERFILE.read_text())
    assert labels == [squidex_operator.__version__]


def test_the_locked_build_requirements_are_those_of_the_project() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    lines = (REPOSITORY / "requirements" / "build.in").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == wanted
    locked = (REPOSITORY / "requirements" / "build.txt").read_text()
    assert all(f"{requirement} \\\n    --hash=" in locked for requirement in wanted)


def test_the_operator_needs_no_name_of_its_user(empty_world: World, sandbox: Sandbox, tmp_path: Path) -> None:
    """The image's user is a number without a name: once, Kopf asked for it, and every container ended at its start.

    Unlike the tests below, this one runs everywhere.
    """
    for other in sandbox.operators:
        other.stop()  # it would do the job
    nameless = "import getpass\ndef getuser():\n    raise OSError('no name')\ngetpass.getuser = getuser\n"
    (tmp_path / "sitecustomize.py").write_text(nameless)
    operator = Operator(
        sandbox.home,
        kubeconfig=sandbox.operator_kubeconfig(),
        name="nameless",
        namespaces=[empty_world.namespace],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY / "operator")])},
    )
    try:
        operator.start()
        empty_world.ready()
        # By the watch, which is what Kopf has to do here: the first list was before it.
        empty_world.create("second", target={"name": "second-token"})
        empty_world.wait_ready("second")
        assert operator.stop() == 0
    finally:
        operator.kill()


class Store:
    """Images, apart from those of the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def buildah(self, *args: str | Path, check: bool = True) -> str:
        """Run buildah; what it says."""
        where = ["--root", self._folder / "storage", "--runroot", self._folder / "run"]
        command = ["buildah", "--storage-driver", "vfs", *where, *args]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        return bool(self.buildah("images", "--quiet", image, check=False))

    def debootstrap(self, image: str) -> None:
        """A base image of Debian packages, laid out like the official one as far as the Dockerfile can tell."""
        root = self._folder / "debian"
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            release = image.rpartition("-")[2]
            packages = "--include=python3,python3-venv,ca-certificates"
            command = ["debootstrap", "--variant=minbase", packages, release, str(root)]
            subprocess.run(command, check=True, capture_output=True)
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            container = self.buildah("from", "scratch")
            stack.callback(self.buildah, "rm", container)
            self.buildah("add", "--quiet", container, root, "/")
            path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.buildah("config", "--env", path, container)
            self.buildah("commit", "--quiet", container, f"localhost/{image}")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of an image: bytes in a registry, bytes on a disk, and whether it is of the base image."""

    compressed: int
    unpacked: int
    of_the_base: bool


class Image:
    """The image that was built."""

    def __init__(self, root: Path, config: dict[str, Any], layers: list[Layer]) -> None:
        self.root = root
        self.config = config
        self.layers = layers
        """Those of the base first."""

    def command(self, *args: str, env: Sequence[str] = ()) -> list[str]:
        """What runs a program in a container of it."""
        container = ["sh", "-c", CONTAINER, "sh", str(self.root), self.config["User"], *self.config["Env"], *env]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *container, *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a container of it."""
        env = {**os.environ, "ACCOUNT": ""}
        return subprocess.run(self.command(*args), env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built of what is in the working tree, and unpacked."""
    for program in ("buildah", "unshare", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("images are built and run with mounts of their own, which takes root")
    store = Store(places.cache() / "images")
    base = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)[0]
    _get_base(store, base)
    tag = f"localhost/squidex-operator-test:{os.getpid()}"
    mounts = _network_settings(tmp_path_factory.mktemp("image"))
    with contextlib.ExitStack() as stack:
        stack.callback(store.buildah, "rmi", "--prune", check=False)
        store.buildah("bud", "--isolation", "chroot", "--pull=never", *mounts, "--tag", tag, REPOSITORY)
        stack.callback(store.buildah, "rmi", "--force", tag)
        container = store.buildah("from", "--pull-never", tag)
        stack.callback(store.buildah, "rm", container)
        root = store.buildah("mount", container)
        stack.callback(store.buildah, "umount", container)
        base_layers = len(_inspect(store, base)["rootfs"]["diff_ids"])
        layers = _layers(store, tag, base_layers, tmp_path_factory.mktemp("layout"))
        yield Image(Path(root), _inspect(store, tag)["config"], layers)


def _inspect(store: Store, image: str) -> dict[str, Any]:
    return dict(json.loads(store.buildah("inspect", "--type", "image", image))["OCIv1"])


def _layers(store: Store, tag: str, of_the_base: int, folder: Path) -> list[Layer]:
    """An image's layers as a registry gets them."""
    blobs = folder / "image" / "blobs" / "sha256"
    try:
        store.buildah("push", "--quiet", tag, f"oci:{folder / 'image'}")
        index = json.loads((folder / "image" / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_text())
        layers = []
        for number, entry in enumerate(manifest["layers"]):
            with gzip.open(blobs / entry["digest"].partition(":")[2]) as stream:
                layers.append(Layer(entry["size"], stream.seek(0, os.SEEK_END), number < of_the_base))
        return layers
    finally:
        shutil.rmtree(folder / "image", ignore_errors=True)


def _get_base(store: Store, image: str) -> None:
    if store.has(image):
        return
    how = os.environ.get("SANDBOX_BASE_IMAGE", "")
    if how == "pull":
        store.buildah("pull", "--quiet", image)
    elif how == "debootstrap" and shutil.which("debootstrap"):
        store.debootstrap(image)
    else:
        pytest.skip(
            f"the base image {image} is not in the test's store: once, run with SANDBOX_BASE_IMAGE=pull, or with "
            "SANDBOX_BASE_IMAGE=debootstrap (which has to be installed)"
        )


def _network_settings(folder: Path) -> list[str]:
    """This machine's CAs and package index, for the pip in the build."""
    pip = [f"index-url = {url}"] if (url := os.environ.get("PIP_INDEX_URL")) else []
    mounts = []
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if bundle and Path(bundle).is_file():
        mounts.append(f"--volume={Path(bundle).resolve()}:{CA_BUNDLE}:ro")
        pip.append(f"cert = {CA_BUNDLE}")
    (folder / "pip.conf").write_text("\n".join(["[global]", *pip, ""]))
    return [*mounts, f"--volume={folder / 'pip.conf'}:/etc/pip.conf:ro"]


def test_the_image_runs_the_operator(image: Image) -> None:
    assert image.config["Entrypoint"] == ["squidex-operator"]
    done = image.run(*image.config["Entrypoint"], "--version")
    assert (done.stdout, done.stderr) == (f"squidex-operator {squidex_operator.__version__}\n", "")


def test_it_is_small(image: Image, figure: Callable[[str], None]) -> None:
    """What a node has to fetch and to keep for it, beyond what any image of the same distribution brings."""
    ours = [layer for layer in image.layers if not layer.of_the_base]
    unpacked = sum(layer.unpacked for layer in ours)
    interpreter = _interpreter(image)
    total = sum(layer.unpacked for layer in image.layers)
    figure(
        f"our layers {unpacked / MIB:.0f} MiB ({sum(layer.compressed for layer in ours) / MIB:.0f} MiB compressed), with the "
        f"interpreter below them {(unpacked + interpreter) / MIB:.0f} MiB; the image {total / MIB:.0f} MiB "
        f"({sum(layer.compressed for layer in image.layers) / MIB:.0f} MiB compressed)"
    )
    assert 0 < unpacked + interpreter < LARGEST
    # Generated classes of the Kubernetes client, 75 MB of them.
    assert image.run("python", "-c", "import kubernetes.aio.client as client; client.V1Pod").returncode != 0


def _interpreter(image: Image) -> int:
    """Bytes of the Python that the base brings: program, library and standard library."""
    look = """
import os, pathlib, sys, sysconfig
files = {pathlib.Path(sys._base_executable).resolve()}
files |= {path.resolve() for path in pathlib.Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*")}
files |= {pathlib.Path(top, name) for top, _, names in os.walk(sysconfig.get_path("stdlib")) for name in names}
print(sum(path.lstat().st_size for path in files))
"""
    done = image.run("python", "-c", look)
    assert done.stderr == ""
    return int(done.stdout)


def test_its_user_is_a_number_and_owns_nothing(image: Image) -> None:
    user = re.fullmatch(r"([0-9]+):([0-9]+)", image.config["User"])
    assert user is not None
    assert int(user[1]) > 0
    assert image.run("id", "-u").stdout.strip() == user[1]
    owned = subprocess.run(["find", image.root, "-xdev", "-uid", user[1]], capture_output=True, text=True, check=True)
    assert owned.stdout == ""
    assert "Read-only file system" in image.run("touch", "/opt/squidex-operator/new").stderr


@pytest.mark.parametrize("program", ["pip", "gcc", "cc", "git"])
def test_what_only_builds_is_not_in_it(image: Image, program: str) -> None:
    assert image.run("sh", "-c", f"command -v {program}").returncode != 0
    assert "No module named" in image.run("python", "-m", "pip").stderr


def test_everything_that_it_loads_was_compiled_ahead(image: Image) -> None:
    look = """
import os, sys
import squidex_operator.process
files = [module.__spec__.cached for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
print("\\n".join(file for file in files if file and not os.path.exists(file)))
"""
    done = image.run("python", "-c", look)
    assert done.stderr == ""
    assert done.stdout.split() == []


def test_it_does_its_job_in_a_cluster_and_ends_on_sigterm(
    image: Image, empty_world: World, sandbox: Sandbox, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """As a Pod has it: its ServiceAccount mounted, everything else by default."""
    for other in sandbox.operators:
        other.stop()  # it would do the job
    plane = sandbox.control_plane
    token = plane.kubectl_run("create", "token", SERVICE_ACCOUNT, f"--namespace={NAMESPACE}", "--duration=3600s")
    account = tmp_path / "account"
    account.mkdir()
    for name, text in {"token": token.stdout, "namespace": NAMESPACE, "ca.crt": plane.ca_file.read_text()}.items():
        (account / name).write_text(text)
    health = f"{LOOPBACK}:{free_port()}"
    env = [f"KUBERNETES_SERVICE_HOST={LOOPBACK}", f"KUBERNETES_SERVICE_PORT={plane.port}"]
    env.append(f"SQUIDEX_OPERATOR_HEALTH_LISTEN={health}")
    log = tmp_path / "log"
    began = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            image.command(*image.config["Entrypoint"], env=env),
            env={**os.environ, "ACCOUNT": str(account)},
            stdout=stream,
            stderr=stream,
        )
    try:
        empty_world.wait(lambda: process.poll() is not None or _is_ready(health), "the operator to be ready")
        assert process.poll() is None, log.read_text()
        figure(f"ready {time.monotonic() - began:.2f} s after its start")
        empty_world.ready()
        first = empty_world.token()
        assert empty_world.accepts(first) == 200
        # The other ways that a token goes: what was left out of the image is needed for none of them.
        empty_world.squidex.patch({"clients": {empty_world.client_id: "another"}})
        empty_world.set_credentials(secret="another")
        empty_world.new_token(first)
        second = empty_world.token()
        empty_world.kubectl("delete", "secret", "shop")
        empty_world.new_token(second)
        (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        began = time.monotonic()
        os.kill(int(inside), signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
        assert time.monotonic() - began < 4
    finally:
        process.kill()
        process.wait()


def _is_ready(health: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{health}/readyz") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
