"""Others that want the same fields: they are named, or answered, but never for ever."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.side_by_side import Place

PATIENCE = 60.0
"""Seconds: more than the second wait after a failure."""


def another_manager_that_applies_our_key(place: Place) -> None:
    """It is named; what it wrote stays, and no token is fetched again and again for it."""
    place.ready()
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop", "namespace": place.namespace}}
    apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-"]
    place.kubectl(*apply, text=json.dumps({**theirs, "data": {"token": "dGhlaXJz"}}))
    seen = place.wait_condition("Ready", "False", "TargetConflict")
    assert "gitops" in seen["message"]
    assert ".data.token" in seen["message"]
    place.wait(lambda: place.get("sqc", "shop")["status"]["failures"] >= 2, "another try", deadline=PATIENCE)
    assert place.token_requests() == 2
    place.kubectl(*apply, text=json.dumps(theirs))
    place.wait_ready(deadline=PATIENCE)
    assert place.accepts(place.token()) == 200
    assert place.token_requests() == 2


def _rival(place: Place, key: str) -> int:
    """Damage a key again and again until the operator says that it is enough; how often it was mended."""
    place.ready()
    mark = place.sandbox.control_plane.audit_mark()
    change = json.dumps({"stringData": {key: "theirs"}})

    def is_answered() -> bool:
        return place.get("secret", "shop")["data"][key] != "dGhlaXJz" or place.failing() == "TargetConflict"

    while place.failing() != "TargetConflict":
        place.kubectl("patch", "secret", "shop", "--field-manager=rival", "-p", change)
        place.wait(is_answered, f"an answer to the change of {key}")
        assert place.operator_requests(mark).count("patch secrets shop") < 30
    seen = place.wait_condition("RefreshFailing", "True", "TargetConflict")
    assert "keeps changing" in seen["message"]
    return place.operator_requests(mark).count("patch secrets shop")


def a_controller_that_keeps_changing_the_target(place: Place) -> None:
    """It is answered a bounded number of times, and then by a condition."""
    assert _rival(place, "tokenType") >= 5
    assert place.token_requests() == 1


def a_controller_that_keeps_changing_the_token(place: Place) -> None:
    """Each answer takes another token, so there are few of them."""
    assert _rival(place, "token") >= 5
    assert place.token_requests() <= 15


SCENARIOS = [
    another_manager_that_applies_our_key,
    a_controller_that_keeps_changing_the_target,
    a_controller_that_keeps_changing_the_token,
]
