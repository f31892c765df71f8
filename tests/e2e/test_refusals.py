"""What Squidex says no to, and what a person is told: each row of the one table, on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.world import condition

if TYPE_CHECKING:
    from tests.e2e.world import World

FAULTS = [
    pytest.param({"kind": "status", "status": 500}, "ServerError", id="a broken server"),
    pytest.param({"kind": "html", "status": 200}, "NotSquidex", id="a web page in the place of a token"),
    pytest.param({"kind": "html", "status": 502}, "ServerError", id="a proxy's error page"),
    pytest.param({"kind": "redirect"}, "Redirected", id="a redirect, which is not followed"),
    pytest.param({"kind": "status", "status": 403}, "Forbidden", id="a proxy that forbids it"),
    pytest.param({"kind": "status", "status": 404}, "NotSquidex", id="nothing there"),
    pytest.param({"kind": "status", "status": 429, "retryAfter": 2}, "RateLimited", id="too many requests"),
    pytest.param({"kind": "reset"}, "Unreachable", id="a connection that is reset"),
    pytest.param({"kind": "truncate", "bytes": 20}, "Unreachable", id="an answer that is cut off"),
    pytest.param({"kind": "huge"}, "NotSquidex", id="an answer without an end"),
    pytest.param({"kind": "json", "body": [1]}, "NotSquidex", id="JSON that is no object"),
    pytest.param({"kind": "json", "set": {"access_token": 5}}, "InvalidResponse", id="a token that is a number"),
    pytest.param({"kind": "json", "remove": ["access_token"]}, "InvalidResponse", id="no token"),
    pytest.param({"kind": "json", "set": {"token_type": "mac"}}, "InvalidResponse", id="a token of another type"),
    pytest.param({"kind": "token", "claims": {"client_id": "x:y"}}, "InvalidResponse", id="another client's token"),
    pytest.param({"kind": "token", "expIn": -5}, "InvalidResponse", id="a token that has expired already"),
    pytest.param({"kind": "token", "key": "stranger"}, "NewTokenRefused", id="a token that the server itself refuses"),
    pytest.param({"kind": "oauth", "error": "invalid_scope"}, "InvalidScope", id="an unknown scope"),
    pytest.param({"kind": "oauth", "error": "invalid_client"}, "InvalidClient", id="a wrong secret"),
    pytest.param({"kind": "oauth", "error": "invalid_client", "status": 400}, "InvalidClient", id="IdentityServer4"),
    pytest.param({"kind": "oauth", "error": "unauthorized_client"}, "UnauthorizedClient", id="a client that may not"),
    pytest.param({"kind": "oauth", "error": "server_error", "status": 400}, "ServerError", id="an OAuth server error"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_first_token_that_cannot_be_had_is_explained(world: World, fault: dict[str, Any], reason: str) -> None:
    world.squidex.patch({"faults": [{"on": "token", "client": world.client_id, **fault}]})
    world.create()
    ready = world.wait_condition("Ready", "False", reason)
    failing = world.wait_condition("RefreshFailing", "True", reason)
    assert "Next try at" in ready["message"]
    assert failing["message"] == ready["message"]
    assert world.find("secret", "shop") is None
    assert world.token_requests() == 1
    # Corrected credentials act at once, whatever was to be waited for; the fault is over by then.
    world.squidex.patch({"faults": [], "clients": {world.client_id: "another"}})
    world.set_credentials(secret="another")
    found = world.wait_ready()
    assert condition(found, "RefreshFailing")["status"] == "False"
    assert found["status"]["failures"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"kind": "status", "status": 503}, "ServerError", id="the server is down"),
        pytest.param({"kind": "oauth", "error": "invalid_client"}, "InvalidClient", id="the client was deleted"),
        pytest.param({"kind": "token", "key": "stranger"}, "NewTokenRefused", id="the new token is refused"),
    ],
)
def test_a_renewal_that_fails_leaves_the_old_token(world: World, fault: dict[str, Any], reason: str) -> None:
    world.ready()
    old = world.token()
    world.squidex.patch({"faults": [{"on": "token", "client": world.client_id, **fault}]})
    world.squidex.patch({"clients": {f"{world.namespace}:second": "s"}})
    world.create(scope="squidex-api openid")
    world.wait_condition("RefreshFailing", "True", reason)
    world.wait_condition("Ready", "True", "TokenValid")
    assert world.token() == old
    assert world.accepts(old) == 200


def test_a_wrong_secret_is_explained_and_tried_once(world: World) -> None:
    world.set_credentials(secret="wrong")
    world.create()
    seen = world.wait_condition("Ready", "False", "InvalidClient")
    assert "Settings > Clients" in seen["message"]
    assert "wrong" not in seen["message"].replace("is wrong", "")
    assert world.token_requests() == 1
    world.set_credentials()
    world.wait_ready()


def test_white_space_around_id_and_secret_is_left_out_and_said(world: World) -> None:
    world.set_credentials(client_id=f" {world.client_id}\n", secret=f"{world.client_secret}\n")
    world.ready()
    world.wait_condition("CredentialsAvailable", "True", "WhitespaceTrimmed")


def test_a_missing_key_is_named(world: World) -> None:
    world.create(credentialsSecretRef={"name": "credentials", "clientSecretKey": "password"})
    seen = world.wait_condition("Ready", "False", "CredentialsIncomplete")
    assert "'password'" in seen["message"]
    assert world.token_requests() == 0


def test_a_missing_ca_is_named(world: World) -> None:
    world.create(tls={"caRef": {"kind": "ConfigMap", "name": "nothing"}})
    seen = world.wait_condition("Ready", "False", "CAUnavailable")
    assert "'nothing'" in seen["message"]


def test_a_certificate_that_is_not_trusted_is_explained(world: World) -> None:
    world.create(tls=None)
    seen = world.wait_condition("Ready", "False", "TLSError")
    assert "spec.tls.caRef" in seen["message"]


def test_a_base_path_and_trailing_slashes_work(world: World) -> None:
    world.squidex.patch({"basePath": "/cms"})
    try:
        world.ready(url=f"{world.squidex.url}/cms//")
    finally:
        world.squidex.patch({"basePath": ""})
    world.create("wrong", url=f"{world.squidex.url}/elsewhere", target={"name": "wrong-token"})
    world.wait_condition("Ready", "False", "NotSquidex", name="wrong")


def test_a_deleted_app_is_a_condition_and_not_another_token(world: World) -> None:
    world.squidex.patch({"roles": {world.client_id: ""}})
    try:
        world.ready()
        seen = world.wait_condition("TokenAccepted", "Unknown", "AppNotFound")
        assert "HTTP 404" in seen["message"]
        assert world.token_requests() == 1
    finally:
        world.squidex.patch({"roles": {world.client_id: None}})


def test_an_opaque_token_is_published_and_held_by_its_hash(world: World) -> None:
    fault = {"on": "token", "client": world.client_id, "kind": "token", "opaque": True}
    world.squidex.patch({"faults": [fault]})
    world.ready(probe={"mode": "Off"})
    world.wait_condition("TokenAccepted", "Unknown", "ProbeOff")
    assert "." not in world.token() or world.token().count(".") != 2
