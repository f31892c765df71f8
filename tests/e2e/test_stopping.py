"""Stopping: at once where nothing is in work, and not before what is in work is done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox.controlplane import kubeconfig
from sandbox.operator_process import Operator

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.environment import Sandbox
    from tests.e2e.world import World


def test_an_idle_operator_stops_at_once(world: World, operator: Operator) -> None:
    world.ready()
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 4, "Kopf waits five seconds for tasks that are not its own"
    assert "stopping" in operator.program.output()


def test_a_token_that_is_being_fetched_is_written_before_the_end(world: World, operator: Operator) -> None:
    # Longer than the five seconds after which Kopf would cancel it.
    world.squidex.patch({"faults": [{"kind": "slow", "on": "token", "client": world.client_id, "seconds": 6}]})
    world.create()
    world.wait(lambda: world.squidex.state()["counts"]["inFlight"].get("token"), "the request")
    assert operator.stop(timeout=20) == 0
    assert world.accepts(world.token()) == 200
    assert world.token_requests() == 1


def test_it_stops_while_it_waits_for_the_api_server(sandbox: Sandbox, tmp_path: Path) -> None:
    nowhere = kubeconfig.write(
        tmp_path / "kubeconfig",
        server="https://127.0.0.1:9",
        ca=sandbox.control_plane.ca_file.read_bytes(),
        user="nobody",
        auth="a-token",
    )
    operator = Operator(sandbox.home, kubeconfig=nowhere, name="waiting")
    try:
        operator.start(wait=False)
        operator.program.wait_until(
            lambda: "waiting for the API server" in operator.program.output(), timeout=20, what="the log line"
        )
        assert operator.get("/readyz")[0] == 503
        # Not by the signal, which the kernel would not deliver to the PID 1 of a container.
        assert operator.stop() == 0
    finally:
        operator.kill()
