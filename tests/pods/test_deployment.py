"""The Deployment that ships, on a real node: in-cluster configuration, a projected token, restricted pod security."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sandbox.operator_process import NAMESPACE
from sandbox.places import REPOSITORY
from tests.pods.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.world import World
    from tests.pods.cluster import Cluster, Object

DEPLOYMENT = "deployment/squidex-operator"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def container_of(pod: Object) -> Object:
    """The status of the one container."""
    (status,) = pod["status"]["containerStatuses"]
    return dict(status)


def test_it_becomes_ready_as_it_ships(shipped: Cluster) -> None:
    pod = shipped.wait_for_operator()
    wanted = yaml.safe_load((REPOSITORY / "manifests" / "base" / "deployment.yaml").read_text())
    (container,), (of_file,) = pod["spec"]["containers"], wanted["spec"]["template"]["spec"]["containers"]
    assert contains(container, of_file)
    assert container_of(pod)["restartCount"] == 0


def contains(found: Any, wanted: Any) -> bool:
    """Whether an object of the API has all that a manifest says; defaults may have come to it."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and all(contains(*pair) for pair in zip(found, wanted, strict=False))
    return bool(found == wanted)


def test_its_namespace_enforces_restricted_pod_security(shipped: Cluster) -> None:
    command = ("run", "careless", f"--image={shipped.image}", "--dry-run=server")
    done = shipped.kubectl(*command, namespace=NAMESPACE, check=False)
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted:' in done.stderr


def test_it_runs_as_nobody_on_a_root_that_cannot_be_written(shipped: Cluster) -> None:
    name = shipped.wait_for_operator()["metadata"]["name"]
    assert shipped.exec(NAMESPACE, name, "id", "-u").strip() == "65532"
    told = shipped.exec(NAMESPACE, name, "sh", "-c", "touch /opt/new 2>&1 || true")
    assert "Read-only file system" in told
    assert "CapEff:\t0000000000000000" in shipped.exec(NAMESPACE, name, "cat", "/proc/1/status")
    assert "NoNewPrivs:\t1" in shipped.exec(NAMESPACE, name, "cat", "/proc/1/status")
    assert "Seccomp:\t2" in shipped.exec(NAMESPACE, name, "cat", "/proc/1/status")


