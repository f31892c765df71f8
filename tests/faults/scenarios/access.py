"""The way to the API server: connections that die without a word, a ServiceAccount's token that is replaced, a slow first list.

Each scenario has an operator of its own, for its namespace alone.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from sandbox.controlplane.kubeconfig import write
from sandbox.operator_process import Operator
from tests.faults.fault_proxy import FaultProxy
from tests.faults.freezing_proxy import FreezingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.side_by_side import Place

PATIENCE = 60.0
"""Seconds: a request's time-out of 30 s, and one wait after a failure."""

ACCOUNT = "operator"


def _kubeconfig(place: Place, port: int, *, ca: bytes | None = None, token: str | None = None) -> Path:
    control_plane = place.sandbox.control_plane
    if token is None:
        token = json.loads(place.sandbox.operator_kubeconfig().read_text())["users"][0]["user"]["token"]
    path = place.sandbox.dir / f"{place.namespace}.kubeconfig"
    found = ca or control_plane.ca_file.read_bytes()
    return write(path, server=f"https://127.0.0.1:{port}", ca=found, user=ACCOUNT, auth=token)


@contextlib.contextmanager
def _operator(place: Place, kubeconfig: Path, *args: str, wait: bool = True) -> Iterator[Operator]:
    operator = Operator(
        place.sandbox.home,
        kubeconfig=kubeconfig,
        name=place.namespace,
        namespaces=[place.namespace],
        extra_args=["--client-fetch-burst=50", *args],
    )
    try:
        operator.start(wait=wait)
        yield operator
    finally:
        operator.stop()


def connections_that_swallow_everything(place: Place) -> None:
    """The watch is opened anew, and says what happened meanwhile; the process goes on."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FreezingProxy(place.sandbox.control_plane.port))
        kubeconfig = _kubeconfig(place, proxy.port)
        operator = stack.enter_context(_operator(place, kubeconfig, "--watch-inactivity=2s"))
        place.ready()
        old = place.token()
        assert proxy.freeze() >= 2
        place.kubectl("delete", "secret", "shop")
        place.wait(lambda: place.find("secret", "shop") and place.token() != old, "a new token", deadline=PATIENCE)
        place.wait_ready(deadline=PATIENCE)
        assert place.token_requests() == 2
        assert operator.program.alive


def a_service_account_token_that_is_replaced_in_time(place: Place) -> None:
    """Watches and requests go on with the new one."""
    _with_own_account(place)
    old_token = _own_token(place)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FreezingProxy(place.sandbox.control_plane.port))
        kubeconfig = _kubeconfig(place, proxy.port, token=old_token)
        operator = stack.enter_context(_operator(place, kubeconfig))
        place.ready()
        _renew_account(place)
        _kubeconfig(place, proxy.port, token=_own_token(place))
        _wait_invalid(place, old_token)
        # The watches were let in with the old token and may stay for an hour: they have to come again.
        proxy.drop()
        _works(place)
        assert operator.program.alive


def a_service_account_token_that_is_replaced_late(place: Place) -> None:
    """The process says so and waits; then all goes on, and no token is fetched for it."""
    _with_own_account(place)
    old_token = _own_token(place)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FreezingProxy(place.sandbox.control_plane.port))
        operator = stack.enter_context(_operator(place, _kubeconfig(place, proxy.port, token=old_token)))
        place.ready()
        _renew_account(place)
        _wait_invalid(place, old_token)
        proxy.drop()
        place.wait(lambda: "own token refused" in operator.program.output(), "the log line", deadline=PATIENCE)
        assert operator.get("/livez")[0] == 200
        _kubeconfig(place, proxy.port, token=_own_token(place))
        _works(place)
        assert operator.program.alive
        assert place.token_requests() == 2


def a_service_account_token_that_is_refused_at_the_start(place: Place) -> None:
    """The process waits for another one, alive and not ready."""
    _with_own_account(place)
    old_token = _own_token(place)
    with contextlib.ExitStack() as stack:
        port = place.sandbox.control_plane.port
        operator = stack.enter_context(_operator(place, _kubeconfig(place, port, token=old_token)))
        place.ready()
        operator.stop()
        _renew_account(place)
        _wait_invalid(place, old_token)
        operator.start(wait=False)
        place.wait(lambda: "waiting for the API server" in operator.program.output(), "the log line")
        assert operator.get("/readyz")[0] == 503
        assert operator.get("/livez")[0] == 200
        _kubeconfig(place, port, token=_own_token(place))
        operator.wait_ready()
        assert place.token_requests() == 1
        _works(place)


def a_squidexclient_that_comes_during_the_first_list(place: Place) -> None:
    """It is served like any other, and once."""
    control_plane = place.sandbox.control_plane
    with contextlib.ExitStack() as stack:
        folder = place.sandbox.dir / place.namespace
        proxy = stack.enter_context(FaultProxy(control_plane.url, control_plane.ca_file, folder))
        kubeconfig = _kubeconfig(place, proxy.port, ca=proxy.ca)
        # Ours comes first, then Kopf's; each is held when it has its answer already, and when it has none.
        held = [proxy.add("GET", "/squidexclients\\?limit", times=1, hold=True) for _ in range(2)]
        operator = stack.enter_context(_operator(place, kubeconfig, wait=False))
        for number, fault in enumerate(held):
            fault.wait_reached()
            place.create(f"c{number}", target={"name": f"t{number}"})
            fault.release()
        for number in range(len(held)):
            place.wait_ready(f"c{number}")
        operator.wait_ready()
        assert place.token_requests() == 2


def _works(place: Place) -> None:
    """Changes are seen, and answered by writes."""
    requests = place.token_requests()
    old = place.token()
    place.kubectl("delete", "secret", "shop")
    place.wait(lambda: place.find("secret", "shop") and place.token() != old, "a new token", deadline=PATIENCE)
    place.wait_ready(deadline=PATIENCE)
    assert place.token_requests() == requests + 1


def _with_own_account(place: Place) -> None:
    """A ServiceAccount whose tokens can be made worthless."""
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": place.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "squidex-operator"}
    place.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": place.namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": place.namespace},
            "roleRef": role,
            "subjects": [subject],
        },
    )


def _renew_account(place: Place) -> None:
    """Delete it and make it anew: a token names the uid of its ServiceAccount."""
    place.kubectl("delete", "serviceaccount", ACCOUNT)
    _with_own_account(place)


def _own_token(place: Place) -> str:
    return place.kubectl("create", "token", ACCOUNT).stdout.strip()


def _wait_invalid(place: Place, token: str) -> None:
    """The API server remembers for ten seconds that a token was good."""

    def is_refused() -> bool:
        kubeconfig = place.sandbox.dir / f"{place.namespace}-old.kubeconfig"
        control_plane = place.sandbox.control_plane
        ca = control_plane.ca_file.read_bytes()
        write(kubeconfig, server=control_plane.url, ca=ca, user="old", auth=token)
        done = control_plane.kubectl_run("auth", "whoami", check=False, kubeconfig=kubeconfig)
        return "Unauthorized" in done.stderr or "must be logged in" in done.stderr

    place.wait(is_refused, "the old token to be refused", deadline=PATIENCE)


SCENARIOS = [
    connections_that_swallow_everything,
    a_service_account_token_that_is_replaced_in_time,
    a_service_account_token_that_is_replaced_late,
    a_service_account_token_that_is_refused_at_the_start,
    a_squidexclient_that_comes_during_the_first_list,
]
