"""The operator as Kubernetes sees it: it says how it is, ends where a new process would do better, and waits where not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.controlplane import kubeconfig
from sandbox.environment import Sandbox
from sandbox.operator_process import Operator
from sandbox.places import REPOSITORY
from tests.e2e.world import World
from tests.faults import freezing_proxy

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator


@pytest.fixture
def start(sandbox: Sandbox, tmp_path: pathlib.Path) -> Iterator[Callable[..., Operator]]:
    """Starts operators of the test's own, for a namespace of its own so that they leave the others alone."""
    made: list[Operator] = []

    def start(
        *args: str,
        of: Sandbox = sandbox,
        server: str | None = None,
        wait: bool = True,
        namespaces: list[str] | None = None,
    ) -> Operator:
        path = of.operator_kubeconfig()
        if server is not None:
            token = json.loads(path.read_text())["users"][0]["user"]["token"]
            ca = of.control_plane.ca_file.read_bytes()
            path = kubeconfig.write(tmp_path / f"kubeconfig-{len(made)}", server=server, ca=ca, user="u", auth=token)
        name = f"operator-of-{tmp_path.name}-{len(made)}"
        operator = Operator(of.home, kubeconfig=path, name=name, namespaces=namespaces, extra_args=args)
        made.append(operator)
        operator.start(wait=wait)
        return operator

    yield start
    for operator in made:
        if operator.program.alive:
            operator.kill()


@pytest.fixture(scope="module")
def bare() -> Iterator[Sandbox]:
    """A control plane of its own, whose API server may go and whose CRD is not there."""
    with Sandbox() as started:
        started.control_plane.kubectl_run("delete", "--filename", REPOSITORY / "crds" / "squidexclients.yaml")
        yield started


def wait_for(world: World, operator: Operator, text: str) -> None:
    world.wait(lambda: text in operator.program.output(), f"the operator to say {text!r}")


def test_when_all_is_well_it_says_so(world: World, operator: Operator) -> None:
    assert operator.get("/livez") == (200, "[+] loop\n[+] workers\n[+] watch\n")
    assert operator.get("/readyz") == (200, "[+] listed\n")
    world.ready()
    text = operator.get("/metrics")[1]
    assert f'squidex_operator_client_ready{{name="shop",namespace="{world.namespace}"}} 1.0' in text


def test_a_watch_that_has_gone_silent_ends_the_process_and_the_next_one_works(
    sandbox: Sandbox, empty_world: World, start: Callable[..., Operator]
) -> None:
    world = empty_world
    for other in sandbox.operators:
        other.stop()  # else it would do the work; who needs it starts it again
    with freezing_proxy.FreezingProxy(sandbox.control_plane.port) as proxy:
        operator = start(
            "--relist-interval=2s",
            "--watch-grace=1s",
            "--watch-inactivity=10m",
            server=f"https://127.0.0.1:{proxy.port}",
            namespaces=[world.namespace],
        )
        world.ready()
        # A list may hang on a frozen connection too, until its time-out of 30 s; the next one has a connection of its own.
        proxy.freeze()
        world.kubectl("patch", "sqc", "shop", "--type=merge", "-p", '{"spec": {"scope": "squidex-api openid"}}')
        world.wait(lambda: not operator.program.alive, "the operator to end", deadline=90)
        assert operator.program.returncode == 1
        assert "ending because of SilentWatchError: the watch missed" in operator.program.output()
        operator.start()
        assert world.wait_ready()["status"]["observedGeneration"] == 2


def test_without_the_crd_it_is_alive_and_not_ready_until_the_crd_is_there(
    bare: Sandbox, start: Callable[..., Operator]
) -> None:
    world = World(bare, bare.squidex, "no-crd")
    operator = start(of=bare, wait=False)
    wait_for(world, operator, "waiting for the CRD: apply crds/")
    assert operator.get("/livez")[0] == 200
    assert operator.get("/readyz") == (503, "[-] listed: the first list is not done\n")
    bare.control_plane.apply(REPOSITORY / "crds")
    operator.wait_ready()
    world.set_up()
    world.ready()
    assert operator.stop() == 0


def test_with_the_api_server_away_it_waits_and_goes_on(bare: Sandbox, start: Callable[..., Operator]) -> None:
    world = World(bare, bare.squidex, "away")
    bare.control_plane.apiserver.kill()
    operator = start(of=bare, wait=False)
    wait_for(world, operator, "waiting for the API server")
    assert operator.get("/livez")[0] == 200
    assert operator.get("/readyz")[0] == 503
    bare.control_plane.apiserver.start()
    bare.control_plane.wait_ready()
    bare.control_plane.apply(REPOSITORY / "crds")
    operator.wait_ready()
    assert operator.stop() == 0


def test_an_api_server_that_goes_away_later_ends_nothing(bare: Sandbox, start: Callable[..., Operator]) -> None:
    bare.control_plane.apply(REPOSITORY / "crds")
    world = World(bare, bare.squidex, "later")
    world.set_up()
    operator = start("--relist-interval=1s", of=bare, namespaces=["later"])
    world.ready()
    bare.control_plane.apiserver.kill()
    wait_for(world, operator, "list failed")
    assert operator.get("/livez")[0] == 200
    bare.control_plane.apiserver.start()
    bare.control_plane.wait_ready()
    old = world.token()
    world.kubectl("delete", "secret", "shop")
    world.new_token(old)
    assert operator.program.alive
    assert world.token_requests() == 2


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command itself, as somebody starts it at a terminal."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "SQUIDEX"))}
    return subprocess.run(
        [sys.executable, "-m", "squidex_operator", *args],
        env={**clean, "PYTHONPATH": str(REPOSITORY / "operator"), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_kubeconfig_that_is_not_there_is_2_and_one_line() -> None:
    done = run("--kubeconfig=/no/such/file", "--health-listen=127.0.0.1:0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "/no/such/file does not exist" in done.stderr


def test_a_port_that_is_taken_is_1_and_named(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(f"--health-listen=127.0.0.1:{port}", KUBECONFIG=str(sandbox.operator_kubeconfig()))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "CRITICAL" in last
    assert str(port) in last
    assert "address already in use" in last


def test_a_stop_in_the_middle_of_much_work_leaves_nothing_half_written(world: World, operator: Operator) -> None:
    names = [f"many-{n}" for n in range(60)]
    world.apply(*(world.manifest(name, target={"name": f"{name}-token"}) for name in names))
    world.wait(lambda: world.find("secret", "many-3-token"), "the work to be under way")
    assert operator.stop() == 0
    secrets: list[Any] = json.loads(world.kubectl("get", "secrets", "-o", "json").stdout)["items"]
    written = {body["metadata"]["name"]: body for body in secrets if body["metadata"]["name"].endswith("-token")}
    assert all(sorted(body["data"]) == ["expiresAt", "token", "tokenType", "url"] for body in written.values())
    # Whatever was fetched has been written, so the next process fetches for the others alone.
    assert world.token_requests() == len(written)
    operator.start()
    for name in names:
        world.wait_ready(name)
    assert world.token_requests() == len(names)
