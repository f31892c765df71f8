"""Pods that use the token, with a real kubelet: the sample application, the ways that do not follow, and the Node SDK."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import yaml

from sandbox.places import REPOSITORY
from tests.e2e.consumers import MOUNTED, NodeSdk, recipe
from tests.pods.conftest import OPERATOR_ENV

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.world import World
    from tests.pods.cluster import Cluster, Object

SAMPLES = REPOSITORY / "manifests" / "samples"
IMAGE = "image: python:3.13-slim\n"
KEYS_INTERVAL = OPERATOR_ENV["SQUIDEX_OPERATOR_KEYS_INTERVAL"]
LONG = 30 * 24 * 3600
"""The lifetime that Squidex gives a token, in seconds."""
SYNC = "10s"
"""The syncFrequency of the kubelet on the sandbox's node."""
KUBELET = 60.0
"""Seconds to wait for a kubelet to show a Secret; one with default settings may take longer than the sandbox's."""

LOAD = """
import http.client, time
while True:
    web = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
    web.request("GET", "/")
    answer = web.getresponse()
    text = answer.read().decode()
    print(answer.status, "" if answer.status == 200 else text, flush=True)
    time.sleep(0.1)
"""
"""Uses the sample application ten times a second, from within its pod."""


class Load:
    """Somebody who uses the sample application all the time; `answers` has when, and what came of it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        plane = cluster.control_plane
        self._command = [
            *(str(plane.kubectl), f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={namespace}"),
            *("exec", "deployment/shop-web", "--", "python", "-c", LOAD),
        ]
        self.answers: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.answers.append((time.monotonic(), line.strip()))

    def __exit__(self, *_: object) -> None:
        running = self._process.poll() is None
        # In the pod, the next line has nowhere to go, and that ends the program there.
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert running, f"it ended: {self.answers[-1:]}"

    def since(self, moment: float) -> list[tuple[float, str]]:
        """The answers after a moment of time.monotonic()."""
        return [answer for answer in self.answers if answer[0] > moment]

    def success_after(self, moment: float) -> float | None:
        """When the first request after a moment was answered well."""
        return next((at for at, text in self.since(moment) if text == "200"), None)


@pytest.fixture
def shop_of_the_guide(shop: World) -> World:
    """The same with a client of the app that the guide and the samples are about."""
    shop.client_id = "shop:default"
    shop.squidex.patch({"clients": {shop.client_id: shop.client_secret}})
    shop.set_credentials()
    return shop


@pytest.fixture
def sample(cluster: Cluster, shop_of_the_guide: World) -> World:
    """The samples private-ca.yaml and consumer.yaml as they are, but for the image's name and what is to be filled in."""
    shop = shop_of_the_guide
    bodies = list(yaml.safe_load_all((SAMPLES / "private-ca.yaml").read_text()))
    for body in bodies:
        if body["kind"] == "ConfigMap":
            body["data"]["ca.crt"] = shop.squidex.ca
        elif body["kind"] == "Secret":
            assert body["stringData"]["clientId"] == shop.client_id
            body["stringData"]["clientSecret"] = shop.client_secret
        else:
            body["spec"]["url"] = shop.squidex.url
    text = (SAMPLES / "consumer.yaml").read_text()
    assert text.count(IMAGE) == 1
    cluster.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(bodies), namespace=shop.namespace)
    text = text.replace(IMAGE, f"image: {cluster.image}\n")
    cluster.kubectl("apply", "-f", "-", text=text, namespace=shop.namespace)
    shop.wait_ready("cms")
    cluster.kubectl("rollout", "status", "deployment/shop-web", "--timeout=120s", namespace=shop.namespace)
    return shop


@pytest.fixture
def short_lived(cluster: Cluster) -> Iterator[int]:
    """Lifetime of the tokens that come next, in seconds: a third of it is enough for this cluster's kubelet."""
    lifetime = 75 if cluster.node is not None else 300
    cluster.squidex.patch({"lifetime": lifetime})
    yield lifetime
    cluster.squidex.patch({"lifetime": LONG})


def test_no_request_of_the_sample_is_refused_through_a_renewal(
    cluster: Cluster, short_lived: int, sample: World, figure: Callable[[str], None]
) -> None:
    first = sample.token("cms-token")
    with Load(cluster, sample.namespace) as load:
        sample.squidex.patch({"lifetime": LONG})
        second = _renewed(sample, first, "cms-token", deadline=short_lived)
        sample.wait(lambda: sample.accepts(first) == 401, "the first token to expire", deadline=short_lived)
        # From here on, whoever succeeds has the second one.
        expired = time.monotonic()
        sample.wait(lambda: len(load.since(expired)) > 5, "requests with the second token")
        assert sample.accepts(second) == 200
    assert {text for _, text in load.answers} == {"200"}
    figure(
        f"{len(load.answers)} requests of the sample through the renewal of a token of {short_lived} s, none refused"
    )


