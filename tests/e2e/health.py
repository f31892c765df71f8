"""What GitOps tools make of a SquidexClient: one table of statuses, and each tool's way to read it."""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sandbox import places
from squidex_operator.api import reasons
from squidex_operator.policy import backoff, conditions, decide, observed
from tests.unit.policy import situation

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "manifests/gitops/argocd/health.lua"
FLUX = ROOT / "manifests/gitops/flux/shop.yaml"
KSTATUS = ROOT / "tests/data/kstatus"

Object = dict[str, Any]
Reason = reasons.Reason

CURRENT, IN_PROGRESS, FAILED = "Current", "InProgress", "Failed"
IN_ARGO = {CURRENT: "Healthy", IN_PROGRESS: "Progressing", FAILED: "Degraded"}

PERMANENT = (
    Reason.INVALID_CLIENT,
    Reason.UNAUTHORIZED_CLIENT,
    Reason.INVALID_SCOPE,
    Reason.INVALID_REQUEST,
    Reason.URL_NOT_ALLOWED,
)
AT_ONCE = (Reason.TARGET_NOT_OWNED, Reason.TARGET_CONFLICT, Reason.TARGET_REFUSED)
"""Not a matter of waiting, though the next try is soon."""
IN_TEN_MINUTES = (
    *(Reason.CREDENTIALS_MISSING, Reason.CREDENTIALS_INCOMPLETE, Reason.CA_UNAVAILABLE, Reason.NEW_TOKEN_REFUSED),
    *(Reason.NOT_SQUIDEX, Reason.INVALID_RESPONSE, Reason.REDIRECTED, Reason.FORBIDDEN, Reason.RATE_LIMITED),
    *(Reason.SERVER_ERROR, Reason.UNREACHABLE, Reason.TIMEOUT, Reason.TLS_ERROR, Reason.KUBERNETES_ERROR),
    Reason.INTERNAL_ERROR,
)


@dataclass(frozen=True)
class Case:
    """A SquidexClient with a status, and how it is."""

    id: str
    object: Object
    expected: str


def cases() -> list[Case]:
    """A status for every reason, as the operator writes it, and every combination of conditions."""
    found = [*_before(), *_reported(), *_combinations()]
    reasons_seen = {c["reason"] for case in found for c in case.object["status"].get("conditions", [])}
    return found + [_by_the_way(reason) for reason in reasons.Reason if reason not in reasons_seen]


def _before() -> Iterator[Case]:
    yield Case("not looked at", _squidexclient({"observedGeneration": -1}), IN_PROGRESS)
    good = conditions.build(situation.NOW, situation.seen())
    yield Case("edited since", _squidexclient(good, generation=2), IN_PROGRESS)


def _reported() -> Iterator[Case]:
    """As the operator reports them."""
    yield _built("well", CURRENT)
    yield _built("first token under way", IN_PROGRESS, target=None)
    for verdict in observed.Verdict:
        expected = IN_PROGRESS if verdict is observed.Verdict.REFUSED else CURRENT
        yield _built(f"probe: {verdict.value}", expected, probed=situation.probed(verdict))
    for reason in (*PERMANENT, *AT_ONCE, *IN_TEN_MINUTES):
        kind = backoff.Kind.PERMANENT if reason in PERMANENT else backoff.Kind.CLUSTER
        failure = situation.failure(reason, kind)
        soon = IN_PROGRESS if reason in IN_TEN_MINUTES else FAILED
        kept = FAILED if reason is Reason.TARGET_NOT_OWNED else CURRENT
        yield _built(f"{reason}, no token", soon, target=None, failure=failure)
        yield _built(f"{reason}, no token for ten minutes", FAILED, target=None, failure=failure, client=_failing())
        yield _built(f"{reason}, with a token that works", kept, failure=failure, client=_failing())
    yield _built("expired", IN_PROGRESS, now=situation.NOW + 2 * situation.MONTH)
    gone = situation.failure(next_attempt=situation.NOW + 3 * situation.MONTH)
    yield _built("expired, failing for days", FAILED, now=situation.NOW + 2 * situation.MONTH, failure=gone,
                 client=_failing())  # fmt: skip
    refused = situation.probed(observed.Verdict.REFUSED)
    yield _built("refused, failing", IN_PROGRESS, probed=refused, failure=situation.failure())
    yield _built("refused, wrong secret", FAILED, probed=refused,
                 failure=situation.failure(Reason.INVALID_CLIENT, backoff.Kind.PERMANENT))  # fmt: skip
    yield _built("unreadable spec", FAILED, stopped=decide.invalid_spec("spec.url: bad"))
    yield _built("namespace goes", IN_PROGRESS, stopped=decide.terminating(), target=None)


