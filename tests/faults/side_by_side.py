"""Scenarios that spend their time waiting for the operator's next try run at the same time, each in a namespace of its own."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any

from tests.e2e.world import World, condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.environment import Sandbox
    from tests.faults.fault_proxy import Fault, FaultProxy

_faults_lock = threading.Lock()


class Place(World):
    """A namespace named after its scenario; a dozen of them wait at the same time."""

    pause = 0.2

    def __init__(self, sandbox: Sandbox, proxy: FaultProxy, namespace: str) -> None:
        super().__init__(sandbox, sandbox.squidex, namespace)
        self._proxy = proxy

    def fault(self, method: str, rest: str, **what: Any) -> Fault:
        """One request of the operator in this namespace meets a fault on its way."""
        return self._proxy.add(method, f"/namespaces/{self.namespace}/{rest}", times=1, **what)

    def slow_tokens(self, seconds: float) -> None:
        """From now on, Squidex takes so long to give this client a token."""
        fault = {"on": "token", "client": self.client_id, "kind": "slow", "seconds": seconds}
        with _faults_lock:
            self.squidex.patch({"faults": [*self.squidex.state()["faults"], fault]})

    def wait_fetching(self, since: int) -> None:
        """Wait until the operator has read the credentials: the token request comes next."""
        self.wait(lambda: "get secrets credentials" in self.operator_requests(since, writes=False), "the fetch")

    def wait_token_requests(self, count: int) -> None:
        """Wait until Squidex has answered so many token requests."""
        self.wait(lambda: self.token_requests() >= count, f"{count} token requests")

    def failing(self) -> str:
        """The reason of RefreshFailing; empty where nothing fails."""
        seen = condition(self.get("sqc", "shop"), "RefreshFailing")
        return str(seen["reason"]) if seen.get("status") == "True" else ""


def run(
    scenarios: Sequence[Callable[[Place], None]], sandbox: Sandbox, proxy: FaultProxy
) -> Iterator[dict[str, concurrent.futures.Future[None]]]:
    """The futures of all scenarios, by their names."""
    names = [each.__name__ for each in scenarios]
    places = [Place(sandbox, proxy, namespace_of(each)) for each in scenarios]
    with concurrent.futures.ThreadPoolExecutor(len(scenarios)) as pool:
        played = [pool.submit(_play, each, place) for each, place in zip(scenarios, places, strict=True)]
        yield dict(zip(names, played, strict=True))
        concurrent.futures.wait(played)
    sandbox.squidex.patch({"faults": []})
    for place in places:
        place.tear_down()


def namespace_of(scenario: Callable[[Place], None]) -> str:
    """Where a scenario plays."""
    return scenario.__name__.replace("_", "-")[:63]


def _play(scenario: Callable[[Place], None], place: Place) -> None:
    place.set_up()
    scenario(place)
