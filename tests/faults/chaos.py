"""Kills the operator at random moments, with renewals and faults of Squidex going on, and checks after each restart that all
is as it should be: `python -m tests.faults.chaos` (make chaos).

The moments and the faults follow from the seed, which is printed; what they hit depends on the machine as well.
"""

from __future__ import annotations

import argparse
import base64
import collections
import dataclasses
import functools
import json
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from sandbox.environment import Sandbox
from sandbox.standin import Squidex
from tests.e2e.world import World, condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.operator_process import Operator

LIFETIME = 9
"""Seconds: a renewal of each token every six, and three to spare."""

CLIENTS = 6

DEADLINE = 60.0
"""Seconds for all to be well again: more than the longest wait after the few failures that a fault makes."""

_ARGS = ("--keys-interval=2s", "--relist-interval=20s", "--client-fetch-interval=1s", "--client-fetch-burst=50")
_ACCOUNT = "squidex-operator/squidex-operator"
_ROLE = "squidex-operator.io/role"


@dataclasses.dataclass
class Report:
    """What a run was like."""

    seed: int
    kills: int = 0
    elapsed: float = 0.0
    slowest: float = 0.0
    """Seconds after a restart until all was well, at most."""
    granted: int = 0
    """Tokens that Squidex gave."""
    published: int = 0
    """Writes of target Secrets."""
    failed: int = 0
    """Token requests without a token."""
    events: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def lost(self) -> int:
        """Tokens that were given and never written: the operator was killed in between."""
        return self.granted - self.published

    def __str__(self) -> str:
        """For people."""
        happened = " ".join(f"{name}={count}" for name, count in sorted(self.events.items()))
        return (
            f"seed={self.seed} kills={self.kills} seconds={self.elapsed:.0f} granted={self.granted} "
            f"published={self.published} lost={self.lost} failed={self.failed} slowest={self.slowest:.1f}s {happened}"
        )


