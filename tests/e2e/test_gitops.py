"""Applied, watched, healed and pruned by a GitOps tool, which never sees a trace of the operator."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sandbox.standin import Squidex
from tests.e2e import api, health, pipeline
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from sandbox.environment import Sandbox
    from sandbox.operator_process import Operator

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples"
NAME = "shop-token"
LIFETIME = 6
"""Seconds: a renewal every four."""

Object = dict[str, Any]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def short(sandbox: Sandbox) -> Squidex:
    """A stand-in whose tokens live for seconds."""
    squidex = Squidex(sandbox.home, name="gitops", extra_args=[f"--lifetime={LIFETIME}"])
    squidex.start()
    return squidex


@pytest.fixture(scope="module")
def connection(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with api.connect(sandbox) as opened:
        yield opened


def namespaces(sandbox: Sandbox, squidex: Squidex) -> Iterator[World]:
    while True:
        world = World(sandbox, squidex, f"gitops{next(_numbers)}")
        world.set_up()
        yield world


def samples(world: World) -> list[Object]:
    """The samples as they ship, but for the server, its CA, and the client's id and secret."""
    texts = [(SAMPLES / f"{name}.yaml").read_text() for name in ("squidexclient", "consumer")]
    objects: list[Object] = [body for text in texts for body in yaml.safe_load_all(text)]
    for body in objects:
        body["metadata"]["namespace"] = world.namespace
    of_kind(objects, "Secret")["stringData"] = {"clientId": world.client_id, "clientSecret": world.client_secret}
    of_kind(objects, "SquidexClient")["spec"] |= {
        "url": world.squidex.url,
        "tls": {"caRef": {"kind": "ConfigMap", "name": "ca"}},
    }
    return objects


def of_kind(objects: list[Object], kind: str) -> Object:
    (one,) = (body for body in objects if body["kind"] == kind)
    return one


def file_of(objects: list[Object]) -> str:
    return yaml.safe_dump_all(objects)


def refresh_time(world: World) -> str:
    status = world.get("sqc", NAME).get("status", {})
    return str(status.get("expiresAt", ""))


def kubectl_diff(world: World, objects: list[Object], *more: str) -> str:
    done = world.kubectl("diff", *more, "-f", "-", text=file_of(objects), check=False)
    assert done.returncode in (0, 1), done.stderr
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout


def managers(body: Object) -> set[tuple[str, str, str]]:
    found = body["metadata"]["managedFields"]
    return {(entry["manager"], entry["operation"], entry.get("subresource", "")) for entry in found}


def test_no_tool_sees_a_difference_through_three_renewals(
    sandbox: Sandbox, short: Squidex, operator: Operator, connection: httpx.Client
) -> None:
    places = list(itertools.islice(namespaces(sandbox, short), 3))
    *_, by_hand = places
    tools = [pipeline.argo_cd(connection), pipeline.flux(connection)]
    for tool, world in zip(tools, places, strict=False):
        tool.want(samples(world))
        assert len(tool.diff()) == len(tool.desired)
        tool.sync()
    by_hand.kubectl("apply", "-f", "-", text=file_of(samples(by_hand)))
    for world in places:
        world.wait_ready(NAME)
    seen = [{refresh_time(world)} for world in places]
    written = [api_version(connection, tool) for tool in tools]

    def three_renewals() -> bool:
        # Before, during and after: as often as it can be asked, also while a token is being fetched and written.
        for tool in tools:
            assert tool.diff() == []
        for times, world in zip(seen, places, strict=True):
            times.add(refresh_time(world))
        return all(len(times) >= 4 for times in seen)

    world.wait(three_renewals, "three renewals", deadline=6 * LIFETIME)

    for tool, world in zip(tools, places, strict=False):
        as_it = ("--server-side", "--force-conflicts", f"--field-manager={tool.manager}")
        assert kubectl_diff(world, tool.desired, *as_it) == ""
    assert kubectl_diff(by_hand, samples(by_hand)) == ""
    assert "shop-token unchanged" in by_hand.kubectl("apply", "-f", "-", text=file_of(samples(by_hand))).stdout
    # A sync that finds nothing to do writes nothing but what the status had moved already.
    assert [api_version(connection, tool) for tool in tools] == written
    for world in places:
        assert world.get("sqc", NAME)["metadata"]["generation"] == 1
        world.tear_down()


