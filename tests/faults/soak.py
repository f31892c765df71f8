"""Hours of random faults, one after the other, on one operator that lives through all of them: `python -m tests.faults.soak`.

Every minute it is calm for a moment: then all has to be well, every consumer's token accepted, nobody else's Secret touched. At
the end: has the process grown, was an error of its own logged, did a token get into the log?
"""

from __future__ import annotations

import argparse
import base64
import functools
import random
import re
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from sandbox.environment import Sandbox
from tests.faults import chaos

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.operator_process import Operator

CLIENTS = 30
LIFETIME = 60
"""Seconds that a token lives."""

CALM_AFTER = 20
"""Mishaps."""

GROWTH = 16.0
"""MiB that the process may grow after the first tenth of the time: of about 90."""

EVERYTHING_OFF: dict[str, Any] = {
    "faults": [],
    "clockOffset": 0,
    "lifetime": LIFETIME,
    "issuer": None,
    "identityServer4": False,
}


class Soak(chaos.Chaos):
    """One run."""

    deadline = 720.0
    """Seconds: more than the longest wait after a failure that will pass, with those five minutes for which a token that was
    refused when it was new is asked about again."""

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        super().__init__(sandbox, seed, namespace="soak", clients=CLIENTS, lifetime=LIFETIME)
        self._memory: list[float] = []
        self._tokens: set[str] = set()

    def soak(self, seconds: float, say: Callable[[str], None]) -> str:
        """For so long; what it came to.

        Raises:
            AssertionError: something was not as it should be.
        """
        operator = self._begin()
        started = time.monotonic()
        try:
            while time.monotonic() - started < seconds:
                for _ in range(CALM_AFTER):
                    self._mishap()
                    time.sleep(self._random.uniform(0.2, 4))
                self._squidex.patch({**EVERYTHING_OFF, "key": "replace"})
                try:
                    took = self._check()
                except AssertionError:
                    say(self._what_is_wrong(operator))
                    raise
                self.report.slowest = max(self.report.slowest, took)
                self._look_at(operator)
                say(f"{time.monotonic() - started:.0f} s: well after {took:.1f} s, {self._memory[-1]:.1f} MiB")
            self.report.elapsed = time.monotonic() - started
            return self._judge(operator)
        finally:
            operator.stop()
            self._world.tear_down()
            self._squidex.program.stop()

    def _what_is_wrong(self, operator: Operator) -> str:
        """Who is not well, and what the operator says of it."""
        bad = [name for name in self._names if not self._is_well(name)]
        seen = (
            self._world.kubectl("get", "sqc", *bad[:3], "-o", "yaml").stdout if bad else "orphans, or a foreign Secret"
        )
        lines = [
            line for line in operator.program.output().splitlines() if any(f"/{name} " in line for name in bad[:3])
        ]
        return "\n".join([seen, *lines[-60:]])

    def _mishap(self) -> None:
        draw = self._random
        name = draw.choice(self._names)
        someone = {"client": self._client_id(name)} if draw.random() < 0.5 else {}
        on = draw.choice(["token", "probe", "jwks", "all"])
        fault = draw.choice(
            [
                {"kind": "status", "status": draw.choice([401, 403, 404, 408, 418, 500, 502, 503, 504])},
                {"kind": "status", "status": 429, "retryAfter": draw.choice([0, 1, 3, "soon"])},
                {"kind": "status", "status": 503, "retryAfterDate": draw.choice([-5, 2, 4])},
                {"kind": "html", "status": draw.choice([200, 500, 502])},
                {"kind": "redirect"},
                {"kind": "oauth", "error": draw.choice(["invalid_request", "server_error", "slow_down", "strange"])},
                {"kind": "json", "set": {"access_token": draw.choice([7, None, "a b", ""]), "keys": "x"}},
                {"kind": "json", "body": draw.choice([[], 7, None, "text", {"keys": []}])},
                {"kind": "token", "key": "odd"},
                {"kind": "token", "expIn": draw.choice([-5, 1, 5])},
                {"kind": "token", "claims": {"client_id": "somebody:else"}},
                {"kind": "slow", "seconds": draw.uniform(0.1, 5)},
                {"kind": "drip", "seconds": 0.01, "bytes": 20},
                {"kind": "hang"},
                {"kind": "reset"},
                {"kind": "truncate"},
                {"kind": "huge", "bytes": 400_000},
            ]
        )
        switches: list[dict[str, Any]] = [
            {"key": "replace"},
            {"replicas": ["first", "second"]},
            {"issuer": "https://moved.example.com/"},
            {"clockOffset": draw.choice([-90, 90, 4000])},
            {"lifetime": draw.choice([5, 20, 600])},
            {"identityServer4": draw.random() < 0.5},
            EVERYTHING_OFF,
        ]
        control_plane, world = self._sandbox.control_plane, self._world
        acts: list[Callable[[], object]] = [
            lambda: world.kubectl("delete", "secret", name, "--ignore-not-found"),
            lambda: self._recreate(name),
            lambda: world.kubectl("label", "secret", name, f"{chaos._ROLE}-", check=False),
            lambda: world.kubectl("patch", "secret", name, "-p", '{"stringData":{"token":"damaged"}}', check=False),
            lambda: world.kubectl("annotate", "secret", name, "squidex-operator.io/expires-at-", check=False),
            lambda: self._rotate(name),
            control_plane.compact,
            control_plane.restart_apiserver,
        ]
        what = draw.choices([0, 1, 2], [6, 2, 3])[0]
        if what == 0:
            self._squidex.patch({"faults": [{**fault, **someone, "on": on}]})
            self.report.events[str(fault["kind"])] += 1
        elif what == 1:
            switch = draw.choice(switches)
            self._squidex.patch(switch)
            self.report.events[" ".join(switch) if switch is not EVERYTHING_OFF else "off"] += 1
        else:
            draw.choices(acts, [3, 3, 3, 3, 3, 3, 1, 1])[0]()
            self.report.events["act"] += 1

    def _rotate(self, name: str) -> None:
        """The secret in Squidex, and a moment later in the cluster."""
        secret = f"{name}-{self._random.getrandbits(64):x}"
        self._squidex.patch({"clients": {self._client_id(name): secret}})
        time.sleep(self._random.uniform(0, 2))
        self._world.set_credentials(self._client_id(name), secret, name=f"{name}-credentials")

    def _look_at(self, operator: Operator) -> None:
        text = operator.get("/metrics")[1]
        self._memory.append(_figure(text, "process_resident_memory_bytes") / 2**20)
        assert _figure(text, "squidex_operator_unforeseen_errors_total") == 0
        for name in self._names:
            self._tokens.add(base64.b64decode(self._world.get("secret", name)["data"]["token"]).decode())

    def _judge(self, operator: Operator) -> str:
        warm = len(self._memory) // 10
        first, last = statistics.median(self._memory[warm : warm + 5]), statistics.median(self._memory[-5:])
        log = operator.program.output()
        levels = {word: len(re.findall(rf"\b{word}\b", log)) for word in ("WARNING", "ERROR", "CRITICAL", "Traceback")}
        errors = [line for line in log.splitlines() if re.search(r"\b(ERROR|CRITICAL|Traceback)\b", line)]
        # Kopf says in this way that the API server is away.
        errors = [line for line in errors if not re.search(r"kopf\._cogs\.clients.*will retry", line)]
        told = (
            f"seed={self.report.seed} seconds={self.report.elapsed:.0f} slowest={self.report.slowest:.1f}s "
            f"memory={first:.1f}->{last:.1f}MiB log={levels} {dict(sorted(self.report.events.items()))}"
        )
        assert operator.program.alive, told
        assert not any(token in log for token in self._tokens), "a token is in the log"
        assert not errors, "\n".join([told, *errors[:20]])
        assert last - first < GROWTH, told
        return told


def _figure(text: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def main() -> int:
    """Run it as a program."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parsed = parser.parse_args()
    say = functools.partial(print, flush=True)
    say(f"seed {parsed.seed}: minutes={parsed.minutes:g}")
    with Sandbox() as sandbox:
        say(Soak(sandbox, parsed.seed).soak(parsed.minutes * 60, say))
    return 0


if __name__ == "__main__":
    sys.exit(main())
