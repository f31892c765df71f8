"""What can go wrong between the operator and Kubernetes, scenario by scenario, all of them at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import side_by_side
from tests.faults.scenarios import access, rivals, writes

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator
    from tests.faults.fault_proxy import FaultProxy

SERVED = [*writes.SCENARIOS, *rivals.SCENARIOS]
"""By one operator. The others start one themselves."""


@pytest.fixture(scope="module")
def played(
    sandbox: Sandbox, fault_proxy: FaultProxy, behind_proxy: Callable[..., Operator]
) -> Iterator[dict[str, concurrent.futures.Future[None]]]:
    """All of them."""
    operator = behind_proxy("scenarios", namespaces=[side_by_side.namespace_of(each) for each in SERVED])
    operator.start()
    yield from side_by_side.run([*access.SCENARIOS, *SERVED], sandbox, fault_proxy)
    operator.stop()


@pytest.mark.parametrize("name", [each.__name__ for each in [*SERVED, *access.SCENARIOS]])
def test_all_is_well_after(name: str, played: dict[str, concurrent.futures.Future[None]]) -> None:
    played[name].result()
