"""Images apart from those of the machine, in a folder of the cache; buildah works on them, which needs root but no daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import packages, places
from sandbox.binaries.progress import say
from sandbox.errors import ImageUnavailable, PackageMissing, SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
HOW = "SANDBOX_BASE_IMAGE"
PULL_PATIENCE = 60.0


class Store:
    """Images in `folder`."""

    name = "buildah"

    def __init__(self, folder: Path | None = None) -> None:
        """By default, the one that is kept from run to run."""
        self.folder = folder or places.cache() / "images"

    def buildah(self, *args: str | Path, check: bool = True, timeout: float | None = None) -> str:
        """Run buildah; what it says. Raises ImageUnavailable if `check`."""
        where = ["--root", self.folder / "storage", "--runroot", self.folder / "run"]
        command = [str(part) for part in ("buildah", "--storage-driver", "vfs", *where, *args)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ImageUnavailable(f"`buildah {args[0]}` took more than {timeout} s") from None
        if check and done.returncode != 0:
            raise ImageUnavailable(f"`buildah {args[0]}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}".rstrip())
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        return bool(self.buildah("images", "--quiet", image, check=False))

    def identity(self, image: str) -> str:
        """What changes with the image's content."""
        return self.buildah("images", "--quiet", "--no-trunc", image).splitlines()[0]

    def inspect(self, image: str) -> dict[str, Any]:
        """Its OCI configuration."""
        return dict(json.loads(self.buildah("inspect", "--type", "image", image))["OCIv1"])

    def get_base(self, image: str) -> None:
        """Get the base image: from its registry, or else a stand-in of Debian packages; raises ImageUnavailable.

        SANDBOX_BASE_IMAGE says which of the two: "pull" or "debootstrap"; by default, the first that works.
        """
        if self.has(image):
            return
        how = os.environ.get(HOW, "")
        if how in ("", "pull"):
            say(f"pulling {image}: usually half a minute")
            try:
                self.buildah("pull", "--quiet", image, timeout=PULL_PATIENCE)
            except ImageUnavailable as error:
                if how == "pull":
                    raise
                say(f"{image} cannot be pulled ({str(error).splitlines()[-1].strip()[-200:]})")
            else:
                return
        self._debootstrap(image)

    def stands_in(self, image: str) -> bool:
        """Whether a base image is a stand-in: the official one says the version of its Python."""
        return not any(entry.startswith("PYTHON_VERSION=") for entry in self.inspect(image)["config"].get("Env", []))

    def _debootstrap(self, image: str) -> None:
        """A base image of Debian packages, laid out like the official one as far as the Dockerfile can tell."""
        try:
            packages.install({"debootstrap": "debootstrap"})
        except PackageMissing as error:
            raise ImageUnavailable(
                f"the base image {image} cannot be had, nor one that stands in for it: {error}"
            ) from error
        say("making a stand-in for it of Debian packages with debootstrap: usually a minute")
        root = self.folder / "debian"
        shutil.rmtree(root, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            release = image.rpartition("-")[2]
            included = "--include=python3,python3-venv,ca-certificates"
            command = ["debootstrap", "--variant=minbase", included, release, str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise ImageUnavailable(f"debootstrap {release} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            container = self.buildah("from", "scratch")
            stack.callback(self.buildah, "rm", container)
            self.buildah("add", "--quiet", container, root, "/")
            path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.buildah("config", "--env", path, container)
            self.buildah("commit", "--quiet", container, f"localhost/{image}")

    def build(self, context: Path, tag: str, network_settings: Path) -> None:
        """Build the Dockerfile of a folder; raises SandboxError, since a Dockerfile that does not build is our own error.

        `network_settings` is a folder for the settings of pip.
        """
        mounts = _network_settings(network_settings)
        try:
            self.buildah("bud", "--isolation", "chroot", "--pull=never", *mounts, "--tag", tag, context)
        except ImageUnavailable as error:
            raise SandboxError(str(error)) from error
        finally:
            self.buildah("rmi", "--prune", check=False)

    def export(self, tag: str, name: str, file: Path) -> None:
        """Write an image as `docker save` does, called `name`."""
        file.unlink(missing_ok=True)
        self.buildah("push", "--quiet", tag, f"docker-archive:{file}:{name}")

    @contextlib.contextmanager
    def mounted(self, tag: str) -> Iterator[Path]:
        """An image's files, in a container that goes afterwards."""
        with contextlib.ExitStack() as stack:
            container = self.buildah("from", "--pull-never", tag)
            stack.callback(self.buildah, "rm", container)
            root = self.buildah("mount", container)
            stack.callback(self.buildah, "umount", container)
            yield Path(root)


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