def api_version(connection: httpx.Client, tool: pipeline.Pipeline) -> list[str]:
    """What only a write to anything but the status changes."""
    found = [connection.get(api.path(body)).raise_for_status().json() for body in tool.desired]
    return [json.dumps([body.get("spec"), body.get("data"), body["metadata"].get("generation")]) for body in found]


def test_the_operator_owns_the_status_of_a_squidexclient_and_nothing_else(
    world: World, connection: httpx.Client
) -> None:
    tool = pipeline.argo_cd(connection)
    tool.want(samples(world))
    mark = world.sandbox.control_plane.audit_mark()
    tool.sync()
    found = world.wait_ready(NAME)
    assert managers(found) == {(tool.manager, "Apply", ""), ("squidex-operator", "Update", "status")}
    (ours,) = (entry for entry in found["metadata"]["managedFields"] if entry["manager"] == "squidex-operator")
    assert ours["fieldsV1"].keys() == {"f:status"}
    wanted = of_kind(tool.desired, "SquidexClient")
    assert found["metadata"]["labels"] == wanted["metadata"]["labels"]
    assert found["metadata"]["annotations"] == wanted["metadata"]["annotations"]
    assert "finalizers" not in found["metadata"]
    # Nor to what else the tool applies: the credentials, the pods.
    secret = world.get("secret", "shop-credentials")
    assert managers(secret) == {(tool.manager, "Apply", "")}
    touched = {row for row in world.operator_requests(mark) if " events " not in row}
    assert touched == {f"create secrets {NAME}", f"patch squidexclients/status {NAME}"}


def test_the_tools_mark_is_not_passed_on_so_that_pruning_leaves_the_token_alone(
    world: World, connection: httpx.Client
) -> None:
    for number, tool in enumerate((pipeline.argo_cd(connection), pipeline.flux(connection))):
        objects = samples(world)
        of_kind(objects, "SquidexClient")["metadata"]["name"] = name = f"token-{number}"
        tool.want(objects)
        tool.sync()
        world.wait_ready(name)
        token = world.get("secret", name)
        assert token["metadata"]["labels"] == {
            "squidex-operator.io/role": "token",
            "app.kubernetes.io/managed-by": "squidex-operator",
        }
        assert all(key.startswith("squidex-operator.io/") for key in token["metadata"]["annotations"])
        tool.sync()
        assert world.get("secret", name)["metadata"]["uid"] == token["metadata"]["uid"]


def test_a_drift_is_healed_by_the_tool_and_the_operator_follows(world: World, connection: httpx.Client) -> None:
    tool = pipeline.flux(connection)
    tool.want(samples(world))
    tool.sync()
    world.wait_ready(NAME)
    old = world.token(NAME)
    world.kubectl("patch", "sqc", NAME, "--type=merge", "-p", '{"spec":{"url":"https://elsewhere.invalid"}}')
    world.wait_condition("Ready", "False", "Unreachable", name=NAME)
    assert tool.diff() == ["SquidexClient/shop-token.metadata.generation", "SquidexClient/shop-token.spec.url"]
    tool.sync()
    assert tool.diff() == []
    # The token in the Secret was for this server all the time: nothing is fetched for it.
    assert world.wait_ready(NAME)["metadata"]["generation"] == 3
    assert world.token(NAME) == old
    assert world.token_requests() == 1


