"""Each trouble of docs/troubleshooting.md, made for real, and what kubectl then says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squidex_operator.engine import inventory, reconcile
from squidex_operator.kube import gateway
from squidex_operator.policy import conditions, decide, observed
from squidex_operator.squidex import answers, http
from tests.unit.policy import situation

if TYPE_CHECKING:
    from tests.e2e.world import World

PAGE = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"

Object = dict[str, Any]


# The page.


@dataclass(frozen=True)
class Block:
    """What one block of the page shows: rows of `kubectl get sqc`, and conditions; both normalised."""

    rows: list[str]
    conditions: list[str]


def blocks() -> dict[str, list[Block]]:
    """The blocks of each section that has any."""
    sections = re.split(r"^#+ +(.+)$", PAGE.read_text(), flags=re.MULTILINE)
    found: dict[str, list[Block]] = {}
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        for block in re.findall(r"^```\n(\$ kubectl get sqc\n.*?)^```$", text, re.MULTILINE | re.DOTALL):
            table, _, rest = block.partition("\n\n")
            shown = Block(
                [normalised(row) for row in table.splitlines()[1:]], [normalised(line) for line in rest.splitlines()]
            )
            found.setdefault(title, []).append(shown)
    return found


def quoted() -> set[str]:
    """Every condition that the page quotes in running text, normalised."""
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {
        normalised(line.replace("\n", " "))
        for line in re.findall(r"`([A-Z]\w+=(?:True|False|Unknown) \w+: [^`]+)`", prose)
    }


def described() -> list[str]:
    """What the page shows of `kubectl describe`, normalised."""
    (text,) = re.findall(r"^```\n(Status:\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [normalised(line) for line in text.splitlines()]


def normalised(line: str) -> str:
    """Without what differs from run to run: times, ages, ports, namespaces, hashes, the width of columns."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line)
    line = re.sub(r"https://127\.0\.0\.1:\d{2,5}\b", "https://SQUIDEX", line)
    line = re.sub(r"/namespaces/[\w-]+/", "/namespaces/NAMESPACE/", line)
    line = re.sub(r"\b[0-9a-f]{64}\b", "HASH", line)
    line = re.sub(r" (\d+[smh])+(?= |$)", " AGE", line.rstrip())
    return re.sub(r" {2,}|-{3,}", " ", line)


# The troubles.


@dataclass(frozen=True)
class Trouble:
    """A SquidexClient that something is wrong with."""

    section: str
    block: int = 0
    condition: tuple[str, str, str] = ("Ready", "False", "")
    """What is waited for; the reason is the section's, where none is given."""
    spec: Object = field(default_factory=dict)
    credentials: Object | None = field(default_factory=dict)
    """What differs from right ones; None: there is no such Secret."""
    faults: list[Object] = field(default_factory=list)
    later: list[Object] = field(default_factory=list)
    """Faults from when it was ready on."""

    @property
    def name(self) -> str:
        """Of the SquidexClient."""
        return f"{self.section.lower()}{self.block}"

    @property
    def awaited(self) -> tuple[str, str, str]:
        """Type, status and reason."""
        kind, status, reason = self.condition
        return kind, status, reason or self.section

    def normalised(self, world: World, line: str) -> str:
        """A line of real output, as if it were the page's."""
        for name, shown in ((f"{self.name}-credentials", "shop-credentials"), (self.name, "shop-token")):
            line = line.replace(name, shown)
        return normalised(line)


def _status(status: int, on: str = "token", **more: Any) -> Object:
    return {"kind": "status", "on": on, "status": status, **more}


ELSEWHERE = {"kind": "ConfigMap", "name": "corp-ca"}

AT_ONCE = [
    Trouble("CredentialsMissing", credentials=None),
    Trouble("CredentialsIncomplete", credentials={"clientSecret": None}),
    Trouble(
        "WhitespaceTrimmed", condition=("CredentialsAvailable", "True", ""), credentials={"clientSecret": "secret\n"}
    ),
    Trouble("CAUnavailable", spec={"tls": {"caRef": ELSEWHERE}}),
    Trouble("URLNotAllowed", spec={"url": "https://169.254.169.254"}),
    Trouble("TargetNotOwned"),
    Trouble("InvalidClient", credentials={"clientSecret": "wrong"}),
    Trouble("UnauthorizedClient", faults=[{"kind": "oauth", "on": "token", "error": "unauthorized_client"}]),
    Trouble("InvalidScope", spec={"scope": "nonsense"}),
    Trouble("InvalidRequest", spec={"scope": "offline_access"}),
    Trouble("NotSquidex", 0, spec={"url": "{url}/cms"}),
    Trouble("NotSquidex", 1, faults=[{"kind": "html", "on": "token"}]),
    Trouble("InvalidResponse", faults=[{"kind": "json", "on": "token", "remove": ["access_token"]}]),
    Trouble("Redirected", faults=[{"kind": "redirect", "on": "token"}]),
    Trouble("Forbidden", faults=[_status(403)]),
    Trouble("Unreachable", 0, spec={"url": "https://127.0.0.1:1"}),
    Trouble("Unreachable", 1, spec={"url": "https://cms.shop.invalid"}),
    Trouble("TLSError", spec={"tls": None}),
    Trouble("NewTokenRefused", faults=[{"kind": "token", "on": "token", "key": "another"}]),
    Trouble("AppNotFound", condition=("TokenAccepted", "Unknown", "")),
    Trouble("ProbeInconclusive", condition=("TokenAccepted", "Unknown", ""), faults=[{"kind": "html", "on": "probe"}]),
    Trouble("ProbeOff", condition=("TokenAccepted", "Unknown", ""), spec={"probe": {"mode": "Off"}}),
    Trouble("ServerError", 0, faults=[_status(500)]),
]
"""Of the first token. Those that make a server look overloaded come last."""

