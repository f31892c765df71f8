"""A sandbox of its own, because its parts are broken here; operators behind a proxy that has faults."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from sandbox.controlplane.kubeconfig import write
from sandbox.environment import Sandbox
from sandbox.operator_process import Operator
from tests.e2e.world import World
from tests.faults.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder is e2e."""
    for item in items:
        if "/tests/faults/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The control plane with the shipped manifests, and the stand-in Squidex; no operator."""
    with Sandbox() as started:
        yield started


@pytest.fixture(scope="session")
def fault_proxy(sandbox: Sandbox) -> Iterator[FaultProxy]:
    """What stands between operators and the API server: without a fault, at first."""
    control_plane = sandbox.control_plane
    with FaultProxy(control_plane.url, control_plane.ca_file, sandbox.dir / "fault-proxy") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def behind_proxy(sandbox: Sandbox, fault_proxy: FaultProxy) -> Callable[..., Operator]:
    """Makes operators that reach the API server through the proxy."""
    direct = json.loads(sandbox.operator_kubeconfig().read_text())
    kubeconfig = write(
        sandbox.dir / "faults.kubeconfig",
        server=f"https://127.0.0.1:{fault_proxy.port}",
        ca=fault_proxy.ca,
        user="operator",
        auth=direct["users"][0]["user"]["token"],
    )
    args = ["--keys-interval=2s", "--relist-interval=4s", "--watch-grace=15s", "--client-fetch-burst=50"]

    def make(name: str, *, namespaces: Sequence[str] = ()) -> Operator:
        return Operator(sandbox.home, kubeconfig=kubeconfig, name=name, namespaces=namespaces, extra_args=args)

    return make


@pytest.fixture(scope="module")
def _operator_of_module(behind_proxy: Callable[..., Operator]) -> Iterator[Operator]:
    operator = behind_proxy("faults")
    yield operator
    operator.stop()


@pytest.fixture
def operator(_operator_of_module: Operator) -> Operator:
    """The operator for all namespaces, running and ready, whatever the test before did to it."""
    if not _operator_of_module.program.alive:
        _operator_of_module.start()
    _operator_of_module.wait_ready()
    return _operator_of_module


@pytest.fixture
def empty_world(sandbox: Sandbox) -> Iterator[World]:
    """A namespace of its own, with no operator promised."""
    world = World(sandbox, sandbox.squidex, f"faults{next(_numbers)}")
    world.set_up()
    yield world
    sandbox.squidex.patch({"faults": []})
    world.tear_down()


@pytest.fixture
def world(operator: Operator, empty_world: World) -> World:
    """A namespace of its own, served by the shared operator behind the proxy."""
    return empty_world
