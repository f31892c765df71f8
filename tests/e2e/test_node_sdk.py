"""Who uses the token: the official Squidex SDK for Node, the real package, with the token as a Pod has it mounted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import places
from sandbox.places import REPOSITORY
from sandbox.standin import Squidex
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

PROJECT = REPOSITORY / "tests" / "node"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The folder with the installed SDK, outside the clone: it stays for the next run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < 18:
        pytest.skip(f"the SDK needs Node 18 or later (fetch), this is {version}")
    lock = (PROJECT / "package-lock.json").read_bytes()
    folder = places.cache() / "node" / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "node_modules").exists():
        _install(folder)
    return folder


def _install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: an installation that was cut off must not count as one.
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(PROJECT / name, work)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode and any(code in done.stderr for code in UNREACHABLE):
            pytest.skip("the SDK is not installed yet, and npm cannot reach its registry")
        assert done.returncode == 0, done.stderr
        try:
            (Path(work) / "node_modules").rename(folder / "node_modules")
        except OSError:
            # Another run was faster.
            assert (folder / "node_modules").is_dir()


@pytest.fixture
def squidex(sandbox: Sandbox) -> Iterator[Squidex]:
    """A stand-in of our own: its key is replaced, which would concern the tokens of all others."""
    started = Squidex(sandbox.home, name="squidex-node")
    started.start()
    yield started
    started.program.kill()


@pytest.fixture
def shop(operator: Operator, sandbox: Sandbox, squidex: Squidex) -> Iterator[World]:
    """A namespace whose SquidexClients are of that stand-in."""
    world = World(sandbox, squidex, "node-sdk")
    world.set_up()
    yield world
    world.tear_down()


class Mount:
    """A Secret's volume as the kubelet makes it: files are links, and one rename changes them all at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = 0
        self.token_file = folder / "token"

    def show(self, token: str) -> None:
        """Put a version of the Secret into the volume."""
        self._versions += 1
        version = self._folder / f"..version-{self._versions}"
        version.mkdir()
        (version / "token").write_text(token)
        (self._folder / "..data_tmp").symlink_to(version.name)
        (self._folder / "..data_tmp").rename(self._folder / "..data")
        if not self.token_file.is_symlink():
            self.token_file.symlink_to("..data/token")


class Application:
    """The Node process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self) -> dict[str, Any]:
        """Let it use the SDK once more; what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("call\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"node ended with {self._process.wait(10)}"
        return dict(json.loads(line))

    def end(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()


@pytest.fixture
def start(sdk: Path, shop: World) -> Iterator[Callable[..., Application]]:
    """Start the application with some variables of its own."""
    started: list[Application] = []

    def start_one(**variables: str) -> Application:
        app = shop.client_id.partition(":")[0]
        own = {"SDK": str(sdk), "URL": shop.squidex.url, "APP": app, "NODE_EXTRA_CA_CERTS": str(shop.squidex.ca_file)}
        process = subprocess.Popen(
            ["node", str(PROJECT / "consumer.mjs")],
            env={**os.environ, **own, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(Application(process))
        return started[-1]

    yield start_one
    for application in started:
        application.end()


def test_the_sdk_works_with_the_mounted_token_and_follows_it_when_it_is_replaced(
    shop: World, start: Callable[..., Application], tmp_path: Path
) -> None:
    shop.ready()
    old = shop.token()
    mount = Mount(tmp_path)
    mount.show(old)
    application = start(TOKEN_FILE=str(mount.token_file))
    answer = application.call()
    assert answer["app"] == "node-sdk"
    assert {"de", "en"} <= set(answer["languages"])

    shop.squidex.patch({"key": "replace"})
    # The kubelet has not caught up yet.
    assert application.call()["status"] == 401
    mount.show(shop.new_token(old))
    assert application.call() == answer
    assert application.call() == answer
    # Nobody but the operator has asked for a token, once for each key.
    asked = shop.squidex.state()["counts"]["token"]["byClient"]
    assert asked == {shop.client_id: {"200": 2}}


def test_the_sdks_own_way_to_a_token_works_with_the_stand_in(shop: World, start: Callable[..., Application]) -> None:
    """Else the test above would say little about the real server."""
    application = start(CLIENT_ID=shop.client_id, CLIENT_SECRET=shop.client_secret)
    assert application.call()["app"] == "node-sdk"
    counts = shop.squidex.state()["counts"]["token"]
    assert counts["byClient"][shop.client_id]["200"] >= 1
    assert sorted(counts["lastRequest"]["parameters"]) == ["client_id", "client_secret", "grant_type", "scope"]
    # A wrong secret is told from a wrong token.
    assert start(CLIENT_ID=shop.client_id, CLIENT_SECRET="wrong").call()["status"] == 401