class Chaos:
    """One run."""

    deadline = DEADLINE

    def __init__(
        self, sandbox: Sandbox, seed: int, *, namespace: str = "chaos", clients: int = CLIENTS, lifetime: int = LIFETIME
    ) -> None:
        self._random = random.Random(seed)
        self._sandbox = sandbox
        self._squidex = Squidex(sandbox.home, name=namespace, extra_args=[f"--lifetime={lifetime}"])
        self._world = World(sandbox, self._squidex, namespace)
        self._names = [f"c{number}" for number in range(clients)]
        self._renewed: collections.Counter[str] = collections.Counter()
        """Tokens that events gave a reason for, by SquidexClient."""
        self.report = Report(seed)

    def run(self, kills: int, say: Callable[[str], None] = lambda _: None) -> Report:
        """Kill it so often.

        Raises:
            AssertionError: something was not as it should be.
        """
        operator = self._begin()
        started = time.monotonic()
        try:
            for _ in range(kills):
                what = self._something_happens()
                self._await_moment()
                operator.kill()
                self.report.kills += 1
                operator.start()
                took = self._check()
                self.report.slowest = max(self.report.slowest, took)
                say(f"kill {self.report.kills}: {what}, well after {took:.1f} s")
            self.report.elapsed = time.monotonic() - started
            operator.stop()
            self._account()
        finally:
            operator.stop()
            self._world.tear_down()
            self._squidex.program.stop()
        return self.report

    def _begin(self) -> Operator:
        self._squidex.start()
        world = self._world
        world.set_up()
        for name in self._names:
            self._squidex.patch({"clients": {self._client_id(name): name}})
            world.set_credentials(self._client_id(name), name, name=f"{name}-credentials")
        # Foreign Secrets: one beside the targets, one that looks like a target, one in a target's place.
        world.kubectl("create", "secret", "generic", "beside", "--from-literal=theirs=kept")
        world.kubectl("create", "secret", "generic", "alike", "--from-literal=token=kept")
        world.kubectl("label", "secret", "alike", f"{_ROLE}=token", "app.kubernetes.io/managed-by=squidex-operator")
        world.kubectl("create", "secret", "generic", "blocked", "--from-literal=theirs=kept")
        world.create("blocked")
        self._foreign = {name: world.get("secret", name) for name in ("beside", "alike", "blocked")}
        self._mark = self._sandbox.control_plane.audit_mark()
        for name in self._names:
            self._create(name)
        operator = self._sandbox.start_operator(namespaces=[world.namespace], extra_args=_ARGS)
        self._check()
        return operator

    def _create(self, name: str) -> None:
        self._world.create(name, credentialsSecretRef={"name": f"{name}-credentials"})

    def _client_id(self, name: str) -> str:
        return f"{self._world.namespace}:{name}"

    def _something_happens(self) -> str:
        """A fault or an act, or nothing."""
        draw = self._random
        name = draw.choice(self._names)
        one = {"on": "token", "client": self._client_id(name)}
        faults: dict[str, dict[str, Any]] = {
            "token-503": {**one, "kind": "status", "status": 503, "times": draw.randint(1, 2)},
            "token-reset": {**one, "kind": "reset", "times": 1},
            "token-slow": {
                "on": "token",
                "kind": "slow",
                "seconds": draw.uniform(0.1, 1.5),
                "times": draw.randint(1, 4),
            },
            "probe-503": {"on": "probe", "kind": "status", "status": 503, "times": 3},
            "keys-500": {"on": "jwks", "kind": "html", "status": 500, "times": 2},
        }
        acts: dict[str, Callable[[], object]] = {
            "nothing": lambda: None,
            "key-replaced": lambda: self._squidex.patch({"key": "replace"}),
            "target-deleted": lambda: self._world.kubectl("delete", "secret", name, "--ignore-not-found"),
            "client-recreated": lambda: self._recreate(name),
        }
        what = draw.choice([*faults, *acts, "nothing"])
        if what in faults:
            self._squidex.patch({"faults": [faults[what]]})
        else:
            acts[what]()
            self._renewed.update(self._names if what == "key-replaced" else [name])
        self.report.events[what] += 1
        return what

    def _recreate(self, name: str) -> None:
        self._world.kubectl("delete", "sqc", name)
        self._create(name)

    def _await_moment(self) -> None:
        """Half of the kills come while a token is being fetched, or just after."""
        end = time.monotonic() + self._random.uniform(0, 2)
        if self._random.random() < 0.5:
            end += 5
            while time.monotonic() < end and not self._squidex.state()["counts"]["inFlight"].get("token"):
                pass
            end = time.monotonic() + self._random.uniform(0, 0.05)
        time.sleep(max(0.0, end - time.monotonic()))

    def _check(self) -> float:
        """Wait until all is well; how long that took."""
        started = time.monotonic()
        for name in self._names:
            self._world.wait(lambda name=name: self._is_well(name), f"a good token in {name}", deadline=self.deadline)
        self._world.wait(lambda: not self._orphans(), "targets without a SquidexClient to go", deadline=self.deadline)
        for name, before in self._foreign.items():
            assert self._world.get("secret", name) == before, f"the foreign Secret {name} was changed"
        return time.monotonic() - started

    def _is_well(self, name: str) -> bool:
        """The target has a token of this client that the server accepts, and the status says so."""
        client, secret = self._world.find("sqc", name), self._world.find("secret", name)
        if client is None or secret is None or condition(client, "Ready").get("status") != "True":
            return False
        owners = [owner["uid"] for owner in secret["metadata"].get("ownerReferences") or []]
        token = base64.b64decode(secret["data"]["token"]).decode()
        return owners == [client["metadata"]["uid"]] and self._world.accepts(token) == 200

    def _orphans(self) -> list[str]:
        """Targets whose SquidexClient is not there."""
        done = self._world.kubectl("get", "sqc,secrets", "-o", "json")
        items = json.loads(done.stdout)["items"]
        uids = {item["metadata"]["uid"] for item in items if item["kind"] == "SquidexClient"}
        return [
            item["metadata"]["name"]
            for item in items
            if (item["metadata"].get("labels") or {}).get(_ROLE) == "token"
            and item["metadata"]["name"] not in self._foreign
            and not uids.intersection(owner["uid"] for owner in item["metadata"].get("ownerReferences") or [])
        ]

    def _account(self) -> None:
        """Every token that was given was written, but for those that a kill came between; and none without a reason."""
        report = self.report
        counts = self._squidex.state()["counts"]["token"]["byClient"]
        rows = self._sandbox.control_plane.requests_of(_ACCOUNT, since=self._mark)
        written = [
            row
            for row in rows
            if row.resource == "secrets" and row.verb in ("create", "patch") and row.code in (200, 201)
            if row.namespace == self._world.namespace
        ]
        report.published = len(written)
        for name in self._names:
            found = {int(status): count for status, count in counts.get(self._client_id(name), {}).items()}
            granted = found.pop(200, 0)
            report.granted += granted
            report.failed += sum(found.values())
            due = report.elapsed / (LIFETIME / 2) + 2 + self._renewed[name] + report.kills
            assert granted <= due, f"{granted} tokens for {name}: more than {due:.0f}; {report}"
        assert report.lost <= report.kills, f"more tokens than kills were lost: {report}"
        asked_in_vain = 2 * sum(report.events.values()) + CLIENTS * report.kills
        assert report.failed <= asked_in_vain, f"too many token requests in vain: {report}"


def main() -> int:
    """Run it as a program."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parsed = parser.parse_args()
    say = functools.partial(print, flush=True)
    say(f"seed {parsed.seed}: kills={parsed.kills}")
    with Sandbox() as sandbox:
        report = Chaos(sandbox, parsed.seed).run(parsed.kills, say)
    say(str(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
