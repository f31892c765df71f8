"""Writes that fail, get lost, come late, or meet somebody else's: no token is lost, none is fetched twice, nobody is harmed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.faults import side_by_side

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterator

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator
    from tests.faults.proxies import Fault, FaultProxy
    from tests.faults.side_by_side import Place

_proxies: list[FaultProxy] = []

PATIENCE = 60.0
"""Seconds: more than the second wait after a failure."""


def _fault(place: Place, method: str, rest: str, **what: object) -> Fault:
    return _proxies[0].add(method, f"/namespaces/{place.namespace}/{rest}", times=1, **what)


def _unavailable(place: Place, status: int, **what: object) -> None:
    fault = _fault(place, "POST", "secrets", status=status, **what)
    place.create()
    place.wait_condition("RefreshFailing", "True", "KubernetesError")
    place.wait_ready(deadline=PATIENCE)
    assert fault.seen == 1
    assert place.token_requests() == 1


def a_create_that_is_answered_with_429(place: Place) -> None:
    """The token that was fetched is written later."""
    _unavailable(place, 429, headers={"Retry-After": "1"}, reason="TooManyRequests")


def a_create_that_is_answered_with_500(place: Place) -> None:
    """The token that was fetched is written later."""
    _unavailable(place, 500, reason="InternalError")


def a_create_whose_answer_is_lost(place: Place) -> None:
    """The Secret is there, and the operator did not hear of it: it is taken for what it is."""
    _fault(place, "POST", "secrets", lose_answer=True)
    mark = place.sandbox.control_plane.audit_mark()
    place.create()
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1
    # The audit log has no name for what a create makes. A write beyond the first would be an apply.
    assert [row for row in place.operator_requests(mark) if " secrets " in row] in (
        ["create secrets "],
        ["create secrets shop"],
    )


def an_apply_whose_answer_is_lost(place: Place) -> None:
    """As with a create."""
    place.ready()
    fault = _fault(place, "PATCH", "secrets/shop", lose_answer=True)
    place.create(scope="squidex-api openid")
    place.wait_ready(deadline=PATIENCE)
    assert fault.seen == 1
    assert place.token_requests() == 2
    assert place.accepts(place.token()) == 200


def a_status_whose_answer_is_lost(place: Place) -> None:
    """The report is not the truth: nothing but a report is written again."""
    fault = _fault(place, "PATCH", "squidexclients/shop/status", lose_answer=True)
    place.ready()
    assert fault.seen == 1
    assert place.token_requests() == 1


def a_status_that_is_refused_for_a_while(place: Place) -> None:
    """The token is there at once, the report comes when it can."""
    _fault(place, "PATCH", "squidexclients/shop/status", status=503, reason="ServiceUnavailable")
    place.create()
    place.wait(lambda: place.find("secret", "shop"), "the Secret")
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1


def a_target_deleted_while_it_is_written(place: Place) -> None:
    """What was looked at is gone: it is made anew, with the token that was fetched."""
    place.ready()
    fault = _fault(place, "PATCH", "secrets/shop", hold=True)
    place.create(scope="squidex-api openid")
    fault.wait_reached()
    place.kubectl("delete", "secret", "shop")
    fault.release()
    place.wait_ready()
    assert place.token_requests() == 2
    assert place.accepts(place.token()) == 200


def a_foreign_secret_that_comes_while_the_target_is_written(place: Place) -> None:
    """A create never merges into it."""
    fault = _fault(place, "POST", "secrets", hold=True)
    place.create()
    fault.wait_reached()
    place.kubectl("create", "secret", "generic", "shop", "--from-literal=theirs=kept")
    before = place.get("secret", "shop")
    fault.release()
    place.wait_condition("Ready", "False", "TargetNotOwned")
    assert place.get("secret", "shop") == before
    place.kubectl("delete", "secret", "shop")
    place.wait_ready()
    assert place.token_requests() == 1


def a_squidexclient_deleted_while_its_token_is_fetched(place: Place) -> None:
    """Nothing is written afterwards."""
    place.slow_tokens(2)
    mark = place.sandbox.control_plane.audit_mark()
    place.create()
    place.wait_fetching(mark)
    place.kubectl("delete", "sqc", "shop")
    place.wait_token_requests(1)
    # Whatever the operator does with that token, it does before it serves another one that comes later.
    place.create("next")
    place.wait_ready("next")
    assert place.find("secret", "shop") is None
    assert [row for row in place.operator_requests(mark) if "shop" in row] == []
    assert place.operator_requests(mark).count("create secrets next") == 1
    assert place.token_requests() == 2


def a_namespace_deleted_while_a_token_is_fetched(place: Place) -> None:
    """The write is refused, says why, and is not tried again; no other token is fetched."""
    place.slow_tokens(3)
    mark = place.sandbox.control_plane.audit_mark()
    body = place.manifest()
    body["metadata"]["finalizers"] = ["test.io/hold"]
    place.apply(body)
    place.wait_fetching(mark)
    place.kubectl("delete", "namespace", place.namespace, "--wait=false", namespaced=False)
    place.wait(lambda: place.get("sqc", "shop")["metadata"].get("deletionTimestamp"), "the deletion to begin")
    place.wait_token_requests(1)
    place.wait(lambda: place.find("secret", "credentials") is None, "the Secrets to go")
    assert place.find("secret", "shop") is None
    assert place.token_requests() == 1
    place.kubectl("patch", "sqc", "shop", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))


def a_quota_that_has_no_room(place: Place) -> None:
    """The reason is in the status; the token that was fetched is written when there is room."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": place.namespace}}
    place.apply({**quota, "spec": {"hard": {"count/secrets": "1"}}})
    path = f"/api/v1/namespaces/{place.namespace}/resourcequotas/q"

    def is_counted() -> bool:
        status, body = place.sandbox.control_plane.get(path)
        return status == 200 and (json.loads(body).get("status") or {}).get("used") == {"count/secrets": "1"}

    place.wait(is_counted, "the quota to be counted")
    place.create()
    seen = place.wait_condition("Ready", "False", "TargetRefused")
    assert "403" in seen["message"]
    place.kubectl("delete", "resourcequota", "q")
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1


