"""Tests whose pods run: on the sandbox's real node, or in a cluster that --kubeconfig (make e2e KUBECONFIG=…) names.

They have the marker `node`; `make test` leaves them out, `make e2e` and .ci/run run them. Where there can be no node (no
root, no Linux, a package that cannot be had) they are skipped, and the reason says what was missing.

Fixtures:

cluster     one for the whole run, see cluster.py: kubectl(), apply(), get(), find(), wait(), wait_pod(), exec(), logs(),
            import_image(), `image` (the operator's own image, already loaded: it has Python and sh), `squidex` (the
            stand-in: https with an authority of its own, `squidex.url` is reached by pods and by this process alike),
            `node` (the sandbox's node, None in somebody's cluster; need_node() skips then).
shipped     the operator's Deployment as it ships, unmodified, ready.
operator    the same with shorter intervals (OPERATOR_ENV), ready, whatever the test before did to it.
shop        a namespace of its own with credentials, CA and a client in the stand-in: the World of tests/e2e/world.py
            (create(), ready(), token(), new_token(), accepts(), kubectl(), …), served by `operator`.

    def test_a_pod_reads_the_token(cluster: Cluster, shop: World) -> None:
        shop.ready()                                     # SquidexClient and Secret "shop"
        shop.apply(pod(shop.namespace, cluster.image))   # your manifest; imagePullPolicy: IfNotPresent
        cluster.wait_pod(shop.namespace, "web")
        assert cluster.exec(shop.namespace, "web", "cat", "/var/run/squidex/token") == shop.token()
        shop.squidex.patch({"key": "replace"})           # all tokens die; the operator looks every 2 s

There is no DNS and no Service but "kubernetes" on the sandbox's node: use addresses, or hostAliases. Images are not pulled:
use `cluster.image`. The node's kubelet has syncFrequency 10s (the default is 1m): a changed Secret is seen within some 15 s.
Time on the node: cluster.node.cell.run("sh", "-c", …) runs a program in the node's namespaces, where the pods' volumes are
in `cluster.node.files.kubelet_root / "pods" / UID / "volumes"`; node.kill_container(), node.restart_kubelet(), node.ctr().
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.errors import BinariesNotFound, ImageUnavailable, NodeUnavailable
from sandbox.operator_process import NAMESPACE
from sandbox.processes import Household
from tests.e2e.world import World
from tests.pods import cluster as clusters
from tests.pods.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

DEPLOYMENT = "deployment/squidex-operator"
OPERATOR_ENV = {
    "SQUIDEX_OPERATOR_KEYS_INTERVAL": "2s",
    "SQUIDEX_OPERATOR_RELIST_INTERVAL": "20s",
    "SQUIDEX_OPERATOR_CLIENT_FETCH_BURST": "50",
}
"""Shorter intervals than in life, so that tests need not wait for them."""

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which cluster."""
    parser.addoption("--kubeconfig", metavar="FILE", help="run the tests of tests/pods in this cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder takes a node, and is patient."""
    for item in items:
        if "/tests/pods/" in str(item.path):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure goes what the operator said."""
    report = yield
    found = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(found, Cluster):
        log = found.kubectl("logs", DEPLOYMENT, "--tail=40", namespace=NAMESPACE, check=False)
        report.sections.append(("the operator's log", log.stdout or log.stderr))
    return report


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster, the operator's image in it, its Deployment applied as it ships."""
    if kubeconfig := request.config.getoption("--kubeconfig", default=None):
        with Household() as home:
            found = clusters.foreign(Path(kubeconfig).expanduser(), home)
            clusters.install(found)
            yield found
        return
    try:
        sandbox, built = clusters.sandbox_with_a_node()
        sandbox.start()
    except (NodeUnavailable, ImageUnavailable, BinariesNotFound) as error:
        pytest.skip(" ".join(str(error).split()))
    try:
        yield Cluster(sandbox.control_plane, sandbox.squidex, image=built, node=sandbox.node)
    finally:
        sandbox.stop()


@pytest.fixture
def shipped(cluster: Cluster) -> Cluster:
    """The Deployment as it ships, ready."""
    _set_env(cluster, dict.fromkeys(OPERATOR_ENV, ""))
    cluster.wait_for_operator()
    return cluster


@pytest.fixture
def operator(cluster: Cluster) -> Cluster:
    """The Deployment with shorter intervals, ready."""
    _set_env(cluster, OPERATOR_ENV)
    cluster.wait_for_operator()
    return cluster


def _set_env(cluster: Cluster, env: dict[str, str]) -> None:
    """Set variables, or take them away, where that is not so yet."""
    container = cluster.get(NAMESPACE, "deployment", "squidex-operator")["spec"]["template"]["spec"]["containers"][0]
    now = {row["name"]: row.get("value", "") for row in container.get("env", [])}
    if all(now.get(name, "") == value for name, value in env.items()):
        return
    words = [f"{name}={value}" if value else f"{name}-" for name, value in env.items()]
    cluster.kubectl("set", "env", DEPLOYMENT, *words, namespace=NAMESPACE)
    cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=120s", namespace=NAMESPACE)


@pytest.fixture
def shop(cluster: Cluster, operator: Cluster) -> Iterator[World]:
    """A namespace of its own, served by the operator's Deployment."""
    world = World(cluster, cluster.squidex, f"p{next(_numbers)}")  # type: ignore[arg-type]  # it has what a World asks for
    world.set_up()
    yield world
    cluster.squidex.patch({"faults": []})
    world.tear_down()
