"""The ways to get the programs, in order."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sandbox.binaries import gobuild, releases
from sandbox.binaries.lock import exclusive
from sandbox.binaries.model import PROGRAMS, Binaries, Unavailable, missing
from sandbox.binaries.progress import say
from sandbox.binaries.settings import Settings
from sandbox.errors import BinariesNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTHING_WORKED = """\
The sandbox needs {programs}, and none of the four ways to get them worked:

1. KUBEBUILDER_ASSETS: {assets}
   -> set it to a folder that holds all four
2. The cache: {cache}
   -> copy that folder from a machine of the same kind where the sandbox works
3. The official releases: {releases}
   -> allow access to {hosts},
      or name mirrors in SANDBOX_KUBERNETES_RELEASES and SANDBOX_ETCD_RELEASES
4. A build with Go: {build}
   -> install a Go that is new enough, or let pip and Go download what they need (a mirror will do)
"""


def find(settings: Settings | None = None, *, keep_work: bool = False) -> Binaries:
    """The first complete set of programs, which may take minutes; raises BinariesNotFound.

    `keep_work` leaves what was compiled for another build that follows and removes it.

    A set always comes from one place, since programs of different versions need not get on with each other.
    So KUBEBUILDER_ASSETS that lack kube-controller-manager, as those of envtest do, are passed over, with a
    note.
    """
    settings = settings or Settings()
    failures: dict[str, str] = {}
    for name, folder in (("assets", settings.assets), ("cache", settings.programs)):
        lacking = missing(folder) if folder else list(PROGRAMS)
        if folder and not lacking:
            return Binaries(folder)
        failures[name] = _lacks(folder, lacking)
    if settings.assets:
        say(f"KUBEBUILDER_ASSETS is passed over: {failures['assets']}")
    with exclusive(settings.cache / "lock"):
        for name, source in (("releases", releases.download), ("build", gobuild.build)):
            if _fill(settings, source, name, failures):
                if not keep_work:
                    shutil.rmtree(settings.work, ignore_errors=True)
                return Binaries(settings.programs)
    raise BinariesNotFound(
        NOTHING_WORKED.format(
            programs=", ".join(PROGRAMS),
            hosts=f"{settings.kubernetes_releases} and {settings.etcd_releases}",
            **failures,
        )
    )


def _fill(
    settings: Settings, source: Callable[[Settings, list[str]], None], name: str, failures: dict[str, str]
) -> bool:
    """Let one source add what is missing; whether all is there now."""
    lacking = missing(settings.programs)  # again: we may have waited for another process that got them
    try:
        if lacking:
            source(settings, lacking)
    except Unavailable as error:
        failures[name] = str(error)
        if name == "releases":
            say(f"no official releases: {error}")
        return False
    return True


def _lacks(folder: Path | None, lacking: list[str]) -> str:
    if folder is None:
        return "not set"
    if lacking == list(PROGRAMS):
        return f"{folder} holds none of them"
    return f"{folder} lacks {', '.join(lacking)}"