def _renewed(world: World, old: str, name: str = "shop", *, deadline: float) -> str:
    return str(world.wait(lambda: (token := world.token(name)) != old and token, "a renewal", deadline=deadline))


def test_the_sample_succeeds_again_after_a_replaced_key(
    cluster: Cluster, sample: World, figure: Callable[[str], None]
) -> None:
    """How long it takes, and who takes it, is told at the end of the run: for two moments of the kubelet's round."""
    with Load(cluster, sample.namespace) as load:
        # A third key within minutes would be taken for replicas that disagree: the operator waits then.
        for _ in range(2):
            old, requests = sample.token("cms-token"), sample.token_requests()
            succeeds = time.monotonic()
            sample.wait(lambda since=succeeds: load.success_after(since), "the sample to be well")
            sample.squidex.patch({"key": "replace"})
            looks, replaced = _looks(sample), time.monotonic()
            sample.wait(lambda before=looks: _looks(sample) > before, "the operator to look at the keys")
            noticed = time.monotonic()
            sample.new_token(old, "cms-token")
            written = time.monotonic()
            succeeded = sample.wait(
                lambda since=written: load.success_after(since), "the sample to succeed", deadline=KUBELET * 2
            )
            refused = [text for at, text in load.since(replaced) if text != "200"]
            assert set(refused) == {"502 HTTP Error 401: Unauthorized"}
            assert sample.token_requests() == requests + 1
            figure(
                f"first success {succeeded - replaced:.1f} s after the key was replaced: {noticed - replaced:.1f} s to "
                f"notice (--keys-interval {KEYS_INTERVAL}), {written - noticed:.2f} s to fetch and write, "
                f"{succeeded - written:.1f} s of the kubelet (syncFrequency {SYNC if cluster.node else 'unknown'})"
            )


def _looks(world: World) -> int:
    """How often the stand-in was asked for its keys."""
    return int(world.squidex.state()["counts"]["jwks"]["total"])


