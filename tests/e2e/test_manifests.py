"""What ships as YAML: it applies, is kept to the letter by the API server, and fits the operator that it installs."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

import squidex_operator
from sandbox.places import REPOSITORY
from squidex_operator import settings

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator
    from tests.e2e.world import Object, World

MANIFESTS = REPOSITORY / "manifests"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))
OPERATOR_NAMESPACE = "squidex-operator"


@pytest.fixture(scope="module")
def pod_template(sandbox: Sandbox) -> Object:
    """The operator's Pod, with the API server's defaults in it."""
    found = sandbox.control_plane.kubectl_run(
        "get", "deployment", "squidex-operator", "--namespace", OPERATOR_NAMESPACE, "-o", "json"
    )
    template: Object = json.loads(found.stdout)["spec"]["template"]
    return template


def test_the_installation_for_the_cluster_applies_once_more_and_brings_all_its_parts(sandbox: Sandbox) -> None:
    # The sandbox has applied it for real; what the API server would not keep is refused here (--validate=strict).
    done = sandbox.control_plane.kubectl_run("apply", "-k", MANIFESTS, "--server-side", "--dry-run=server")
    assert done.stderr == ""
    applied = {line.split()[0] for line in done.stdout.splitlines()}
    assert applied == {
        "namespace/squidex-operator",
        "customresourcedefinition.apiextensions.k8s.io/squidexclients.squidex-operator.io",
        "serviceaccount/squidex-operator",
        "clusterrole.rbac.authorization.k8s.io/squidex-operator",
        "clusterrole.rbac.authorization.k8s.io/squidex-operator-edit",
        "clusterrole.rbac.authorization.k8s.io/squidex-operator-view",
        "clusterrolebinding.rbac.authorization.k8s.io/squidex-operator",
        "deployment.apps/squidex-operator",
    }


def test_the_installation_for_one_namespace_applies_twice_without_a_change(sandbox: Sandbox) -> None:
    def apply(*args: str) -> list[str]:
        done = sandbox.control_plane.kubectl_run("apply", "-k", MANIFESTS / "namespaced", *args)
        assert done.stderr == ""
        return done.stdout.splitlines()

    kinds = ["serviceaccount", "role.rbac.authorization.k8s.io", "rolebinding.rbac.authorization.k8s.io"]
    kinds.append("deployment.apps")
    try:
        assert apply("--dry-run=server") == [f"{kind}/squidex-operator created (server dry run)" for kind in kinds]
        assert apply() == [f"{kind}/squidex-operator created" for kind in kinds]
        assert apply() == [f"{kind}/squidex-operator unchanged" for kind in kinds]
    finally:
        sandbox.control_plane.kubectl_run(
            "delete", "-k", MANIFESTS / "namespaced", "--ignore-not-found", "--wait=false"
        )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_applies_and_is_kept_as_it_was_written(sample: Path, empty_world: World) -> None:
    # Not for real: an operator would ask the real Squidex for a token.
    done = empty_world.kubectl("apply", "-f", str(sample), "--validate=strict", "--dry-run=server", "-o", "json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    kept = found["items"] if found["kind"] == "List" else [found]
    for body, wanted in zip(kept, _bodies(sample), strict=True):
        assert (body["kind"], body["metadata"]["name"]) == (wanted["kind"], wanted["metadata"]["name"])
        # Nothing is dropped or renamed; defaults may have come to it.
        assert _contains(body.get("spec"), wanted.get("spec")), body["spec"]


def test_the_samples_name_each_other_rightly() -> None:
    """The consumer mounts the target of a sample, under keys that a target has, and ConfigMaps that are there."""
    bodies = [body for path in SAMPLES for body in _bodies(path)]
    clients = [body for body in bodies if body["kind"] == "SquidexClient"]
    secrets, config_maps = (
        {body["metadata"]["name"] for body in bodies if body["kind"] == kind} for kind in ("Secret", "ConfigMap")
    )
    targets = {body["spec"].get("target", {}).get("name", body["metadata"]["name"]) for body in clients}
    assert {body["spec"]["credentialsSecretRef"]["name"] for body in clients} <= secrets
    pods = [body["spec"]["template"]["spec"] for body in bodies if body["kind"] == "Deployment"]
    volumes = [volume for pod in pods for volume in pod["volumes"]]
    assert {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} <= targets
    assert {volume["configMap"]["name"] for volume in volumes if "configMap" in volume} <= config_maps


def test_the_operators_pod_is_let_in_where_pods_are_restricted(sandbox: Sandbox, pod_template: Object) -> None:
    assert _create_pod(sandbox, pod_template["spec"]).returncode == 0
    # The namespace would refuse another: without this, the line above would say nothing.
    careless = {**pod_template["spec"], "securityContext": {}}
    refused = _create_pod(sandbox, careless)
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr
    assert "runAsNonRoot" in refused.stderr


def test_the_pods_of_the_samples_are_let_in_too(sandbox: Sandbox) -> None:
    bodies = [body for path in SAMPLES for body in _bodies(path)]
    pods = [body["spec"]["template"]["spec"] for body in bodies if body["kind"] == "Deployment"]
    assert pods
    for spec in pods:
        assert _create_pod(sandbox, spec).stderr == ""


def test_the_root_file_system_is_read_only(pod_template: Object) -> None:
    """Which the security level does not ask for: the image is made for it."""
    (container,) = pod_template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_ports_and_probes_are_those_that_the_operator_serves(pod_template: Object, operator: Operator) -> None:
    (container,) = pod_template["spec"]["containers"]
    (port,) = container["ports"]
    assert settings.parse([], {}).health_listen == f":{port['containerPort']}"
    assert "args" not in container
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
        assert operator.get(container[probe]["httpGet"]["path"])[0] == 200


def test_the_image_has_the_packages_version(pod_template: Object) -> None:
    (container,) = pod_template["spec"]["containers"]
    assert container["image"] == f"squidex-operator:{squidex_operator.__version__}"
    assert container["imagePullPolicy"] == "IfNotPresent"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == squidex_operator.__version__


def test_who_may_view_a_namespace_sees_its_squidexclients_and_no_secrets(empty_world: World) -> None:
    ask = _bind(empty_world, "viewer", "view")
    assert ask("get sqc", "list sqc", "watch sqc") == {"yes"}
    assert ask("create sqc", "patch sqc", "delete sqc", "get secrets", "list secrets") == {"no"}


def test_who_may_edit_a_namespace_edits_its_squidexclients_but_not_their_status(empty_world: World) -> None:
    ask = _bind(empty_world, "editor", "edit")
    assert ask("list sqc", "create sqc", "update sqc", "patch sqc", "delete sqc", "deletecollection sqc") == {"yes"}
    assert ask("patch sqc --subresource=status", "update sqc --subresource=status") == {"no"}


def test_the_users_roles_give_no_right_on_secrets(empty_world: World) -> None:
    """Kubernetes' own `edit` can read Secrets; a role made of ours alone cannot."""
    _bind(empty_world, "author", "squidex-operator-edit")
    ask = _bind(empty_world, "author", "squidex-operator-view")
    assert ask("list sqc", "create sqc") == {"yes"}
    assert ask("get secrets", "list secrets", "watch secrets", "create secrets", "get configmaps") == {"no"}


