"""What a running control plane does: RBAC, garbage collection, namespaces, restarts, counting. One serves all tests."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.controlplane import ControlPlane
from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 30.0
READER = """
{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
  "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]},
 {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
  "subjects": [{"kind": "ServiceAccount", "name": "reader"}],
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}}]}
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cp() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def namespace(cp: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A new namespace for each test."""
    name: str = request.node.name.replace("_", "-")[:60].rstrip("-")
    cp.kubectl_run("create", "namespace", name)
    return name


def get(cp: ControlPlane, *args: str) -> Any:
    return json.loads(cp.kubectl_run("get", *args, "-o", "json").stdout)


def exists(cp: ControlPlane, *args: str) -> bool:
    return cp.kubectl_run("get", "--ignore-not-found", "-o", "name", *args).stdout != ""


def test_it_answers_with_the_kubectl_of_the_same_version(cp: ControlPlane) -> None:
    version = json.loads(cp.kubectl_run("version", "-o", "json").stdout)
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"]


def test_secrets_of_the_sandbox_are_for_this_user_alone(cp: ControlPlane) -> None:
    assert cp.dir.stat().st_mode & 0o077 == 0
    for path in [*(cp.dir / "pki").glob("*.key"), *cp.dir.glob("*.kubeconfig")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_refused_command_raises_what_kubectl_said(cp: ControlPlane) -> None:
    with pytest.raises(SandboxError, match=r"kubectl get nonsense: error: the server doesn't have a resource"):
        cp.kubectl_run("get", "nonsense")
    assert cp.kubectl_run("get", "nonsense", check=False).returncode == 1


def test_a_service_account_has_only_the_rights_of_its_roles(cp: ControlPlane, namespace: str, tmp_path: Path) -> None:
    cp.kubectl_run("apply", "-n", namespace, "-f", "-", input=READER)
    own = cp.service_account_kubeconfig(namespace, "reader", path=tmp_path / "reader")
    assert own.stat().st_mode & 0o077 == 0
    assert "kube-root-ca.crt" in cp.kubectl_run("get", "configmaps", kubeconfig=own).stdout
    for refused in (("get", "secrets"), ("delete", "configmaps", "--all"), ("get", "configmaps", "-n", "default")):
        answer = cp.kubectl_run(*refused, kubeconfig=own, check=False)
        assert answer.returncode == 1
        assert f'User "system:serviceaccount:{namespace}:reader" cannot' in answer.stderr


def test_what_is_owned_goes_with_its_owner(cp: ControlPlane, namespace: str) -> None:
    cp.kubectl_run("create", "configmap", "owner", "-n", namespace)
    uid = get(cp, "configmap", "owner", "-n", namespace)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "owned", "ownerReferences": [reference]}}
    cp.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(secret))
    cp.kubectl_run("delete", "configmap", "owner", "-n", namespace)
    wait_for(lambda: not exists(cp, "secret", "owned", "-n", namespace), "the garbage collector removed the Secret")


def test_a_namespace_can_be_deleted_with_all_that_is_in_it(cp: ControlPlane, namespace: str) -> None:
    cp.kubectl_run("create", "secret", "generic", "some", "-n", namespace)
    cp.kubectl_run("delete", "namespace", namespace, f"--timeout={DEADLINE:.0f}s")
    assert not exists(cp, "namespace", namespace)


def test_requests_are_counted_exactly_by_user_verb_and_resource(
    cp: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    cp.kubectl_run("apply", "-n", namespace, "-f", "-", input=READER)
    own = cp.service_account_kubeconfig(namespace, "reader", path=tmp_path / "reader")
    mark = cp.audit_mark()
    for _ in range(3):
        cp.kubectl_run("get", "configmap", "kube-root-ca.crt", kubeconfig=own)
    cp.kubectl_run("create", "secret", "generic", "refused", kubeconfig=own, check=False)
    events = cp.requests_of(f"{namespace}/reader", since=mark)
    assert [(event.verb, event.resource, event.code) for event in events] == [
        *[("get", "configmaps", 200)] * 3,
        ("create", "secrets", 403),
    ]
    assert [event.namespace for event in events] == [namespace] * 4
    assert all(event.user_agent.startswith("kubectl/") for event in events)
    assert sum(event.is_write for event in events) == 1


def test_the_metrics_count_by_verb_resource_and_code(cp: ControlPlane, namespace: str) -> None:
    created = ("POST", "secrets", "201")
    before = cp.request_counts()[created]
    for name in ("one", "two"):
        cp.kubectl_run("create", "secret", "generic", name, "-n", namespace)
    assert cp.request_counts()[created] - before == 2, "nobody else creates Secrets here"


def test_the_control_planes_own_requests_are_not_counted(cp: ControlPlane) -> None:
    users = {event.user for event in cp.audit_events()}
    assert not users & {"system:apiserver", "system:kube-controller-manager"}
    assert not {user for user in users if user.startswith("system:serviceaccount:kube-system:")}


def test_a_killed_apiserver_comes_back_on_its_port_with_its_data(cp: ControlPlane, namespace: str) -> None:
    url = cp.url
    cp.apiserver.kill()
    assert cp.get("/readyz")[0] == 0
    cp.apiserver.start()
    cp.wait_ready()
    assert cp.url == url
    assert exists(cp, "namespace", namespace)


def test_a_killed_etcd_comes_back_with_its_data(cp: ControlPlane, namespace: str) -> None:
    cp.etcd.kill()
    cp.etcd.start()
    cp.wait_ready()
    wait_for(lambda: exists(cp, "namespace", namespace), "the API server has reached etcd again")


def test_a_compacted_history_is_gone_for_a_restarted_apiserver(cp: ControlPlane, namespace: str) -> None:
    old = get(cp, "namespace", namespace)["metadata"]["resourceVersion"]
    cp.kubectl_run("create", "configmap", "newer", "-n", namespace)
    assert cp.compact() > int(old)
    cp.restart_apiserver()
    path = f"/api/v1/namespaces/{namespace}/configmaps?resourceVersion={old}&resourceVersionMatch=Exact"
    status, body = cp.get(path)
    assert (status, json.loads(body)["reason"]) == (410, "Expired")