def test_pruning_the_squidexclient_takes_its_token_and_leaves_the_credentials(
    world: World, connection: httpx.Client
) -> None:
    tool = pipeline.argo_cd(connection)
    tool.want(samples(world))
    tool.sync()
    world.wait_ready(NAME)
    tool.want([body for body in samples(world) if body["kind"] != "SquidexClient"])
    tool.sync()
    assert world.find("sqc", NAME) is None
    world.wait(lambda: world.find("secret", NAME) is None, "the token to go")
    assert world.find("secret", "shop-credentials") is not None
    # Back in Git: a new token, whose Secret nothing of the old one is in the way of.
    tool.want(samples(world))
    tool.sync()
    world.wait_ready(NAME)
    assert world.accepts(world.token(NAME)) == 200


def test_kubectl_wait_waits(world: World) -> None:
    world.squidex.patch({"faults": [{"on": "token", "client": world.client_id, "kind": "slow", "seconds": 1}]})
    world.kubectl("apply", "--server-side", "-f", "-", text=file_of(samples(world)))
    done = world.kubectl("wait", "--for=condition=Ready", f"sqc/{NAME}", "--timeout=20s")
    assert "condition met" in done.stdout
    assert world.accepts(world.token(NAME)) == 200


@pytest.mark.timeout(600)  # the first time the program is built: half a minute on two cores
def test_kstatus_reads_what_is_there(world: World, connection: httpx.Client) -> None:
    program = health.kstatus_program()
    if program is None:
        pytest.skip("kstatus is a library for Go, and there is no go on PATH")
    found: dict[str, Object] = {}
    body = world.manifest()
    found["just applied"] = connection.post(f"{api.collection(body)}?dryRun=All", json=body).raise_for_status().json()
    world.create("good")
    found["good"] = world.wait_ready("good")
    edit = {"spec": {"scope": "other"}}
    found["edited"] = connection.patch(
        api.path(found["good"]) + "?dryRun=All", json=edit, headers={"Content-Type": "application/merge-patch+json"}
    ).json()
    world.create("early", credentialsSecretRef={"name": "to-come"})
    world.wait_condition("Ready", "False", "CredentialsMissing", name="early")
    world.set_credentials(secret="wrong", name="wrong")
    world.create("wrong", credentialsSecretRef={"name": "wrong"}, target={"name": "wrong-token"})
    world.wait_condition("Stalled", "True", "InvalidClient", name="wrong")
    found |= {name: world.get("sqc", name) for name in ("early", "wrong")}
    world.kubectl("patch", "sqc", "good", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/held"]}}')
    world.kubectl("delete", "sqc", "good", "--wait=false")
    found["deleted"] = world.get("sqc", "good")
    world.kubectl("patch", "sqc", "good", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert dict(zip(found, health.kstatus(program, [*found.values()]), strict=True)) == {
        "just applied": "InProgress",
        "good": "Current",
        "edited": "InProgress",
        "early": "InProgress",
        "wrong": "Failed",
        "deleted": "Terminating",
    }


def test_argo_cds_health_check_is_installed_by_the_command_of_the_guide(world: World, connection: httpx.Client) -> None:
    guide = (SAMPLES.parents[1] / "docs/guides/gitops.md").read_text()
    (command,) = (part for part in guide.split("\n\n") if "--from-file='resource.customizations.health" in part)
    world.kubectl("create", "namespace", "argocd", namespaced=False)
    world.kubectl("create", "configmap", "argocd-cm", "--namespace=argocd", "--from-literal=url=kept", namespaced=False)
    plane = world.sandbox.control_plane
    for _ in range(2):  # and again, for the next version
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=SAMPLES.parents[1],
            env={
                "KUBECONFIG": str(plane.admin_kubeconfig),
                "PATH": f"{plane.kubectl.parent}:/usr/bin:/bin",
                "KUBECACHEDIR": str(plane.dir / "kubectl-cache"),
                "HOME": str(plane.dir),
            },
            check=True,
            capture_output=True,
        )
    data = connection.get("/api/v1/namespaces/argocd/configmaps/argocd-cm").json()["data"]
    key = "resource.customizations.health.squidex-operator.io_SquidexClient"
    assert data == {"url": "kept", key: health.LUA.read_text()}
    world.kubectl("delete", "namespace", "argocd", "--wait=false", namespaced=False)