def _combinations() -> Iterator[Case]:
    """Whatever the conditions are, and whatever order they are in, the tools agree."""
    for ready, stalled, failing in itertools.product(("True", "False", "Unknown"), repeat=3):
        found = [
            situation.condition("RefreshFailing", failing, "ServerError"),
            situation.condition("Stalled", stalled, "InvalidClient"),
            situation.condition("Ready", ready, "Pending"),
        ]
        expected = FAILED if stalled == "True" else CURRENT if ready == "True" else IN_PROGRESS
        status = {"observedGeneration": 1, "conditions": found}
        yield Case(f"Ready={ready} Stalled={stalled} RefreshFailing={failing}", _squidexclient(status), expected)


def _by_the_way(reason: Reason) -> Case:
    """A reason that none of the above has: whatever it says of something else, a token that works is one."""
    found = [
        situation.condition("Ready", "True", "TokenValid"),
        situation.condition("TokenAccepted", "Unknown", reason),
    ]
    return Case(f"{reason}", _squidexclient({"observedGeneration": 1, "conditions": found}), CURRENT)


def _built(name: str, expected: str, **seen: Any) -> Case:
    now, stopped = seen.pop("now", situation.NOW), seen.pop("stopped", None)
    return Case(name, _squidexclient(conditions.build(now, situation.seen(**seen), stopped=stopped)), expected)


def _failing() -> observed.Client:
    since = (situation.NOW - dt.timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return situation.client(
        status={
            "conditions": [{**situation.condition("RefreshFailing", "True", "Timeout"), "lastTransitionTime": since}]
        }
    )


def _squidexclient(status: Object, generation: int = 1) -> Object:
    return {
        "apiVersion": "squidex-operator.io/v1beta1",
        "kind": "SquidexClient",
        "metadata": {"name": "shop", "namespace": "web", "generation": generation},
        "spec": {"credentialsSecretRef": {"name": "keys"}},
        "status": status,
    }


# Argo CD.


def argo(body: Object) -> tuple[str, str]:
    """Health and message by health.lua, in Lua 5.1 as in Argo CD."""
    from lupa import lua51

    lua = lua51.LuaRuntime(register_eval=False)
    lua.globals().obj = lua.table_from(body, recursive=True)
    found = lua.execute(LUA.read_text())
    return found["status"], found["message"]


# Flux.


def flux_expressions() -> dict[str, str]:
    """`inProgress`, `failed` and `current` of the Kustomization."""
    (one,) = yaml.safe_load(FLUX.read_text())["spec"]["healthCheckExprs"]
    assert (one["apiVersion"], one["kind"]) == ("squidex-operator.io/v1beta1", "SquidexClient")
    return {name: one[name] for name in ("inProgress", "failed", "current")}


def flux(body: Object, true: set[str]) -> str:
    """What Flux concludes, given which expressions are true of the object.

    Its RFC 0009: another observedGeneration is in progress; then inProgress, failed, current, in this order, and in progress
    where none is true.
    """
    if body["status"].get("observedGeneration", body["metadata"]["generation"]) != body["metadata"]["generation"]:
        return IN_PROGRESS
    in_order = {"inProgress": IN_PROGRESS, "failed": FAILED, "current": CURRENT}
    return next((result for name, result in in_order.items() if name in true), IN_PROGRESS)


# kstatus.


def kstatus_program() -> Path | None:
    """The real library in a program of its own, built once and kept in the cache; None where there is no Go."""
    sources = sorted(KSTATUS.iterdir())
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    program = places.cache() / f"kstatus-{digest}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        return None
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_name(f"{program.name}.unfinished")
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -modcacherw", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", unfinished, "."]
    with unfinished.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers of the tests come at once
        if not program.exists():
            env = {**os.environ, **settings}
            done = subprocess.run(command, cwd=KSTATUS, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            unfinished.replace(program)
    return program


def kstatus(program: Path, bodies: list[Object]) -> list[str]:
    """What the library makes of each object."""
    lines = "\n".join(json.dumps(body) for body in bodies)
    return subprocess.run([program], input=lines, capture_output=True, text=True, check=True, timeout=30).stdout.split()
