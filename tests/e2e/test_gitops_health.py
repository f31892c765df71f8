"""Argo CD, Flux and kstatus read every status of a SquidexClient in the same way."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from squidex_operator.api import reasons
from tests.e2e import api, health

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from sandbox.environment import Sandbox
    from tests.e2e.world import World

CASES = health.cases()
REPORTED = {c["reason"] for case in CASES for c in case.object["status"].get("conditions", [])}


def test_there_is_a_status_of_every_condition_and_reason() -> None:
    found = {c["type"] for case in CASES for c in case.object["status"].get("conditions", [])}
    assert found == set(reasons.ConditionType)
    assert set(reasons.Reason) == REPORTED
    assert len({case.id for case in CASES}) == len(CASES)


# Argo CD.


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_argo_cd_reads_it(case: health.Case) -> None:
    status, message = health.argo(case.object)
    assert status == health.IN_ARGO[case.expected]
    assert message


def test_argo_cd_shows_why() -> None:
    found = {case.id: health.argo(case.object)[1] for case in CASES}
    assert found["InvalidClient, no token"] == "InvalidClient: It did not work."
    assert found["ServerError, no token"].startswith("ServerError: It did not work. Next try at ")
    assert " The next one cannot be had: InvalidClient: " in found["InvalidClient, with a token that works"]


@pytest.mark.parametrize("body", [{}, {"status": {}}, {"status": {"observedGeneration": 1, "conditions": []}}])
def test_argo_cd_waits_for_a_status(body: dict[str, object]) -> None:
    assert health.argo({"metadata": {"generation": 1}, **body})[0] == "Progressing"


# Flux. The API server has the same CEL: an admission policy warns of each expression that is not true, in a request that
# writes nothing.


@pytest.fixture(scope="module")
def connection(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with api.connect(sandbox) as opened:
        yield opened


@pytest.fixture
def policy(connection: httpx.Client) -> Iterator[str]:
    name = f"flux-{uuid.uuid4().hex[:8]}"
    kind = "ValidatingAdmissionPolicy"
    group = "/apis/admissionregistration.k8s.io/v1"
    bound = {"namespaceSelector": {"matchLabels": {"policy": name}}}
    validations = [
        # As in Flux, `status` and `metadata` stand for the fields of the object.
        {"expression": f"[object.status].all(status, [object.metadata].all(metadata, {text}))", "message": f"not {key}"}
        for key, text in health.flux_expressions().items()
    ]
    rule = {
        "apiGroups": ["squidex-operator.io"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["squidexclients/status"],
    }
    objects = {
        "validatingadmissionpolicies": {
            "matchConstraints": {"resourceRules": [rule]},
            "failurePolicy": "Fail",
            "validations": validations,
        },
        "validatingadmissionpolicybindings": {
            "policyName": name,
            "validationActions": ["Warn"],
            "matchResources": bound,
        },
    }
    for plural, spec in objects.items():
        suffix = "Binding" if plural.endswith("bindings") else ""
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind + suffix, "metadata": {"name": name}}
        connection.post(f"{group}/{plural}", json={**body, "spec": spec}).raise_for_status()
    yield name
    for plural in objects:
        connection.delete(f"{group}/{plural}/{name}").raise_for_status()


def test_flux_reads_it(empty_world: World, connection: httpx.Client, policy: str) -> None:
    world = empty_world
    world.kubectl("label", "namespace", world.namespace, f"policy={policy}", namespaced=False)
    body = world.manifest()
    connection.post(api.collection(body), json=body).raise_for_status()

    def true_of(status: health.Object) -> set[str]:
        # A JSON patch takes the place of whatever status an operator may have written meanwhile.
        answer = connection.patch(
            f"{api.path(body)}/status?dryRun=All",
            json=[{"op": "replace", "path": "/status", "value": status}],
            headers={"Content-Type": "application/json-patch+json"},
        ).raise_for_status()
        warnings = " ".join(answer.headers.get_list("warning"))
        true = {key for key in health.flux_expressions() if f"not {key}" not in warnings}
        # Flux stops at the first that is true, and gives up on one that cannot be evaluated.
        assert "resulted in error" not in warnings or "inProgress" in true
        return true

    well = next(case for case in CASES if case.id == "well")
    world.wait(lambda: true_of(well.object["status"]) == {"current"}, "the policy to be in force")
    wrong = {}
    for case in CASES:
        generation = case.object["metadata"]["generation"]
        # The API server says which generation it is, so the other one is the status's.
        status = {**case.object["status"]}
        if generation != 1:
            status["observedGeneration"] -= generation - 1
        found = health.flux(case.object, true_of(status))
        if found != case.expected:
            wrong[case.id] = found
    assert wrong == {}


# kstatus.


@pytest.mark.timeout(600)  # the first time it is built: half a minute on two cores
def test_kstatus_reads_it() -> None:
    program = health.kstatus_program()
    if program is None:
        pytest.skip("kstatus is a library for Go, and there is no go on PATH")
    found = health.kstatus(program, [case.object for case in CASES])
    assert {case.id: status for case, status in zip(CASES, found, strict=True)} == {
        case.id: case.expected for case in CASES
    }
