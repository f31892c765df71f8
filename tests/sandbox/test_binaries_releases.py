"""The official releases, played by a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import io
import socket
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from sandbox.binaries import PROGRAMS, Settings, find, transfer
from sandbox.binaries.model import Unavailable, pinned
from sandbox.errors import BinariesNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSIONS = pinned()
FOLDER = f"/v{VERSIONS.kubernetes}/bin/linux/arm64"
ETCD = f"etcd-v{VERSIONS.etcd}-linux-arm64"
ARCHIVE = f"/v{VERSIONS.etcd}/{ETCD}.tar.gz"
SUMS = f"/v{VERSIONS.etcd}/SHA256SUMS"


def content(name: str) -> bytes:
    """A program of some length."""
    return f"#!/bin/sh\n# {name}\n".encode() * 5000


@functools.cache
def archive() -> bytes:
    """As etcd is released. Made once: it carries the time, and its checksum would be that of another second's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"{ETCD}/etcd")
        info.size = len(content("etcd"))
        tar.addfile(info, io.BytesIO(content("etcd")))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Releases:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    url: str = ""
    resumes: bool = True
    cut: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the requests for one file."""
        return [header for asked, header in self.asked if asked == path]


def handler(releases: Releases) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            releases.asked.append((self.path, asked))
            data = releases.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and releases.resumes else 0
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = releases.cut.pop(self.path, len(data))
            self.wfile.write(data[start:end])

        def log_message(self, *args: object) -> None:
            """Quietly."""

    return Handler


@contextmanager
def serving(releases: Releases) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(releases))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    releases.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def releases() -> Iterator[Releases]:
    """All four, with the right checksums, in the two forms that the two projects publish."""
    files = {ARCHIVE: archive(), SUMS: f"{'0' * 64}  other.tar.gz\n{digest(archive())}  {ETCD}.tar.gz\n".encode()}
    for name in PROGRAMS[1:]:
        files[f"{FOLDER}/{name}"] = content(name)
        files[f"{FOLDER}/{name}.sha256"] = digest(content(name)).encode()
    held = Releases(files)
    with serving(held):
        yield held


@pytest.fixture
def settings(tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nothing but the releases."""
    monkeypatch.setenv("PATH", "/nowhere")
    return Settings(
        assets=None,
        cache=tmp_path / "cache",
        kubernetes_releases=releases.url,
        etcd_releases=releases.url,
        system="linux",
        architecture="arm64",
        pip=("/nowhere/pip",),
    )


def test_releases_with_the_published_checksums_are_installed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find(settings)
    for name in PROGRAMS:
        assert (found.folder / name).read_bytes() == content(name)
        assert (found.folder / name).stat().st_mode & 0o111
    assert not settings.work.exists()
    assert "kubectl: 0.1 MB" in capsys.readouterr().err


def test_only_what_is_missing_is_downloaded(settings: Settings, releases: Releases) -> None:
    find(settings)
    (settings.programs / "kubectl").unlink()
    releases.asked.clear()
    find(settings)
    assert releases.asked == [(f"{FOLDER}/kubectl.sha256", None), (f"{FOLDER}/kubectl", None)]


@pytest.mark.parametrize("path", [f"{FOLDER}/kube-apiserver", ARCHIVE], ids=["a program", "the archive of etcd"])
def test_a_wrong_checksum_removes_the_file_and_the_next_source_is_tried(
    settings: Settings, releases: Releases, path: str
) -> None:
    releases.files[path] += b"tampered"
    with pytest.raises(BinariesNotFound) as caught:
        find(settings)
    assert f"{path}: SHA-256 is {digest(releases.files[path])}, published is" in str(caught.value)
    assert "the file was removed" in str(caught.value)
    assert "4. A build with Go: no usable go" in str(caught.value)
    assert [name for name in settings.work.iterdir() if name.suffix == ".part"] == []


@pytest.mark.parametrize(
    ("published", "reason"),
    [(b"<html>please log in</html>", "is no SHA-256"), (None, "HTTP 404")],
    ids=["a login page instead of a checksum", "no checksum published"],
)
def test_without_a_published_checksum_nothing_is_downloaded(
    settings: Settings, releases: Releases, published: bytes | None, reason: str
) -> None:
    if published is None:
        del releases.files[f"{FOLDER}/kubectl.sha256"]
    else:
        releases.files[f"{FOLDER}/kubectl.sha256"] = published
    with pytest.raises(BinariesNotFound, match=reason):
        find(settings)
    assert releases.ranges(ARCHIVE) == []


def test_a_broken_download_is_continued_where_it_broke(settings: Settings, releases: Releases) -> None:
    path = f"{FOLDER}/kubectl"
    releases.cut[path] = 1000
    assert find(settings).kubectl.read_bytes() == content("kubectl")
    assert releases.ranges(path) == [None, "bytes=1000-"]


def test_a_download_of_an_earlier_run_is_continued(settings: Settings, releases: Releases) -> None:
    settings.work.mkdir(parents=True)
    part = settings.work / f"kubectl-{settings.programs.name}.part"
    part.write_bytes(content("kubectl")[:1234])
    assert find(settings).kubectl.read_bytes() == content("kubectl")
    assert releases.ranges(f"{FOLDER}/kubectl") == ["bytes=1234-"]


@pytest.mark.parametrize(
    ("left", "resumes"),
    [(b"from another version", True), (b"x" * 999_999, True), (content("kubectl")[:777], False)],
    ids=["it does not fit", "it is longer than the file", "the server does not resume"],
)
def test_a_download_that_cannot_be_continued_starts_again(
    settings: Settings, releases: Releases, left: bytes, resumes: bool
) -> None:
    releases.resumes = resumes
    settings.work.mkdir(parents=True)
    (settings.work / f"kubectl-{settings.programs.name}.part").write_bytes(left)
    assert find(settings).kubectl.read_bytes() == content("kubectl")


def test_a_host_that_does_not_answer_is_given_up_fast(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never says a word
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within|timed out"):
            transfer.fetch_text(f"http://127.0.0.1:{silent.getsockname()[1]}/", patience=0.3)
        assert time.monotonic() - started < 3


def test_other_systems_have_no_releases(settings: Settings, releases: Releases) -> None:
    with pytest.raises(BinariesNotFound, match="no official releases of kube-apiserver for darwin"):
        find(replace(settings, system="darwin"))
    assert releases.asked == []


def test_mirrors_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_KUBERNETES_RELEASES", "https://mirror.example/kubernetes/")
    monkeypatch.setenv("SANDBOX_ETCD_RELEASES", "https://mirror.example/etcd")
    assert Settings().kubernetes_releases == "https://mirror.example/kubernetes"
    assert Settings().etcd_releases == "https://mirror.example/etcd"
