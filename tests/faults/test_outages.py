"""The API server goes and comes back: nothing is lost, and what happened meanwhile is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.operator_process import Operator
    from tests.e2e.world import World

PATIENCE = 45.0
"""Seconds: the API server's start, and one wait after a failure."""


def test_a_token_that_was_fetched_while_the_api_server_went_is_written_later(world: World, operator: Operator) -> None:
    world.ready("before")
    world.squidex.patch({"faults": [{"on": "token", "client": world.client_id, "kind": "slow", "seconds": 2}]})
    world.create()
    world.wait(lambda: world.squidex.state()["counts"]["inFlight"].get("token"), "the token request")
    world.sandbox.control_plane.apiserver.kill()
    world.wait(lambda: world.token_requests() == 2, "its answer")
    world.sandbox.control_plane.apiserver.start()
    world.sandbox.control_plane.wait_ready()
    world.wait_ready(deadline=PATIENCE)
    assert world.token_requests() == 2
    assert world.accepts(world.token()) == 200
    # The watches are back.
    old = world.token("before")
    world.kubectl("delete", "secret", "before")
    world.new_token(old, "before")
    assert operator.program.alive


def test_what_was_deleted_in_a_gap_of_the_watch_is_found_by_the_list(world: World, operator: Operator) -> None:
    world.ready()
    world.ready("gone", target={"name": "gone-token"})
    old = world.token()
    control_plane = world.sandbox.control_plane
    mark = control_plane.audit_mark()
    operator.program.pause()
    try:
        # The connections end here, so that nothing of what follows waits in them for the operator.
        control_plane.restart_apiserver()
        world.kubectl("delete", "sqc", "gone")
        # Garbage collection may be faster with the second.
        world.kubectl("delete", "secret", "shop", "gone-token", "--ignore-not-found")
        control_plane.compact()
        control_plane.restart_apiserver()
    finally:
        operator.program.resume()
    world.wait(lambda: _was_listed_again(world, mark), "Kopf to be told 410, and to list")
    world.new_token(old)
    assert world.token_requests() == 3
    # The SquidexClient that went is forgotten: nothing of it comes back.
    assert "gone" not in operator.get("/metrics")[1]
    assert world.find("secret", "gone-token") is None
    assert operator.program.alive


def _was_listed_again(world: World, mark: int) -> bool:
    """Our own lists have a `continue` from the start; Kopf's have none, and come after a 410."""
    rows = world.sandbox.control_plane.requests_of("squidex-operator/squidex-operator", since=mark)
    listed = {row.resource for row in rows if row.verb == "list" and "continue" not in row.uri}
    return listed == {"secrets", "squidexclients"}
