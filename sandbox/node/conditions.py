"""What a machine must have for a node, and what is got for it from the distribution."""

from __future__ import annotations

import os
import subprocess
import sys

from sandbox import packages
from sandbox.errors import NodeUnavailable, PackageMissing, last_line

PACKAGES = {"runc": "runc", "ip": "iproute2", "unshare": "util-linux"}
"""Programs and the Debian packages that have them. runc is not built here: it needs a C compiler and libseccomp."""

OTHER_WAY = """\
The other way is a cluster of your own, for example one of kind (https://kind.sigs.k8s.io):
    kind create cluster
    make e2e KUBECONFIG=~/.kube/config"""


def unavailable(why: str) -> NodeUnavailable:
    """The one message: why not, and the other way."""
    return NodeUnavailable(f"There is no node: {why}.\n{OTHER_WAY}")


def prepare() -> None:
    """Make sure that a node can run here; installs packages where that may be done. Raises NodeUnavailable."""
    if sys.platform != "linux":
        raise unavailable(f"it needs Linux, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise unavailable("it needs root, for namespaces and cgroups: run this as root (sudo)")
    try:
        packages.install(PACKAGES)
    except PackageMissing as error:
        raise unavailable(str(error)) from error
    # A root without the right capabilities, as in many containers, cannot make namespaces.
    command = [packages.which("unshare") or "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"]
    done = subprocess.run([*command, "--fork", "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise unavailable(f"this root may not make namespaces ({last_line(done)})")