def keeper(cluster: Cluster, name: str = "keeper") -> Object:
    """A pod that has the Secret "shop" in all ways, and does nothing."""
    wait = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait; done"]
    secret = {"name": "shop", "key": "token"}
    container = {
        "name": "keeper",
        "image": cluster.image,
        "command": wait,
        "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": secret}},
            {"name": "SSL_CERT_FILE", "value": "/etc/squidex-ca/ca.crt"},
        ],
        "volumeMounts": [
            {"name": "squidex", "mountPath": MOUNTED, "readOnly": True},
            {"name": "squidex", "mountPath": "/etc/squidex-token", "subPath": "token", "readOnly": True},
            {"name": "ca", "mountPath": "/etc/squidex-ca", "readOnly": True},
        ],
    }
    volumes = [{"name": "squidex", "secret": {"secretName": "shop"}}, {"name": "ca", "configMap": {"name": "ca"}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def held(cluster: Cluster, world: World, name: str = "keeper") -> dict[str, str]:
    """The token, by each way into the pod."""
    ways = {"volume": f"cat {MOUNTED}/token", "subPath": "cat /etc/squidex-token", "variable": 'printf %s "$TOKEN"'}
    return {way: cluster.exec(world.namespace, name, "sh", "-c", command) for way, command in ways.items()}


def test_a_variable_and_a_sub_path_keep_the_old_token_until_the_container_starts_again(
    cluster: Cluster, shop: World, figure: Callable[[str], None]
) -> None:
    shop.ready()
    old = shop.token()
    cluster.apply(keeper(cluster), namespace=shop.namespace)
    cluster.wait_pod(shop.namespace, "keeper")
    assert held(cluster, shop) == {"volume": old, "subPath": old, "variable": old}

    shop.squidex.patch({"key": "replace"})
    new = shop.new_token(old)
    written = time.monotonic()
    shop.wait(lambda: held(cluster, shop)["volume"] == new, "the volume to follow", deadline=KUBELET * 2)
    figure(f"a volume followed {time.monotonic() - written:.1f} s after the Secret was written")
    assert held(cluster, shop) == {"volume": new, "subPath": old, "variable": old}
    assert shop.accepts(old) == 401

    cluster.exec(shop.namespace, "keeper", "sh", "-c", "kill -TERM 1")

    def restarted() -> bool:
        (status,) = cluster.get(shop.namespace, "pod", "keeper")["status"]["containerStatuses"]
        return bool(status["restartCount"] == 1 and status["ready"])

    cluster.wait(restarted, "the container to start again", namespace=shop.namespace)
    assert held(cluster, shop) == {"volume": new, "subPath": new, "variable": new}


def test_a_pod_that_is_touched_follows(cluster: Cluster, shop: World, figure: Callable[[str], None]) -> None:
    """At once, says the guide: a kubelet looks at a pod that changes. How soon is told at the end of the run."""
    shop.ready()
    cluster.apply(keeper(cluster), namespace=shop.namespace)
    cluster.wait_pod(shop.namespace, "keeper")
    old = shop.token()
    shop.squidex.patch({"key": "replace"})
    new = shop.new_token(old)
    touched = time.monotonic()
    cluster.kubectl("annotate", "pod", "keeper", "example.com/touched=now", namespace=shop.namespace)
    shop.wait(lambda: held(cluster, shop)["volume"] == new, "the volume to follow", deadline=KUBELET * 2)
    figure(f"a volume followed {time.monotonic() - touched:.1f} s after its pod was touched")


def test_the_recipe_for_httpx_runs_in_a_pod_as_it_stands(cluster: Cluster, shop_of_the_guide: World) -> None:
    shop = shop_of_the_guide
    shop.ready()
    cluster.apply(keeper(cluster), namespace=shop.namespace)
    cluster.wait_pod(shop.namespace, "keeper")
    told = cluster.exec(shop.namespace, "keeper", "python", "-c", recipe("Python, httpx", "python"))
    assert "'name': 'shop'" in told


def test_a_pod_that_is_there_before_its_squidexclient_waits_and_then_starts(
    cluster: Cluster, shop: World, figure: Callable[[str], None]
) -> None:
    cluster.apply(keeper(cluster), namespace=shop.namespace)

    def waits() -> bool:
        told = cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].message}", namespace=shop.namespace).stdout
        return 'secret "shop" not found' in told

    def is_told() -> bool:
        return "containerStatuses" in cluster.get(shop.namespace, "pod", "keeper")["status"]

    cluster.wait(waits, "the kubelet to miss the Secret", namespace=shop.namespace)
    cluster.wait(is_told, "the kubelet to report the pod's container", namespace=shop.namespace)  # after its event
    pod = cluster.get(shop.namespace, "pod", "keeper")
    (status,) = pod["status"]["containerStatuses"]
    assert pod["status"]["phase"] == "Pending"
    assert status["state"]["waiting"]["reason"] == "ContainerCreating"

    shop.ready()
    written = time.monotonic()
    cluster.wait_pod(shop.namespace, "keeper")
    figure(f"a pod that had waited for the Secret was ready {time.monotonic() - written:.1f} s after the token")
    assert set(held(cluster, shop).values()) == {shop.token()}
    (status,) = cluster.get(shop.namespace, "pod", "keeper")["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def test_the_node_sdk_follows_what_the_kubelet_mounts(
    cluster: Cluster, shop_of_the_guide: World, figure: Callable[[str], None]
) -> None:
    """Beside the pod, as there is no image with Node: it reads the very files of the pod's volume."""
    node, shop = cluster.need_node(), shop_of_the_guide
    shop.squidex.patch({"lifetime": 30})
    shop.ready()
    first = shop.token()
    cluster.apply(keeper(cluster), namespace=shop.namespace)
    uid = cluster.wait_pod(shop.namespace, "keeper")["metadata"]["uid"]
    volume = node.files.kubelet_root / "pods" / uid / "volumes" / "kubernetes.io~secret" / "squidex"
    seen_by_node = Path(f"/proc/{node.cell.pid}/root") / volume.relative_to("/")
    application = NodeSdk(seen_by_node, shop.squidex.ca_file)
    try:
        assert application.call() == "shop"
        shop.squidex.patch({"lifetime": LONG})
        second = _renewed(shop, first, deadline=30)
        shop.wait(lambda: shop.accepts(first) == 401, "the first token to expire", deadline=30)
        shop.wait(lambda: application.call() == "shop", "the SDK to have the second", deadline=KUBELET)
        shop.squidex.patch({"key": "replace"})
        replaced = time.monotonic()
        assert application.call() == 401
        shop.new_token(second)
        shop.wait(lambda: application.call() == "shop", "the SDK to succeed again", deadline=KUBELET)
        figure(f"the Node SDK succeeded {time.monotonic() - replaced:.1f} s after the key was replaced")
    finally:
        application.end()
        shop.squidex.patch({"lifetime": LONG})
