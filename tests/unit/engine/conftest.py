"""A world for each test of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squidex_operator.api import reasons
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World


@pytest.fixture
def world() -> World:
    return cluster.World()


@pytest.fixture
def ready(world: World) -> World:
    """A world with a token in a Secret."""
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("True", reasons.Reason.TOKEN_VALID)
    world.cluster.calls.clear()
    world.squidex.calls.clear()
    return world