def test_it_asks_the_api_server_with_its_projected_token(shipped: Cluster) -> None:
    pod = shipped.wait_for_operator()
    (volume,) = [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
    sources = volume["projected"]["sources"]
    assert any("serviceAccountToken" in source for source in sources)
    environment = shipped.exec(NAMESPACE, pod["metadata"]["name"], "env")
    assert "KUBECONFIG" not in environment
    assert "KUBERNETES_SERVICE_HOST=" in environment


@pytest.mark.parametrize("deleted", [False, True], ids=["by a rollout", "by its deletion"])
def test_a_pod_that_is_ended_finishes_the_token_that_it_fetches(
    cluster: Cluster, shop: World, figure: Callable[[str], None], *, deleted: bool
) -> None:
    """SIGTERM: within its grace, and not before what is in work is done."""
    old = cluster.wait_for_operator()
    name = old["metadata"]["name"]
    grace = old["spec"]["terminationGracePeriodSeconds"]
    shop.squidex.patch({"faults": [{"kind": "slow", "on": "token", "client": shop.client_id, "seconds": 6}]})
    shop.create()
    shop.wait(lambda: shop.squidex.state()["counts"]["inFlight"].get("token"), "the request")
    with following_logs(cluster, old) as log:
        began = time.monotonic()
        if deleted:
            cluster.kubectl("delete", "pod", name, "--wait=false", namespace=NAMESPACE)
        else:
            cluster.kubectl("rollout", "restart", DEPLOYMENT, namespace=NAMESPACE)
        cluster.kubectl("wait", "--for=delete", f"pod/{name}", "--timeout=60s", namespace=NAMESPACE)
        took = time.monotonic() - began
    assert took < grace, "the kubelet had to kill it"
    assert "stopping" in log()
    assert shop.accepts(shop.token()) == 200
    cluster.wait_for_operator(other_than=old)
    shop.wait_ready()
    # Recreate is for rollouts. Where its pod is deleted, a ReplicaSet starts the next one while this one ends: without an
    # election of a leader, both ask. Neither is wrong, and the target is written whole.
    assert shop.token_requests() <= 1 + deleted
    figure(f"ended after {took:.1f} s, with 6 s of work left to do")


def test_a_rollout_restart_fetches_and_writes_nothing(
    cluster: Cluster, shop: World, figure: Callable[[str], None]
) -> None:
    before = shop.ready()
    old = cluster.wait_for_operator()
    began = time.monotonic()
    cluster.kubectl("rollout", "restart", DEPLOYMENT, namespace=NAMESPACE)
    cluster.kubectl("rollout", "status", DEPLOYMENT, "--timeout=120s", namespace=NAMESPACE)
    figure(f"a rollout restart took {time.monotonic() - began:.1f} s")
    cluster.wait_for_operator(other_than=old)
    assert shop.get("secret", "shop")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert shop.token_requests() == 1
    replaced_key_heals(shop, before)


def test_a_killed_container_comes_back_and_goes_on(cluster: Cluster, shop: World) -> None:
    node = cluster.need_node()
    before = shop.ready()
    old = container_of(cluster.wait_for_operator())
    with Witness(shop) as witness:
        node.kill_container(old["containerID"])

        def restarted() -> Object | None:
            pod = cluster.operator_pod()
            now = container_of(pod) if pod else {}
            return now if now.get("restartCount", 0) > old["restartCount"] else None

        now = cluster.wait(restarted, "the container to be started again", namespace=NAMESPACE)
        assert now["lastState"]["terminated"]["exitCode"] == 137
        assert shop.token_requests() == 1, "a restart fetches nothing"
        witness.see(replaced_key_heals(shop, before))
    witness.assert_whole()
    assert len(witness.tokens()) == 2


def test_it_does_not_need_a_kubelet(cluster: Cluster, shop: World) -> None:
    """A kubelet that is upgraded is away for a while: the containers go on."""
    node = cluster.need_node()
    before = shop.ready()
    old = container_of(cluster.wait_for_operator())
    with Witness(shop) as witness:
        with node.kubelet_stopped():
            witness.see(replaced_key_heals(shop, before))
        now = container_of(cluster.wait_for_operator())
    assert now["containerID"] == old["containerID"]
    assert now["restartCount"] == old["restartCount"]
    witness.assert_whole()
    assert len(witness.tokens()) == 2


def test_a_projected_token_that_is_replaced_is_read_again(
    cluster: Cluster, shop: World, figure: Callable[[str], None]
) -> None:
    """As a kubelet does it when four fifths of the token's life are over: it writes another file, the old token lives on."""
    node = cluster.need_node()
    before = shop.ready()
    pod = cluster.wait_for_operator()
    first = projected_token(cluster, pod)
    node.restart_kubelet()  # it remembers no token afterwards, and asks for a new one at its next look at the pod
    began = time.monotonic()
    second = cluster.wait(lambda: another_token(cluster, pod, first), "another projected token", namespace=NAMESPACE)
    mark = cluster.control_plane.audit_mark()

    def uses_it() -> bool:
        asked = cluster.control_plane.requests_of("squidex-operator/squidex-operator", since=mark)
        return any(event.credential == f"JTI={token_id(second)}" for event in asked)

    cluster.wait(uses_it, "a request with the new token", namespace=NAMESPACE)
    figure(
        f"the first request with the new ServiceAccount token came {time.monotonic() - began:.0f} s after the kubelet"
    )
    replaced_key_heals(shop, before)
    now = container_of(cluster.wait_for_operator())
    assert now["containerID"] == container_of(pod)["containerID"], "it did so without being started again"


def test_it_outlives_all_service_account_tokens(cluster: Cluster, shop: World) -> None:
    """The API server gets another key for them: the one in the pod is refused until the kubelet brings another."""
    node = cluster.need_node()
    before = shop.ready()
    pod = cluster.wait_for_operator()
    first = projected_token(cluster, pod)
    with Witness(shop) as witness:
        cluster.control_plane.replace_service_account_key()
        node.restart_kubelet()
        cluster.wait(lambda: another_token(cluster, pod, first), "another projected token", namespace=NAMESPACE)
        cluster.wait_for_operator()
        assert shop.token_requests() == 1
        token = replaced_key_heals(shop, before)
    witness.assert_whole()
    with Witness(shop) as witness:
        witness.see(token)
    assert shop.token_requests() == 2
    now = container_of(cluster.wait_for_operator())
    assert now["containerID"] == container_of(pod)["containerID"], "it waited for another token, and did not end"


def projected_token(cluster: Cluster, pod: Object) -> str:
    """What the container reads; empty while there is none to ask."""
    return cluster.exec(NAMESPACE, pod["metadata"]["name"], "cat", f"{ACCOUNT}/token", check=False)


def another_token(cluster: Cluster, pod: Object, old: str) -> str:
    """The projected token when it is another one; empty while it is not."""
    found = projected_token(cluster, pod)
    return found if found != old else ""


def token_id(token: str) -> str:
    """The claim jti of a ServiceAccount token."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])


def replaced_key_heals(shop: World, before: Object) -> str:
    """Squidex' signing key is replaced, so that every token dies: a new one arrives; that."""
    old = base64.b64decode(before["data"]["token"]).decode()
    shop.squidex.patch({"key": "replace"})
    return str(shop.new_token(old))


@contextlib.contextmanager
def following_logs(cluster: Cluster, pod: Object) -> Iterator[Callable[[], str]]:
    """Follows a pod's log to its end; gives a function that tells the log afterwards."""
    plane, told = cluster.control_plane, [""]
    command = [
        *(str(plane.kubectl), f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={NAMESPACE}"),
        *("logs", "--follow", pod["metadata"]["name"]),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield lambda: told[0]
        told[0], _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
