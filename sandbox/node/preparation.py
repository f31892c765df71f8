"""All that a node with the operator on it takes, got before anything is started, where progress can be seen."""

from __future__ import annotations

from sandbox import images
from sandbox.binaries.progress import say
from sandbox.node import binaries, conditions


def prepare() -> images.Built:
    """Packages, programs, and the operator's image; returns the image.

    Raises NodeUnavailable, ImageUnavailable or BinariesNotFound where the machine lacks something, SandboxError where
    the image cannot be built although nothing is lacking.
    """
    conditions.prepare()
    binaries.find()
    built = images.build()
    if built.stands_in:
        say(f"the image's base is not {built.base}, which could not be pulled, but a stand-in of Debian packages")
    return built