def an_admission_policy_that_refuses_a_renewal(place: Place) -> None:
    """The old token stays and is Ready; the new one is written when the policy is gone."""
    place.ready()
    old = place.token()
    name = place.namespace
    expression = "!has(oldObject.metadata.labels) || !('squidex-operator.io/role' in oldObject.metadata.labels)"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": place.namespace}}
    constraints = {"resourceRules": [rule], "namespaceSelector": selector}
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    validation = {"expression": expression, "message": "Secrets of the operator are frozen."}
    spec = {"failurePolicy": "Fail", "matchConstraints": constraints, "validations": [validation]}
    policy = {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec}
    spec = {"policyName": name, "validationActions": ["Deny"]}
    place.apply(policy, {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": spec})

    def is_in_force() -> bool:
        patch = ["patch", "secret", "shop", "--dry-run=server", "-p", '{"metadata":{"annotations":{"a":"b"}}}']
        return "are frozen" in place.kubectl(*patch, check=False).stderr

    place.wait(is_in_force, "the policy to be in force")
    place.create(scope="squidex-api openid")
    place.wait_condition("RefreshFailing", "True", "TargetRefused")
    assert place.token() == old
    place.wait_condition("Ready", "True", "TokenValid")
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        place.kubectl("delete", kind, name, namespaced=False)
    place.wait(lambda: place.token() != old, "the new token", deadline=PATIENCE)
    place.wait_condition("RefreshFailing", "False", "Refreshed")
    assert place.token_requests() == 2


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
    a_create_that_is_answered_with_429,
    a_create_that_is_answered_with_500,
    a_create_whose_answer_is_lost,
    an_apply_whose_answer_is_lost,
    a_status_whose_answer_is_lost,
    a_status_that_is_refused_for_a_while,
    a_target_deleted_while_it_is_written,
    a_foreign_secret_that_comes_while_the_target_is_written,
    a_squidexclient_deleted_while_its_token_is_fetched,
    a_namespace_deleted_while_a_token_is_fetched,
    a_quota_that_has_no_room,
    an_admission_policy_that_refuses_a_renewal,
    another_manager_that_applies_our_key,
    a_controller_that_keeps_changing_the_target,
    a_controller_that_keeps_changing_the_token,
]


@pytest.fixture(scope="module")
def played(
    sandbox: Sandbox, _proxy: FaultProxy, _shared_operator: Operator
) -> Iterator[dict[str, concurrent.futures.Future[None]]]:
    """All of them, at the same time."""
    if not _shared_operator.program.alive:
        _shared_operator.start()
    _shared_operator.wait_ready()
    _proxies.append(_proxy)
    yield from side_by_side.run(SCENARIOS, sandbox)


@pytest.mark.parametrize("name", [each.__name__ for each in SCENARIOS])
def test_nothing_is_lost_or_harmed_by(name: str, played: dict[str, concurrent.futures.Future[None]]) -> None:
    played[name].result()
