"""Where the sandbox keeps things between two runs: the XDG folders of this user."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "squidex-operator"
REPOSITORY = Path(__file__).resolve().parent.parent


def _xdg(variable: str, default: str) -> Path:
    """The specification says that a relative path is to be ignored."""
    value = os.environ.get(variable, "")
    return (Path(value) if value.startswith("/") else Path.home() / default) / NAME


def cache() -> Path:
    """Things that can be made again: the control plane's programs."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """What runs in the background, and the logs of what failed."""
    return _xdg("XDG_STATE_HOME", ".local/state")
