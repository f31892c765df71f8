"""No client secret and no token is told to anybody: not in a log at its loudest, an event, a status or a metric."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.operator_process import Operator
from tests.e2e.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.environment import Sandbox

SECRET = "the+very/secret=of our&client%41"
"""With every character that some encoding writes in another way."""

FAULTS: dict[str, list[dict[str, Any]]] = {
    "good": [],
    "wrong-secret": [{"kind": "oauth", "error": "invalid_client", "description": SECRET, "on": "token"}],
    "html": [{"kind": "html", "on": "token"}],
    "html-500": [{"kind": "html", "status": 500, "on": "token"}],
    "redirect": [{"kind": "redirect", "location": f"https://127.0.0.1:1/?client_secret={SECRET[:8]}", "on": "token"}],
    "busy": [{"kind": "status", "status": 429, "retryAfter": 1, "body": SECRET, "on": "token"}],
    "huge": [{"kind": "huge", "bytes": 600_000, "on": "token"}],
    "reset": [{"kind": "reset", "on": "token"}],
    "truncated": [{"kind": "truncate", "on": "token"}],
    "wrong-type": [{"kind": "json", "set": {"token_type": "MAC"}, "on": "token"}],
    "wrong-lifetime": [{"kind": "json", "set": {"expires_in": "soon"}, "on": "token"}],
    "list": [{"kind": "json", "body": ["list"], "on": "token"}],
    "not-ours": [{"kind": "token", "claims": {"client_id": "somebody:else"}, "on": "token"}],
    "dead": [{"kind": "token", "expIn": -60, "on": "token"}],
    "opaque": [{"kind": "token", "opaque": True, "on": "token"}],
    "key-as-token": [{"kind": "token", "key": "second", "on": "token"}],
    "refused": [
        {
            "kind": "status",
            "status": 401,
            "headers": {"WWW-Authenticate": 'Bearer error="invalid_token"'},
            "on": "probe",
        }
    ],
    "probe-reset": [{"kind": "reset", "on": "probe"}],
}


@pytest.fixture(scope="module")
def loud(sandbox: Sandbox) -> Iterator[Operator]:
    """An operator that tells all it can, for the namespaces of these tests."""
    for other in sandbox.operators:
        other.stop()  # else it would do the work, and tell less; who needs it starts it again
    operator = Operator(
        sandbox.home,
        kubeconfig=sandbox.operator_kubeconfig(),
        name="operator-loud",
        namespaces=["secrecy"],
        extra_args=["--log-level=DEBUG", "--keys-interval=1s", "--relist-interval=5s"],
    )
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def quiet_world(sandbox: Sandbox, loud: Operator) -> Iterator[World]:
    world = World(sandbox, sandbox.squidex, "secrecy")
    world.client_secret = SECRET
    world.set_up()
    yield world
    sandbox.squidex.patch({"faults": []})
    world.tear_down()


def spellings(secret: str) -> list[str]:
    """The secret in each form in which it could show itself, in parts that no other text has by chance."""
    raw = secret.encode()
    forms = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], raw.hex()}
    # base64 differs with what stands before it: the middle of each of the three shifts.
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + raw).decode()
        forms |= {encoded[4:-4], encoded[4:-4].replace("+", "-").replace("/", "_")}
    import urllib.parse

    forms |= {urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    return [form for form in forms if form]


def everything(world: World, operator: Operator) -> dict[str, str]:
    """All that anybody may read."""
    found = {
        "the log": operator.program.output(),
        "the metrics": operator.get("/metrics")[1],
        "the health": operator.get("/livez")[1] + operator.get("/readyz")[1],
    }
    for kind in ("events", "squidexclients.squidex-operator.io"):
        found[kind] = world.kubectl("get", kind, "-o", "json", "--show-managed-fields").stdout
    secrets = json.loads(world.kubectl("get", "secrets", "-o", "json", "--show-managed-fields").stdout)["items"]
    found["the metadata of the Secrets"] = json.dumps([body["metadata"] for body in secrets])
    return found


def test_nothing_secret_is_told_whatever_goes_wrong(quiet_world: World, loud: Operator) -> None:
    world = quiet_world
    tokens: set[str] = set()

    def collect() -> None:
        for body in json.loads(world.kubectl("get", "secrets", "-o", "json").stdout)["items"]:
            token = (body.get("data") or {}).get("token")
            if token:
                tokens.add(base64.b64decode(token).decode())

    for name, faults in FAULTS.items():
        client_id = f"secrecy:{name}"
        world.squidex.patch({"clients": {client_id: SECRET}, "faults": faults})
        world.set_credentials(client_id, SECRET, name=f"{name}-credentials")
        world.create(name, credentialsSecretRef={"name": f"{name}-credentials"}, target={"name": f"{name}-token"})
        world.wait(lambda: told(world, name), f"{name} to be reported")  # noqa: B023 - it is called at once
        collect()
        world.squidex.patch({"faults": []})
    # And what happens to a token that is there.
    world.squidex.patch({"key": "replace"})
    world.wait(lambda: "signing keys replaced" in loud.program.output(), "the new key to be noticed")
    old = world.token("good-token")
    world.new_token(old, "good-token")
    world.kubectl("patch", "secret", "good-token", "-p", json.dumps({"stringData": {"token": old}}))
    world.new_token(old, "good-token")
    collect()
    assert loud.stop() == 0
    log = loud.program.output()
    loud.start()
    texts = everything(world, loud) | {"the log of the first run": log}
    assert len(tokens) >= 3
    assert "DEBUG" in log
    for where, text in texts.items():
        assert text, where
        for form in spellings(SECRET):
            assert form not in text, f"the client's secret, as {form!r}, in {where}"
        for token in tokens:
            for part in spellings(token) + [part for part in token.split(".") if len(part) > 40]:
                assert part not in text, f"a token in {where}"
        assert "eyJ" not in text, f"what looks like a token in {where}"


def told(world: World, name: str) -> bool:
    """The SquidexClient has a status that says how it went."""
    conditions = ((world.find("sqc", name) or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["reason"] != "Pending" for c in conditions)
