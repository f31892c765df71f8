"""How large an image is: what it brings on top of its base, and the Python below that."""

from __future__ import annotations

import json
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from sandbox.images.store import Store

if TYPE_CHECKING:
    from sandbox.images.shipped import Built

MIB = 1024 * 1024
CHUNK = 4 * MIB

INTERPRETER = """
import os, pathlib, sys, sysconfig
files = {pathlib.Path(sys._base_executable).resolve()}
files |= {path.resolve() for path in pathlib.Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*")}
files |= {pathlib.Path(top, name) for top, _, names in os.walk(sysconfig.get_path("stdlib")) for name in names}
print(sum(path.lstat().st_size for path in files))
"""


@dataclass(frozen=True)
class Sizes:
    """In bytes, as they lie on a disk unless said otherwise."""

    ours: int
    """The layers on top of the base."""
    ours_compressed: int
    """The same as a registry has them (gzip)."""
    interpreter: int
    """Python in the base: program, library, standard library with its bytecode."""
    total: int
    """All layers."""

    def __str__(self) -> str:
        return (
            f"our layers {self.ours / MIB:.0f} MiB ({self.ours_compressed / MIB:.0f} MiB compressed), with the Python below "
            f"them {(self.ours + self.interpreter) / MIB:.0f} MiB; the image {self.total / MIB:.0f} MiB"
        )


def measure(built: Built) -> Sizes:
    """The sizes of an image; reads its archive, and runs its Python. Raises ImageUnavailable."""
    store = Store()
    below = len(store.inspect(built.base)["rootfs"]["diff_ids"])
    ours = compressed = total = 0
    with tarfile.open(built.archive) as archive:
        (manifest,) = json.load(_file(archive, "manifest.json"))
        for number, name in enumerate(manifest["Layers"]):
            size = archive.getmember(name).size
            total += size
            if number >= below:
                ours += size
                compressed += _compressed(_file(archive, name))
    return Sizes(ours, compressed, _interpreter(store, built.tag), total)


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None
    return found


def _compressed(stream: IO[bytes]) -> int:
    compressor = zlib.compressobj()
    size = 0
    while chunk := stream.read(CHUNK):
        size += len(compressor.compress(chunk))
    return size + len(compressor.flush())


def _interpreter(store: Store, tag: str) -> int:
    environment = dict(entry.split("=", 1) for entry in store.inspect(tag)["config"]["Env"])
    with store.mounted(tag) as root:
        command = ["chroot", str(root), "python", "-c", INTERPRETER]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
