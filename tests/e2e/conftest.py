"""One sandbox with one operator for all e2e tests; each test has a namespace and a Squidex client of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from sandbox.environment import Sandbox
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.operator_process import Operator

OPERATOR_ARGS = ("--keys-interval=2s", "--relist-interval=20s", "--client-fetch-burst=50")
"""Shorter intervals than in life, so that tests need not wait for them."""

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder is e2e."""
    for item in items:
        if "/tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The control plane with the shipped manifests, and the stand-in Squidex; no operator."""
    with Sandbox() as started:
        yield started


@pytest.fixture(scope="session")
def _shared_operator(sandbox: Sandbox) -> Operator:
    return sandbox.start_operator(extra_args=OPERATOR_ARGS)


@pytest.fixture
def operator(_shared_operator: Operator) -> Operator:
    """The operator for all namespaces, running and ready, whatever the test before did to it."""
    if not _shared_operator.program.alive:
        _shared_operator.start()
    _shared_operator.wait_ready()
    return _shared_operator


@pytest.fixture
def empty_world(sandbox: Sandbox) -> Iterator[World]:
    """A namespace of its own, with no operator promised."""
    world = World(sandbox, sandbox.squidex, f"t{next(_numbers)}")
    world.set_up()
    yield world
    sandbox.squidex.patch({"faults": []})
    world.tear_down()


@pytest.fixture
def world(operator: Operator, empty_world: World) -> World:
    """A namespace of its own, served by the shared operator."""
    return empty_world
