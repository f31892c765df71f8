"""The image that ships, in its pod: what is in it, how large it is, how soon it is ready, and that it lacks nothing."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

import squidex_operator
from sandbox.images import sizes
from sandbox.operator_process import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.world import World
    from tests.pods.cluster import Cluster

LARGEST = 120 * sizes.MIB
"""Bytes of our layers, as they lie on a disk, and of the Python below them."""

START = """
import subprocess, sys, time, urllib.request
began = time.monotonic()
# Beside the one that runs here, and for a namespace that it finds nothing in.
operator = subprocess.Popen(["squidex-operator", "--health-listen=127.0.0.1:8099", "--namespace=default"],
                            stderr=subprocess.DEVNULL)
while True:
    try:
        with urllib.request.urlopen("http://127.0.0.1:8099/readyz"):
            break
    except OSError:
        assert operator.poll() is None and time.monotonic() < began + 60
        time.sleep(0.005)
print(time.monotonic() - began)
operator.terminate()
sys.exit(operator.wait())
"""

LOOK = """
import os, sys
import squidex_operator.process
files = [module.__spec__.cached for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
print("\\n".join(file for file in files if file and not os.path.exists(file)))
"""


def run(cluster: Cluster, *command: str, check: bool = True) -> str:
    """Run a program in the operator's pod; what it says."""
    return cluster.exec(NAMESPACE, cluster.wait_for_operator()["metadata"]["name"], *command, check=check)


def test_it_is_small(shipped: Cluster, figure: Callable[[str], None]) -> None:
    """What a node has to fetch and to keep for it, beyond what any image of the same distribution brings."""
    if shipped.built is None:
        pytest.skip("the image of this cluster was not built here")
    found = sizes.measure(shipped.built)
    figure(f"{found}, on {'a stand-in for ' if shipped.built.stands_in else ''}{shipped.built.base}")
    assert 0 < found.ours + found.interpreter < LARGEST


def test_it_is_ready_soon(shipped: Cluster, figure: Callable[[str], None]) -> None:
    """How soon is told at the end of the run."""
    took = sorted(float(run(shipped, "python", "-c", START)) for _ in range(3))
    figure(f"ready {took[0]:.2f}, {took[1]:.2f} and {took[2]:.2f} s after its start")


def test_it_says_its_version(shipped: Cluster) -> None:
    assert run(shipped, "squidex-operator", "--version") == f"squidex-operator {squidex_operator.__version__}\n"


def test_nothing_in_it_belongs_to_its_user(shipped: Cluster) -> None:
    assert run(shipped, "sh", "-c", "find / -xdev -uid $(id -u) 2>/dev/null || true") == ""


@pytest.mark.parametrize("program", ["pip", "gcc", "cc", "git"])
def test_what_only_builds_is_not_in_it(shipped: Cluster, program: str) -> None:
    assert run(shipped, "sh", "-c", f"command -v {program} || echo none") == "none\n"
    assert run(shipped, "sh", "-c", "python -c 'import pip' 2>/dev/null || echo none") == "none\n"


def test_everything_that_it_loads_was_compiled_ahead(shipped: Cluster) -> None:
    assert run(shipped, "python", "-c", LOOK).split() == []


def test_what_was_left_out_of_it_is_not_missed(cluster: Cluster, shop: World) -> None:
    """All the reasons for a token in one life: generated classes of the Kubernetes client are not there, 74 MB of them."""
    refused = run(cluster, "sh", "-c", "python -c 'import kubernetes.aio.client as c; c.V1Pod' 2>&1 || true")
    assert "ModuleNotFoundError" in refused
    before = shop.ready()
    shop.squidex.patch({"clients": {shop.client_id: "another"}})
    shop.set_credentials(secret="another")
    second = shop.new_token(base64.b64decode(before["data"]["token"]).decode())
    shop.kubectl("delete", "secret", "shop")
    third = shop.new_token(second)
    shop.squidex.patch({"key": "replace"})
    shop.new_token(third)
    shop.kubectl("patch", "secret", "shop", "--type=merge", "--patch", '{"data": {"tokenType": null}}')
    shop.wait(lambda: "tokenType" in shop.get("secret", "shop")["data"], "the missing key")
    assert shop.token_requests() == 4
    shop.kubectl("delete", "sqc", "shop")
    shop.wait(lambda: shop.find("secret", "shop") is None, "the Secret to go")
    assert "Traceback" not in cluster.logs(NAMESPACE, "deployment/squidex-operator")
    assert "unforeseen" not in cluster.logs(NAMESPACE, "deployment/squidex-operator")
