"""The official releases: single programs of Kubernetes, and an archive of etcd."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from sandbox.binaries import transfer
from sandbox.binaries.model import Unavailable, pinned
from sandbox.binaries.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.binaries.settings import Settings

EXECUTABLE = 0o755


def download(settings: Settings, names: list[str]) -> None:
    """Put the named programs into `settings.programs`; raises Unavailable."""
    if settings.system != "linux":
        raise Unavailable(f"there are no official releases of kube-apiserver for {settings.system}")
    # All checksums first: a host that cannot be reached is noticed before the first large file.
    sums = {name: _published(settings, name) for name in names}
    say(f"downloading the official releases of {', '.join(names)}: usually a minute")
    for name in names:
        url, sha256 = sums[name]
        if name == "etcd":
            _etcd(settings, url, sha256)
        else:
            _install(settings, name, url, sha256)


def _published(settings: Settings, name: str) -> tuple[str, str]:
    """The address of a program (or its archive), and the checksum published beside it."""
    versions = pinned(settings.module)
    if name == "etcd":
        folder = f"{settings.etcd_releases}/v{versions.etcd}"
        archive = f"etcd-v{versions.etcd}-{settings.system}-{settings.architecture}.tar.gz"
        sums = transfer.fetch_text(f"{folder}/SHA256SUMS", patience=settings.patience)
        for line in sums.splitlines():
            if line.split()[1:] == [archive]:
                return f"{folder}/{archive}", _checked(line.split()[0], folder)
        raise Unavailable(f"{folder}/SHA256SUMS does not list {archive}")
    release = f"{settings.kubernetes_releases}/v{versions.kubernetes}/bin"
    url = f"{release}/{settings.system}/{settings.architecture}/{name}"
    text = transfer.fetch_text(f"{url}.sha256", patience=settings.patience)
    return url, _checked(text.partition(" ")[0].strip(), url)


def _checked(sha256: str, url: str) -> str:
    """A login page of some proxy is no checksum."""
    lower = sha256.lower()
    if len(lower) != 64 or set(lower) - set("0123456789abcdef"):
        raise Unavailable(f"what is published beside {url} is no SHA-256")
    return lower


def _install(settings: Settings, name: str, url: str, sha256: str) -> None:
    loaded = settings.work / f"{name}-{settings.programs.name}"
    transfer.fetch(url, loaded, sha256=sha256, label=name, stall=settings.stall)
    _move(loaded, settings.programs / name)


def _etcd(settings: Settings, url: str, sha256: str) -> None:
    archive = settings.work / url.rpartition("/")[2]
    transfer.fetch(url, archive, sha256=sha256, label="etcd", stall=settings.stall)
    unpacked = settings.work / "etcd.unpacked"
    member = archive.name.removesuffix(".tar.gz") + "/etcd"
    try:
        with tarfile.open(archive) as tar:
            source = tar.extractfile(member)
            if source is None:
                raise KeyError(member)
            with source, unpacked.open("wb") as target:
                while piece := source.read(transfer.PIECE):
                    target.write(piece)
    except (KeyError, tarfile.TarError) as error:
        raise Unavailable(f"{url} holds no {member}") from error
    finally:
        archive.unlink()
    _move(unpacked, settings.programs / "etcd")


def _move(source: Path, target: Path) -> None:
    """Into place, whole and executable or not at all."""
    source.chmod(EXECUTABLE)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
