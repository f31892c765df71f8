"""Writes that fail, get lost, come late, or are refused: no token is lost, none is fetched twice, nobody is harmed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.side_by_side import Place

PATIENCE = 60.0
"""Seconds: more than the second wait after a failure."""


def _unavailable(place: Place, status: int, **what: object) -> None:
    fault = place.fault("POST", "secrets", status=status, **what)
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
    place.fault("POST", "secrets", lose_answer=True)
    mark = place.sandbox.control_plane.audit_mark()
    place.create()
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1
    # The audit log has no name for what a create makes. A write beyond the first would be an apply.
    assert [row for row in place.operator_requests(mark) if " secrets " in row] in (
        ["create secrets "],
        ["create secrets shop"],
    )


def a_create_that_arrives_after_its_time_out(place: Place) -> None:
    """It is taken for what it is, whether it arrives before or after the next try."""
    fault = place.fault("POST", "secrets", hold=True)
    place.create()
    fault.wait_reached()
    place.wait(lambda: place.failing() == "KubernetesError", "the time-out", deadline=PATIENCE)
    fault.release()
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1
    assert place.accepts(place.token()) == 200


def an_apply_that_is_answered_with_500(place: Place) -> None:
    """The old token stays and is Ready; the one that was fetched is written later."""
    place.ready()
    fault = place.fault("PATCH", "secrets/shop", status=500, reason="InternalError")
    place.create(scope="squidex-api openid")
    place.wait_condition("RefreshFailing", "True", "KubernetesError")
    place.wait_condition("Ready", "True", "TokenValid")
    place.wait(lambda: not place.failing(), "the next try", deadline=PATIENCE)
    assert fault.seen == 1
    assert place.token_requests() == 2
    assert place.accepts(place.token()) == 200


def an_apply_whose_answer_is_lost(place: Place) -> None:
    """As with a create."""
    place.ready()
    fault = place.fault("PATCH", "secrets/shop", lose_answer=True)
    place.create(scope="squidex-api openid")
    place.wait_ready(deadline=PATIENCE)
    assert fault.seen == 1
    assert place.token_requests() == 2
    assert place.accepts(place.token()) == 200


def a_status_whose_answer_is_lost(place: Place) -> None:
    """The report is not the truth: nothing but a report is written again."""
    fault = place.fault("PATCH", "squidexclients/shop/status", lose_answer=True)
    place.ready()
    assert fault.seen == 1
    assert place.token_requests() == 1


def a_status_that_is_refused_for_a_while(place: Place) -> None:
    """The token is there at once, the report comes when it can."""
    place.fault("PATCH", "squidexclients/shop/status", status=503, reason="ServiceUnavailable")
    place.create()
    place.wait(lambda: place.find("secret", "shop"), "the Secret")
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == 1


def a_target_deleted_while_it_is_written(place: Place) -> None:
    """What was looked at is gone: it is made anew, with the token that was fetched."""
    place.ready()
    fault = place.fault("PATCH", "secrets/shop", hold=True)
    place.create(scope="squidex-api openid")
    fault.wait_reached()
    place.kubectl("delete", "secret", "shop")
    fault.release()
    place.wait_ready()
    assert place.token_requests() == 2
    assert place.accepts(place.token()) == 200


def a_target_replaced_while_it_is_written(place: Place) -> None:
    """An apply goes to the very Secret that was looked at, and to no other of that name."""
    place.ready()
    fault = place.fault("PATCH", "secrets/shop", hold=True)
    place.create(scope="squidex-api openid")
    fault.wait_reached()
    place.kubectl("delete", "secret", "shop")
    place.kubectl("create", "secret", "generic", "shop", "--from-literal=theirs=kept")
    before = place.get("secret", "shop")
    fault.release()
    place.wait_condition("Ready", "False", "TargetNotOwned")
    assert place.get("secret", "shop") == before


def a_foreign_secret_that_comes_while_the_target_is_written(place: Place) -> None:
    """A create never merges into it."""
    fault = place.fault("POST", "secrets", hold=True)
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

    place.wait(is_counted, "the quota to be counted", deadline=PATIENCE)
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
    seen = place.wait_condition("RefreshFailing", "True", "TargetRefused")
    assert "422" in seen["message"]
    assert place.token() == old
    place.wait_condition("Ready", "True", "TokenValid")
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        place.kubectl("delete", kind, name, namespaced=False)
    place.wait(lambda: place.token() != old, "the new token", deadline=PATIENCE)
    place.wait_condition("RefreshFailing", "False", "Refreshed")
    assert place.token_requests() == 2


SCENARIOS = [
    a_create_that_is_answered_with_429,
    a_create_that_is_answered_with_500,
    a_create_whose_answer_is_lost,
    a_create_that_arrives_after_its_time_out,
    an_apply_that_is_answered_with_500,
    an_apply_whose_answer_is_lost,
    a_status_whose_answer_is_lost,
    a_status_that_is_refused_for_a_while,
    a_target_deleted_while_it_is_written,
    a_target_replaced_while_it_is_written,
    a_foreign_secret_that_comes_while_the_target_is_written,
    a_squidexclient_deleted_while_its_token_is_fetched,
    a_namespace_deleted_while_a_token_is_fetched,
    a_quota_that_has_no_room,
    an_admission_policy_that_refuses_a_renewal,
]
