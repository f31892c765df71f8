"""Who uses the token, in the ways that docs/guides/consume.md shows: its text is what runs, only the folder is another.

Each has `call()`: what came of one more request for the app: its name, or the HTTP status of the refusal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from sandbox import places
from sandbox.controlplane.ports import LOOPBACK, free_port
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GUIDE = REPOSITORY / "docs" / "guides" / "consume.md"
MOUNTED = "/var/run/secrets/squidex"
"""Where the guide has the Secret mounted."""
PROJECT = REPOSITORY / "tests" / "node"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")

OWN_WAY = """
import { SquidexClient } from "@squidex/squidex";
const { URL, CLIENT_ID, CLIENT_SECRET } = process.env;
const client = new SquidexClient({ url: URL, appName: "shop", clientId: CLIENT_ID, clientSecret: CLIENT_SECRET });
"""
"""What the SDK's own documentation says: it fetches a token itself."""


def recipe(section: str, language: str, folder: Path | str = MOUNTED) -> str:
    """The first block of code of a section of the guide, for a Secret that is mounted elsewhere."""
    text = GUIDE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f'the guide has no {language} under "{section}"'
    assert MOUNTED in found[1]
    return found[1].replace(MOUNTED, str(folder))


class Mount:
    """A Secret's volume as the kubelet makes it: files are links, and one rename changes them all at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._versions = 0

    def show(self, **data: str) -> None:
        """Put a version of the Secret into the volume."""
        self._versions += 1
        version = self.folder / f"..version-{self._versions}"
        version.mkdir()
        for key, value in data.items():
            (version / key).write_text(value)
        (self.folder / "..data_tmp").symlink_to(version.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for key in data:
            if not (self.folder / key).is_symlink():
                (self.folder / key).symlink_to(f"..data/{key}")


class Curl:
    """The guide's command."""

    def __init__(self, folder: Path, ca_file: Path) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        self._command = ["sh", "-c", recipe("curl", "sh", folder)]
        self._env = {**os.environ, "CURL_CA_BUNDLE": str(ca_file), "no_proxy": "*"}

    def call(self) -> str | int:
        """Run it once."""
        done = subprocess.run(self._command, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return str(json.loads(done.stdout)["name"])
        # 22 with --fail: https://curl.se/docs/manpage.html#--fail
        refused = re.search(r"returned error: ([0-9]{3})", done.stderr)
        assert done.returncode == 22, done.stderr
        assert refused is not None, done.stderr
        return int(refused[1])

    def end(self) -> None:
        """Nothing is left of it."""


class Httpx:
    """One httpx.Client that lives as long as its application, with the guide's MountedToken."""

    def __init__(self, folder: Path, ca_file: Path) -> None:
        text, found, _ = recipe("Python, httpx", "python", folder).partition("with httpx.Client")
        assert found, "the recipe ends with the use of a client"
        self.names: dict[str, Any] = {}
        exec(compile(text, str(GUIDE), "exec"), self.names)
        url = (folder / "url").read_text()
        self.settings = {"base_url": url, "verify": ssl.create_default_context(cafile=ca_file), "trust_env": False}
        self.client = httpx.Client(**self.settings, auth=self.names["MountedToken"]())

    def call(self) -> str | int:
        """Ask once more."""
        answer = self.client.get("/api/apps/shop")
        return str(answer.json()["name"]) if answer.status_code == 200 else answer.status_code

    def end(self) -> None:
        """Close its connections."""
        self.client.close()


class NodeSdk:
    """A Node process with the official Squidex SDK, made as `text` says; it lives on between calls."""

    def __init__(self, folder: Path, ca_file: Path, *, text: str = "", env: Mapping[str, str] | None = None) -> None:
        # Beside the folder, not in it: that is a volume's. The SDK is found from where the program is.
        self._home = Path(tempfile.mkdtemp(prefix="squidex-node-sdk-"))
        (self._home / "node_modules").symlink_to(installed_sdk() / "node_modules")
        program = self._home / "application.mjs"
        text = text or recipe("Node, the Squidex SDK", "js", folder)
        program.write_text(text + (PROJECT / "calls.mjs").read_text())
        self._process = subprocess.Popen(
            ["node", str(program)],
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(ca_file), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """Let it use the SDK once more; what it says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("call\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"node ended with {self._process.wait(10)}"
        return dict(json.loads(line))

    def call(self) -> str | int:
        """The same, in short."""
        answer = self.answer()
        return str(answer["app"]) if "app" in answer else int(answer["status"])

    def end(self) -> None:
        """End the process."""
        with self._process:
            self._process.kill()
        shutil.rmtree(self._home)


class Sample:
    """The web service of manifests/samples/."""

    def __init__(self, folder: Path, ca_file: Path) -> None:
        port = free_port()
        bodies = yaml.safe_load_all((REPOSITORY / "manifests" / "samples" / "consumer.yaml").read_text())
        (text,) = (body["data"]["app.py"] for body in bodies if body["kind"] == "ConfigMap")
        assert MOUNTED in text
        assert "8000" in text
        text = text.replace(MOUNTED, str(folder)).replace("8000", str(port))
        env = {**os.environ, "SSL_CERT_FILE": str(ca_file), "no_proxy": "*"}
        self._process = subprocess.Popen([sys.executable, "-c", text], env=env, stderr=subprocess.DEVNULL)
        self._url = f"http://{LOOPBACK}:{port}/"

    def call(self) -> str | int:
        """Ask it once it listens."""
        end = time.monotonic() + 20
        while True:
            try:
                answer = httpx.get(self._url, trust_env=False)
            except httpx.ConnectError:
                assert self._process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                break
        refused = re.fullmatch("HTTP Error ([0-9]{3}): .*", answer.text)
        return int(refused[1]) if refused else str(answer.json()["name"])

    def end(self) -> None:
        """End it as a kubelet does."""
        self._process.terminate()
        assert self._process.wait(10) == 0


def installed_sdk() -> Path:
    """The folder with the installed SDK, outside the clone: it stays for the next run. Skips the test without Node."""
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


CONSUMERS: dict[str, Callable[[Path, Path], Curl | Httpx | NodeSdk | Sample]] = {
    "curl": Curl,
    "httpx": Httpx,
    "Node SDK": NodeSdk,
    "the sample": Sample,
}
"""Each takes the folder that has the Secret, and the CA."""
