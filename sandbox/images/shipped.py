"""The image of the operator as it ships: built once for each state of its sources, kept as an archive in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import places
from sandbox.binaries.lock import exclusive
from sandbox.binaries.progress import say, seconds
from sandbox.errors import ImageUnavailable, PackageMissing
from sandbox.images import sizes
from sandbox.images.store import Store
from sandbox.packages import install

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "squidex-operator"
KEPT = 3
"""How many states of the sources have their image kept: each is a third of a gigabyte."""
SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements", "operator")


@dataclass(frozen=True)
class Built:
    """An image: the archive to load, and what it is called in there and in the store."""

    archive: Path
    name: str
    tag: str
    base: str
    stands_in: bool
    """Whether the base is not the official one."""


def build(repository: Path = places.REPOSITORY) -> Built:
    """The image of what is in the working tree; raises ImageUnavailable where none can be built."""
    if os.geteuid() != 0:
        raise ImageUnavailable("images are built as root: that takes mounts")
    try:
        install({"buildah": "buildah"})
    except PackageMissing as error:
        raise ImageUnavailable(str(error)) from error
    store = Store()
    base = base_image(repository)
    with exclusive(store.folder / "lock", doing="building the image"):
        store.get_base(base)
        digest = _digest(repository, store.identity(base))
        tag, archive = f"localhost/{NAME}:{digest}", store.folder / "archives" / f"{NAME}-{digest}.tar"
        name = f"docker.io/library/{_deployed(repository)}"
        built = Built(archive, name, tag, base, store.stands_in(base))
        if not archive.exists() or not store.has(tag):
            _build(store, repository, built)
        archive.touch()
        _forget_old(store, archive.parent)
        return built


def _build(store: Store, repository: Path, built: Built) -> None:
    say("building the operator's image from the Dockerfile: usually a minute")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="squidex-image-") as settings:
        store.build(repository, built.tag, Path(settings))
    built.archive.parent.mkdir(exist_ok=True)
    unfinished = built.archive.with_suffix(".unfinished")
    store.export(built.tag, built.name, unfinished)
    unfinished.replace(built.archive)
    say(f"built in {seconds(time.monotonic() - started)}: {sizes.measure(built)}")


def base_image(repository: Path = places.REPOSITORY) -> str:
    """What the Dockerfile starts from."""
    found = re.search(r"^FROM (\S+)", (repository / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise ImageUnavailable("the Dockerfile names no base image")
    return found[1]


def _deployed(repository: Path) -> str:
    """The image's name in the Deployment that ships."""
    text = (repository / "manifests" / "base" / "deployment.yaml").read_text()
    found = re.search(rf"^\s*image: ({NAME}:\S+)$", text, re.MULTILINE)
    if found is None:
        raise ImageUnavailable(f"the Deployment names no image {NAME}:…")
    return found[1]


def _digest(repository: Path, base: str) -> str:
    """Of all that goes into the image."""
    digest = hashlib.sha256(base.encode())
    for path in _files(repository):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(repository)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _files(repository: Path) -> Iterable[Path]:
    for source in SOURCES:
        path = repository / source
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in inside if file.is_file() and "__pycache__" not in file.parts)


def _forget_old(store: Store, folder: Path) -> None:
    archives = sorted(folder.glob(f"{NAME}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[KEPT:]:
        digest = archive.stem.removeprefix(f"{NAME}-")
        store.buildah("rmi", "--force", f"localhost/{NAME}:{digest}", check=False)
        archive.unlink(missing_ok=True)
