"""The rights that ship are the rights that are needed: no more, and no less.

Each verb of each rule is taken away for a while, and something visible breaks; so a rule that is removed as a whole breaks
something too. The scenarios wait for the operator's own next tries, so they all run at the same time, in threads: each in a
namespace of its own, under a Role with the shipped rules that lacks one verb for a while.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sandbox.operator_process import Operator
from sandbox.places import REPOSITORY
from tests.e2e.world import DEADLINE, Object, World, condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.environment import Sandbox

MANIFESTS = REPOSITORY / "manifests"
CLUSTER_ROLE = yaml.safe_load((MANIFESTS / "cluster" / "clusterrole.yaml").read_text())
RULES: list[Object] = CLUSTER_ROLE["rules"]

HOME = "rbac"
"""The namespace of the ServiceAccount that the scenarios run as."""

ACCOUNT = "operator"


@dataclass(frozen=True)
class Right:
    """One verb on one resource ("squidexclients/status")."""

    verb: str
    resource: str

    def __str__(self) -> str:
        """As people say it."""
        return f"{self.verb} {self.resource}"


RIGHTS = [Right(verb, resource) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]]


class Place(World):
    """A namespace whose Role can lack a right for a while."""

    pause = 0.2  # a dozen of them wait at the same time

    def __init__(self, sandbox: Sandbox, right: Right, operator: Operator | None, kubeconfig: Path) -> None:
        super().__init__(sandbox, sandbox.squidex, namespace_of(right))
        self.right = right
        self._operator = operator
        self._kubeconfig = kubeconfig

    @property
    def log(self) -> str:
        """What the operator of this namespace has written."""
        assert self._operator is not None
        return self._operator.program.output()

    @contextlib.contextmanager
    def without(self) -> Iterator[None]:
        """Take the right away; it is back afterwards."""
        self._set_rules(rules_without(self.right))
        try:
            self._wait_allowed("no")
            yield
        finally:
            self._set_rules(RULES)
            self._wait_allowed("yes")

    @contextlib.contextmanager
    def operator(self, *, wait: bool = True) -> Iterator[Operator]:
        """An operator for this namespace alone, which notices within seconds that its watch is silent."""
        self._operator = Operator(
            self.sandbox.home,
            kubeconfig=self._kubeconfig,
            name=self.namespace,
            namespaces=[self.namespace],
            extra_args=["--relist-interval=1s", "--watch-grace=1s"],
        )
        try:
            self._operator.start(wait=wait)
            yield self._operator
        finally:
            self._operator.stop()

    def wait_failing(self, reason: str) -> None:
        """Wait until the status says that the right is missing, in words that name it."""
        seen = self.wait_condition("RefreshFailing", "True", reason)
        assert f"ServiceAccount may not {self.right}" in seen["message"]

    def wait_recovered(self) -> None:
        """Wait until the status says that all is well again."""
        self.wait(lambda: condition(self.get("sqc", "shop"), "RefreshFailing")["status"] == "False", "recovery")
        self.wait_ready()

    def change_scope(self) -> None:
        """What takes another token."""
        self.create(scope="squidex-api openid")

    def _set_rules(self, rules: list[Object]) -> None:
        self.apply(role(self.namespace, rules))

    def _wait_allowed(self, answer: str) -> None:
        # RBAC works on what its own watches have told it: a moment late.
        resource, _, subresource = self.right.resource.partition("/")
        resource += ".squidex-operator.io" if resource == "squidexclients" else ""
        question = [self.right.verb, resource, f"--subresource={subresource}"]

        def ask() -> bool:
            done = self.kubectl("auth", "can-i", *question, f"--as=system:serviceaccount:{HOME}:{ACCOUNT}", check=False)
            return done.stdout.strip() == answer

        self.wait(ask, f"the API server to say {answer} to {self.right}")


def list_clients(place: Place) -> None:
    """Without its first list it does not start, and says why."""
    place.create()
    with contextlib.ExitStack() as stack:
        with place.without():
            operator = stack.enter_context(place.operator(wait=False))
            place.wait(lambda: f"ServiceAccount may not {place.right}" in place.log, "the log line")
            assert operator.get("/readyz")[0] == 503
            assert operator.get("/livez")[0] == 200
        operator.wait_ready()
        place.wait_ready()


def watch_clients(place: Place) -> None:
    """An edit is found by the list alone: the watch is silent, and the process gives way to a new one."""
    with place.without(), place.operator() as operator:
        place.ready()
        place.change_scope()
        assert operator.wait(DEADLINE) == 1
        assert f"the watch missed 1 changes, the first of {_what(place)}" in place.log
    _is_heard_of(place, lambda: place.create(scope="squidex-api"))


def watch_secrets(place: Place) -> None:
    """As with SquidexClients: the target, written by somebody else."""
    with place.without(), place.operator() as operator:
        place.ready()
        place.kubectl("annotate", "secret", "shop", "note=edited")
        assert operator.wait(DEADLINE) == 1
        assert f"the watch missed 1 changes, the first of {_what(place)}" in place.log
    _is_heard_of(place, lambda: place.kubectl("annotate", "secret", "shop", "note=again", "--overwrite"))


def _what(place: Place) -> str:
    return "client" if place.right.resource == "squidexclients" else "secret"


def _is_heard_of(place: Place, act: Callable[[], Any]) -> None:
    """With the right given back, the same goes well: two lists after it, the process lives."""
    with place.operator() as operator:
        act()
        mark = place.sandbox.control_plane.audit_mark()

        def lists() -> int:
            rows = place.sandbox.control_plane.requests_of(f"{HOME}/{ACCOUNT}", since=mark)
            return sum(row.verb == "list" and row.namespace == place.namespace for row in rows)

        # The first two may have begun before; each list is of Secrets and of SquidexClients.
        place.wait(lambda: lists() >= 8 or not operator.program.alive, "some more lists")
        assert operator.program.alive, place.log
        place.wait_ready()


def patch_status(place: Place) -> None:
    """The token is renewed, and nobody is told."""
    place.ready()
    old = place.token()
    with place.without():
        place.change_scope()
        place.new_token(old)
        line = f"status not written key={place.namespace}/shop"
        place.wait(lambda: line in place.log and f"may not {place.right}" in place.log, "the log line")
        assert place.get("sqc", "shop")["status"]["observedGeneration"] == 1
    place.wait_ready()
    assert place.token_requests() == 2


def get_secrets(place: Place) -> None:
    """The credentials cannot be read."""
    place.ready()
    with place.without():
        place.change_scope()
        place.wait_failing("KubernetesError")
        assert place.token_requests() == 1
    place.wait_recovered()
    assert place.token_requests() == 2


def create_secrets(place: Place) -> None:
    """A deleted target stays away; the token that was fetched for it is kept until it can be written."""
    place.ready()
    with place.without():
        place.kubectl("delete", "secret", "shop")
        place.wait_failing("TargetRefused")
        assert condition(place.get("sqc", "shop"), "Ready")["status"] == "False"
    place.wait_recovered()
    assert place.find("secret", "shop") is not None
    assert place.token_requests() == 2


def patch_secrets(place: Place) -> None:
    """A damaged target stays damaged."""
    secret = place.ready()
    with place.without():
        place.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"tokenType": "Basic"}}))
        place.wait_failing("TargetRefused")
        assert place.get("secret", "shop")["data"] != secret["data"]
    place.wait_recovered()
    assert place.get("secret", "shop")["data"] == secret["data"]


def delete_secrets(place: Place) -> None:
    """After a change of its name, the old target stays."""
    place.ready()
    with place.without():
        place.create(target={"name": "renamed"})
        place.wait_failing("KubernetesError")
        assert place.find("secret", "renamed") is not None
        assert place.find("secret", "shop") is not None
    place.wait_recovered()
    assert place.find("secret", "shop") is None


def list_secrets(place: Place) -> None:
    """As with SquidexClients."""
    list_clients(place)


def get_configmaps(place: Place) -> None:
    """The CA of spec.tls.caRef cannot be read; once read, it is kept for a while."""
    with place.without():
        place.create()
        place.wait_failing("KubernetesError")
        assert place.token_requests() == 0
    place.wait_recovered()
    assert place.token_requests() == 1


def get_namespaces(place: Place) -> None:
    """No token is fetched for a deleted target while it is not known whether its namespace is going."""
    place.ready()
    with place.without():
        place.kubectl("delete", "secret", "shop")
        place.wait_failing("KubernetesError")
        assert place.token_requests() == 1
    place.wait_recovered()
    assert place.token_requests() == 2


def create_events(place: Place) -> None:
    """Everything works, and `kubectl describe` does not tell why."""
    place.ready()
    old = place.token()
    with place.without():
        place.kubectl("delete", "secret", "shop")
        old = place.new_token(old)
        line = f"event not posted key={place.namespace}/shop"
        place.wait(lambda: line in place.log and f"may not {place.right}" in place.log, "the log line")
        assert "TargetDeleted" not in place.events()
    place.kubectl("delete", "secret", "shop")
    place.new_token(old)
    place.wait(lambda: "TargetDeleted" in place.events(), "the event")


SCENARIOS: dict[Right, Callable[[Place], None]] = {
    Right("list", "squidexclients"): list_clients,
    Right("watch", "squidexclients"): watch_clients,
    Right("patch", "squidexclients/status"): patch_status,
    Right("get", "secrets"): get_secrets,
    Right("list", "secrets"): list_secrets,
    Right("watch", "secrets"): watch_secrets,
    Right("create", "secrets"): create_secrets,
    Right("patch", "secrets"): patch_secrets,
    Right("delete", "secrets"): delete_secrets,
    Right("get", "configmaps"): get_configmaps,
    Right("get", "namespaces"): get_namespaces,
    Right("create", "events"): create_events,
}

AT_START = {right for right in SCENARIOS if right.verb in ("list", "watch")}
"""What is asked for when a process starts: these scenarios start their own."""


def namespace_of(right: Right) -> str:
    """The namespace of a scenario."""
    return f"{HOME}-{right.verb}-{right.resource.replace('/', '-')}"


def rules_without(right: Right) -> list[Object]:
    """The shipped rules but for one right."""
    rules = copy.deepcopy(RULES)
    for rule in rules:
        if right.resource in rule["resources"]:
            rule["verbs"].remove(right.verb)
    return [rule for rule in rules if rule["verbs"]]


def role(namespace: str, rules: list[Object]) -> Object:
    """A Role."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": ACCOUNT, "namespace": namespace},
        "rules": rules,
    }