def _bodies(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text()))


def _create_pod(sandbox: Sandbox, spec: Object) -> CompletedProcess[str]:
    # The operator's namespace is restricted, and a dry run is checked as a creation is.
    own = {**spec, "serviceAccountName": "squidex-operator"}
    metadata = {"name": "probe", "namespace": OPERATOR_NAMESPACE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": own}
    return sandbox.control_plane.kubectl_run(
        "create", "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False
    )


class _Ask:
    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._user = user

    def __call__(self, *questions: str) -> set[str]:
        """The answers of the API server."""
        answers = set()
        for question in questions:
            words = [word.replace("sqc", "squidexclients.squidex-operator.io") for word in question.split()]
            done = self._world.kubectl("auth", "can-i", *words, f"--as={self._user}", check=False)
            answers.add(done.stdout.strip())
        return answers


def _bind(world: World, user: str, role: str) -> _Ask:
    world.kubectl("create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}")
    ask = _Ask(world, user)
    # Roles are added up by a controller, and RBAC hears of it a moment later.
    world.wait(lambda: ask("list sqc") == {"yes"} or ask("create sqc") == {"yes"}, f"the rights of {role}")
    return ask


def _contains(kept: object, wanted: object) -> bool:
    """Whether all that was wanted is there; defaults of the API server may have come to it."""
    if isinstance(wanted, dict):
        return isinstance(kept, dict) and all(_contains(kept.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(kept, list) and len(kept) == len(wanted) and all(map(_contains, kept, wanted))
    return bool(kept == wanted)
