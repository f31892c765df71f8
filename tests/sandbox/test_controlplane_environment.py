"""Control plane, stand-in and operator together; manifests, CRD and operator are small ones of this test's own."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.environment import Sandbox
from sandbox.errors import ProgramFailed, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 30.0
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: parents.test.example}
spec:
  group: test.example
  scope: Namespaced
  names: {kind: Parent, plural: parents, singular: parent}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: squidex-operator}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: squidex-operator, namespace: squidex-operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: squidex-operator}
rules: [{apiGroups: [test.example], resources: [parents], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: squidex-operator}
subjects: [{kind: ServiceAccount, name: squidex-operator, namespace: squidex-operator}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: squidex-operator}
"""
# Serves /readyz, and under /about what it was started with.
OPERATOR = """
import http.server, json, os, sys
if os.environ.get("BROKEN"):
    sys.exit("cannot work like this")
if os.environ.get("TAKEN") and not os.path.exists(os.environ["TAKEN"]):
    open(os.environ["TAKEN"], "w").close()
    sys.exit("OSError: [Errno 98] address already in use")
about = {"argv": sys.argv[1:], "kubeconfig": os.environ["KUBECONFIG"], "mark": os.environ.get("MARK")}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(about).encode())
host, port = sys.argv[1].removeprefix("--health-listen=").split(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """crds/, manifests/ and operator/, as in ours."""
    folder = tmp_path_factory.mktemp("repository")
    for name, text in {
        "crds/parents.yaml": CRD,
        "manifests/all.yaml": MANIFESTS,
        "manifests/kustomization.yaml": "resources: [all.yaml]\n",
        "operator/squidex_operator/__init__.py": "",
        "operator/squidex_operator/__main__.py": OPERATOR,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def sandbox(repository: Path) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(repository / "state"))
        started = Sandbox(repository=repository, squidex_clients={"shop:ci": "s3cr3t"})
    with started:
        yield started
    assert not started.dir.exists()


def token(sandbox: Sandbox, secret: str) -> dict[str, Any]:
    """Ask the stand-in for a token, over TLS by the sandbox's authority."""
    form = {"grant_type": "client_credentials", "client_id": "shop:ci", "scope": "squidex-api"}
    request = urllib.request.Request(
        f"{sandbox.squidex.url}/identity-server/connect/token",
        data=urllib.parse.urlencode(form | {"client_secret": secret}).encode(),
    )
    context = ssl.create_default_context(cafile=str(sandbox.squidex.ca_file))
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return dict(json.load(answer))


def test_the_crd_and_the_manifests_are_applied(sandbox: Sandbox) -> None:
    assert sandbox.has_manifests
    found = sandbox.control_plane.kubectl_run("get", "crd,serviceaccount", "-n", "squidex-operator", "-o", "name")
    assert "customresourcedefinition.apiextensions.k8s.io/parents.test.example" in found.stdout
    assert "serviceaccount/squidex-operator" in found.stdout


def test_a_namespace_gets_the_authority_and_the_credentials(sandbox: Sandbox) -> None:
    namespace = sandbox.add_namespace("shop")
    get = sandbox.control_plane.kubectl_run(
        "get", "configmap/sandbox-ca", "secret/sandbox-credentials", "-n", namespace, "-o", "json"
    )
    authority, credentials = json.loads(get.stdout)["items"]
    assert authority["data"]["ca.crt"] == sandbox.squidex.ca_file.read_text()
    assert credentials["data"] == {"clientId": "c2hvcDpjaQ==", "clientSecret": "czNjcjN0"}
    with pytest.raises(SandboxError, match="no client other:client"):
        sandbox.add_namespace("other", client_id="other:client")


def test_the_stand_in_gives_tokens_and_has_switches(sandbox: Sandbox) -> None:
    assert token(sandbox, "s3cr3t")["token_type"] == "Bearer"
    assert sandbox.squidex.patch({"lifetime": 60})["lifetime"] == 60
    assert token(sandbox, "s3cr3t")["expires_in"] in (59, 60)
    with pytest.raises(SandboxError, match="did not answer"):
        sandbox.squidex.patch({"no such switch": 1})


def test_the_stand_in_comes_back_on_its_port_with_its_key(sandbox: Sandbox) -> None:
    url, keys = sandbox.squidex.url, sandbox.squidex.state()["keys"]
    sandbox.squidex.program.kill()
    with pytest.raises(SandboxError, match="did not answer"):
        sandbox.squidex.state()
    sandbox.squidex.start()
    assert (sandbox.squidex.url, sandbox.squidex.state()["keys"]) == (url, keys)


def test_the_operator_runs_as_its_own_service_account(sandbox: Sandbox) -> None:
    operator = sandbox.start_operator(namespaces=["a", "b"], extra_args=["--flag"], env={"MARK": "yes"})
    about = json.loads(operator.get("/about")[1])
    assert about["argv"][1:] == ["--namespace=a", "--namespace=b", "--flag"]
    assert about["mark"] == "yes"
    own = sandbox.operator_kubeconfig()
    assert about["kubeconfig"] == str(own)
    run = sandbox.control_plane.kubectl_run
    assert run("get", "parents", "-A", kubeconfig=own).returncode == 0
    refused = run("get", "secrets", "-A", kubeconfig=own, check=False)
    assert 'User "system:serviceaccount:squidex-operator:squidex-operator" cannot list' in refused.stderr
    events = sandbox.control_plane.requests_of("squidex-operator/squidex-operator")
    assert {("list", "parents", 200), ("list", "secrets", 403)} <= {(e.verb, e.resource, e.code) for e in events}


def test_several_operators_run_beside_each_other_and_end_one_by_one(sandbox: Sandbox) -> None:
    first, second = sandbox.start_operator(), sandbox.start_operator()
    assert first.health != second.health
    assert first.log != second.log
    first.kill()
    assert first.get("/readyz") == (0, "")
    assert second.get("/readyz")[0] == 200
    assert second.stop() == -15
    second.start()
    assert second.get("/readyz")[0] == 200


def test_an_operator_that_does_not_start_shows_its_last_lines(sandbox: Sandbox) -> None:
    with pytest.raises(ProgramFailed, match=r"(?s)^operator.* ended with code 1 before .*cannot work like this"):
        sandbox.start_operator(env={"BROKEN": "yes"})


def test_an_operator_whose_port_was_taken_in_between_gets_another(sandbox: Sandbox, tmp_path: Path) -> None:
    operator = sandbox.start_operator(env={"TAKEN": str(tmp_path / "tried")})
    assert operator.get("/readyz")[0] == 200
    assert "address already in use" in operator.log.read_text()


def test_what_a_custom_resource_owns_goes_with_it_at_once(sandbox: Sandbox) -> None:
    """The garbage collector knows kinds whose CRD was there before it; others it finds half a minute later."""
    run = sandbox.control_plane.kubectl_run
    namespace = sandbox.add_namespace("family")
    parent = {"apiVersion": "test.example/v1", "kind": "Parent", "metadata": {"name": "p"}}
    made = json.loads(run("create", "-n", namespace, "-o", "json", "-f", "-", input=json.dumps(parent)).stdout)
    reference = {"apiVersion": "test.example/v1", "kind": "Parent", "name": "p", "uid": made["metadata"]["uid"]}
    child = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "ownerReferences": [reference]}}
    run("create", "-n", namespace, "-f", "-", input=json.dumps(child))
    run("delete", "parent", "p", "-n", namespace)
    started = time.monotonic()
    wait_for(lambda: run("get", "secret", "c", "-n", namespace, "--ignore-not-found").stdout == "", "the child is gone")
    assert time.monotonic() - started < 15