def role_binding(namespace: str) -> Object:
    """The Role, for the ServiceAccount of the scenarios."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ACCOUNT, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
    }


@pytest.fixture(scope="module", autouse=True)
def _alone(sandbox: Sandbox) -> None:
    """Only the operators of this module: one for all namespaces would mend what is to break here.

    The `operator` fixture starts the shared one again where it is asked for.
    """
    for running in sandbox.operators:
        running.stop()


@pytest.fixture(scope="module")
def outcomes(sandbox: Sandbox) -> Iterator[dict[Right, concurrent.futures.Future[None]]]:
    """All scenarios, running."""
    names = [HOME, *(namespace_of(right) for right in SCENARIOS)]
    objects: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    objects.append(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": HOME}},
    )
    for right in SCENARIOS:
        objects += [role(namespace_of(right), RULES), role_binding(namespace_of(right))]
    administrator = World(sandbox, sandbox.squidex, HOME)
    administrator.apply(*objects)
    kubeconfig = sandbox.control_plane.service_account_kubeconfig(HOME, ACCOUNT)
    operator = Operator(
        sandbox.home,
        kubeconfig=kubeconfig,
        name="rbac-operator",
        namespaces=[namespace_of(right) for right in SCENARIOS if right not in AT_START],
    )

    def run(right: Right) -> None:
        place = Place(sandbox, right, None if right in AT_START else operator, kubeconfig)
        place.set_up()
        SCENARIOS[right](place)

    try:
        operator.start()
        with concurrent.futures.ThreadPoolExecutor(len(SCENARIOS)) as threads:
            yield {right: threads.submit(run, right) for right in SCENARIOS}
    finally:
        operator.stop()
        administrator.kubectl("delete", "namespace", *names, "--wait=false", namespaced=False)


@pytest.mark.parametrize("right", RIGHTS, ids=str)
def test_a_right_is_needed_and_its_return_is_noticed(
    right: Right, outcomes: dict[Right, concurrent.futures.Future[None]]
) -> None:
    assert right in outcomes, f"nothing here shows what '{right}' is good for: write a scenario, or do not ship it"
    outcomes[right].result(timeout=120)


def test_no_right_is_given_twice_or_by_wildcard() -> None:
    assert len(set(RIGHTS)) == len(RIGHTS)
    assert "*" not in json.dumps(RULES)
    assert [rule["apiGroups"] for rule in RULES if "squidexclients" in rule["resources"]] == [["squidex-operator.io"]]


def test_the_role_for_one_namespace_has_the_same_rules() -> None:
    assert yaml.safe_load((MANIFESTS / "namespaced" / "role.yaml").read_text())["rules"] == RULES


@pytest.fixture
def installed(empty_world: World, tmp_path: Path) -> World:
    """manifests/namespaced, installed for one namespace; no operator runs."""
    # A base must be named by a relative path.
    base = os.path.relpath(MANIFESTS / "namespaced", tmp_path.resolve())
    overlay = {"resources": [base], "namespace": empty_world.namespace}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    empty_world.kubectl("apply", "-k", str(tmp_path))
    return empty_world


@pytest.fixture
def served(sandbox: Sandbox, installed: World) -> Iterator[World]:
    """The same, with the operator as its Deployment has it."""
    container = installed.get("deployment", "squidex-operator")["spec"]["template"]["spec"]["containers"][0]
    own_namespace = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    assert container["env"] == [{"name": "SQUIDEX_OPERATOR_NAMESPACES", "valueFrom": own_namespace}]
    operator = Operator(
        sandbox.home,
        kubeconfig=sandbox.control_plane.service_account_kubeconfig(installed.namespace, "squidex-operator"),
        name=f"namespaced-{installed.namespace}",
        env={"SQUIDEX_OPERATOR_NAMESPACES": installed.namespace},
    )
    try:
        operator.start()
        yield installed
    finally:
        operator.stop()


@pytest.fixture
def elsewhere(sandbox: Sandbox) -> Iterator[World]:
    """Another namespace, with credentials and a SquidexClient that nobody serves."""
    world = World(sandbox, sandbox.squidex, f"{HOME}-elsewhere")
    world.set_up()
    world.create()
    yield world
    world.tear_down()


def test_installed_for_one_namespace_it_does_the_whole_job_there_and_nothing_elsewhere(
    elsewhere: World, served: World, sandbox: Sandbox
) -> None:
    served.ready()
    old = served.token()
    served.kubectl("delete", "secret", "shop")
    old = served.new_token(old)
    served.squidex.patch({"clients": {f"{served.namespace}:second": "s"}})
    served.set_credentials(f"{served.namespace}:second", "s")
    served.new_token(old)
    served.create(target={"name": "renamed"})
    served.wait(lambda: served.find("secret", "shop") is None, "the old target to go")
    assert served.accepts(served.token("renamed")) == 200
    served.wait(lambda: {"TargetDeleted", "CredentialsChanged"} <= set(served.events()), "events")

    asked = sandbox.control_plane.requests_of(f"{served.namespace}/squidex-operator")
    assert {row.namespace for row in asked if row.resource} == {served.namespace}
    assert [row for row in asked if row.code == 403] == []
    assert elsewhere.get("sqc", "shop")["status"] == {"observedGeneration": -1}
    assert elsewhere.token_requests() == 0


def test_installed_for_one_namespace_it_may_not_read_anything_elsewhere(elsewhere: World, installed: World) -> None:
    kubeconfig = installed.sandbox.control_plane.service_account_kubeconfig(installed.namespace, "squidex-operator")

    def refused(*args: str) -> bool:
        done = installed.sandbox.control_plane.kubectl_run(*args, kubeconfig=kubeconfig, check=False)
        assert done.returncode == 0 or "forbidden" in done.stderr, done.stderr
        return done.returncode != 0

    here, there = f"--namespace={installed.namespace}", f"--namespace={elsewhere.namespace}"
    assert not refused("get", "secret", "credentials", here)
    assert refused("get", "secret", "credentials", there)
    assert refused("get", "secrets", there)
    assert refused("get", "secrets", "--all-namespaces")
    assert refused("get", "sqc", there)
    assert refused("get", "configmap", "ca", there)
    assert refused("get", "namespace", elsewhere.namespace)
    assert refused("create", "secret", "generic", "new", there)
    # And here: what is not needed for the job.
    assert refused("delete", "sqc", "shop", here)
    assert refused("annotate", "sqc", "shop", "note=edited", here)
    assert refused("get", "pods", here)