WITH_A_TOKEN = [
    Trouble("InvalidClient", 1, ("RefreshFailing", "True", "")),
    Trouble("TargetNotOwned", 1),
    Trouble("TargetConflict", condition=("RefreshFailing", "True", "")),
    Trouble("TargetRefused", 1, ("RefreshFailing", "True", "")),
    Trouble("NotSquidex", 2),
    Trouble("ServerError", 1, ("RefreshFailing", "True", ""), later=[_status(503)]),
    # The stand-in's answer says 30 days; the token itself says seconds, and that counts.
    Trouble("TokenExpired", faults=[{"kind": "token", "on": "token", "expIn": 4, "times": 1}, _status(503, skip=1)]),
]
"""Of the next token."""

AT_LAST = [
    Trouble("TokenRefused", condition=("TokenAccepted", "False", ""), later=[_status(503)]),
    Trouble("RateLimited", faults=[_status(429, retryAfter=240)]),
]
"""What concerns all that ask the same server."""


def objects(world: World, trouble: Trouble) -> list[Object]:
    """The SquidexClient and its credentials."""
    url, given = world.squidex.url, {"clientId": f"{trouble.name}:default", "clientSecret": "secret"}
    wanted = {key: value for key, value in {**given, **(trouble.credentials or {})}.items() if value is not None}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{trouble.name}-credentials",
            "namespace": world.namespace,
            "labels": {"squidex-operator.io/role": "credentials"},
        },
        "stringData": wanted,
    }
    spec = {"credentialsSecretRef": {"name": f"{trouble.name}-credentials"}, **trouble.spec}
    if "url" in trouble.spec:
        spec["url"] = trouble.spec["url"].format(url=url)
    client = world.manifest(trouble.name, **spec)
    client["spec"] = {key: value for key, value in client["spec"].items() if value is not None}
    return [client] if trouble.credentials is None else [secret, client]


def faults(troubles: list[Trouble], *, later: bool = False) -> list[Object]:
    """For the stand-in, each for the client of its trouble."""
    return [
        {**fault, "client": f"{trouble.name}:default"}
        for trouble in troubles
        for fault in [*trouble.faults, *(trouble.later if later else [])]
    ]


HEAD = "NAME READY REASON SECRET EXPIRES NEXT REFRESH AGE"


def rendered() -> dict[str, Block]:
    """What takes too long to be made, or would be in the way of other tests: by the code that writes it."""
    spec = {"credentialsSecretRef": {"name": "keys"}, "refresh": {"renewBeforePercentage": 95}}
    body = {"metadata": {"namespace": "web", "name": "shop", "uid": "1", "resourceVersion": "1"}, "spec": spec}
    unreadable = decide.invalid_spec(inventory.read_client(body).spec_error)
    late = http._translate("https://127.0.0.1:40371", TimeoutError(), http.TIMEOUT)
    message = (
        'configmaps "ca" is forbidden: User "x" cannot get resource "configmaps" in API group "" in the namespace "y"'
    )
    denied = gateway._error("GET /api/v1/namespaces/y/configmaps/sandbox-ca", 403, {}, {"message": message})
    problems = [late.problem, denied.problem, reconcile._BUG]
    found = {
        problem.reason: situation.seen(target=None, failure=situation.failure(problem=problem)) for problem in problems
    }
    statuses = {reason: conditions.build(situation.NOW, o) for reason, o in found.items()}
    for problem in (unreadable, decide.terminating()):
        statuses[problem.reason] = conditions.build(situation.NOW, situation.seen(target=None), stopped=problem)
    well = {"": {}, "early": {"client": situation.client(status={}), "target": None, "credentials": observed.UNKNOWN}}
    well["disagreement"] = {"keys_disagree_until": situation.NOW + situation.MONTH}
    well["accepted"] = {"probed": observed.Probed(*answers.probe_answer(_ACCEPTED), situation.target().data_hash)}
    for name, changes in well.items():
        statuses[name] = conditions.build(situation.NOW, situation.seen(**changes))
    return {
        reason: Block([HEAD, f"shop-token False {reason} AGE"], [_line(one) for one in status["conditions"]])
        for reason, status in statuses.items()
    }


_ACCEPTED = answers.Answer("https://127.0.0.1:40371", 200, {"content-type": "application/json"}, b"{}")


def _line(condition: Object) -> str:
    text = f"{condition['type']}={condition['status']} {condition['reason']}: {condition['message']}"
    return normalised(text.replace("'shop'", "'shop-token'").replace(situation.spec().url, _ACCEPTED.host))


def seen(world: World, trouble: Trouble, *, others: tuple[str, ...] = ()) -> Block:
    """What kubectl says of it, as the page would show it."""
    table = world.kubectl("get", "sqc", trouble.name, *others).stdout.splitlines()
    template = '{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\\n"}{end}'
    conditions = world.kubectl("get", "sqc", *(others or (trouble.name,)), "-o", f"jsonpath={template}").stdout
    rows, lines = ([trouble.normalised(world, line) for line in part] for part in (table, conditions.splitlines()))
    return Block(rows[:1] + sorted(rows[1:]), lines)
