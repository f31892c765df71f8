"""The one way to the API server: what is sent, and what each answer becomes. The Status objects are a real API server's."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.api import names, reasons
from squidex_operator.kube import access, errors, gateway
from squidex_operator.policy import backoff
from tests.unit.kube import apiserver
from tests.unit.kube.apiserver import ok, status

if TYPE_CHECKING:
    import pathlib

SECRET = "eyJzZWNyZXQiOiJzZWNyZXQifQ"

FIELD_CONFLICT = status(
    409,
    "Conflict",
    'Apply failed with 1 conflict: conflict with "helm": .data.token',
    causes=[{"reason": "FieldManagerConflict", "message": 'conflict with "helm"', "field": ".data.token"}],
)
BY_HAND = status(
    409,
    "Conflict",
    causes=[
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using v1 at 2026-05-01T12:00:00Z',
            "field": ".data.token",
        },
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-patch" using v1',
            "field": ".data.url",
        },
    ],
)
MIXED = status(
    409,
    "Conflict",
    causes=[
        {"reason": "FieldManagerConflict", "message": 'conflict with "helm"', "field": ".a"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit" using v1', "field": ".b"},
    ],
)
TERMINATING = status(
    403,
    "Forbidden",
    'secrets "shop" is forbidden: unable to create new content in namespace shop because it is being terminated',
    name="shop",
    kind="secrets",
    causes=[
        {
            "reason": "NamespaceTerminating",
            "message": "namespace shop is being terminated",
            "field": "metadata.namespace",
        }
    ],
)
NOT_ALLOWED = status(
    403,
    "Forbidden",
    'secrets "shop" is forbidden: User "system:serviceaccount:squidex-operator:squidex-operator" cannot get resource '
    '"secrets" in API group "" in the namespace "shop"',
)
INVALID = status(
    422,
    "Invalid",
    f'Secret "shop" is invalid: data[token]: Invalid value: "{SECRET}"',
    causes=[
        {"reason": "FieldValueInvalid", "message": f'Invalid value: "{SECRET}"', "field": "data[token]"},
        {"reason": "FieldValueInvalid", "message": "no", "field": "type"},
    ],
)

TABLE: dict[str, tuple[apiserver.Answer, type[errors.KubeError], backoff.Kind]] = {
    "there is none": (status(404, "NotFound"), errors.NotFoundError, backoff.Kind.CLUSTER),
    "it is there already": (status(409, "AlreadyExists"), errors.AlreadyExistsError, backoff.Kind.CLUSTER),
    "it changed meanwhile": (status(409, "Conflict"), errors.StaleError, backoff.Kind.CLUSTER),
    "another one has its name": (
        status(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
        errors.StaleError,
        backoff.Kind.CLUSTER,
    ),
    "another manager holds a field": (FIELD_CONFLICT, errors.ManagerConflictError, backoff.Kind.CLUSTER),
    "the namespace goes": (TERMINATING, errors.TerminatingError, backoff.Kind.UNKNOWN),
    "RBAC withholds it": (NOT_ALLOWED, errors.NotAllowedError, backoff.Kind.CLUSTER),
    "a quota is used up": (
        status(403, "Forbidden", "exceeded quota: secrets"),
        errors.RefusedError,
        backoff.Kind.UNKNOWN,
    ),
    "it is not valid": (INVALID, errors.RefusedError, backoff.Kind.UNKNOWN),
    "a bad request": (status(400, "BadRequest"), errors.RefusedError, backoff.Kind.UNKNOWN),
    "gone": (status(410, "Expired"), errors.RefusedError, backoff.Kind.UNKNOWN),
    "another content type is wanted": (status(415, "UnsupportedMediaType"), errors.RefusedError, backoff.Kind.UNKNOWN),
    "too many requests": (status(429, "TooManyRequests"), errors.UnavailableError, backoff.Kind.CLUSTER),
    "an error of its own": (status(500, "InternalError"), errors.UnavailableError, backoff.Kind.CLUSTER),
    "not ready": (status(503, "ServiceUnavailable"), errors.UnavailableError, backoff.Kind.CLUSTER),
    "a time-out of its own": (status(504, "Timeout"), errors.UnavailableError, backoff.Kind.CLUSTER),
    "a proxy's web page": ((502, b"<html>", {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "a web page with 200": ((200, b"<html>", {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "nothing with 200": ((200, b"", {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "a list with 200": ((200, [1], {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "an object of no kind with 200": ((200, {"items": []}, {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "no text with 200": ((200, b"\xff\xfe", {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "JSON as deep as a well": ((200, b"[" * 100_000, {}), errors.UnavailableError, backoff.Kind.CLUSTER),
    "details that are a list": ((409, {"details": [1]}, {}), errors.StaleError, backoff.Kind.CLUSTER),
    "causes that are a text": ((409, {"details": {"causes": "x"}}, {}), errors.StaleError, backoff.Kind.CLUSTER),
    "a cause that is a text": ((403, {"details": {"causes": ["x"]}}, {}), errors.RefusedError, backoff.Kind.UNKNOWN),
    "a conflict that says nothing": (
        (409, {"details": {"causes": [{"reason": "FieldManagerConflict"}]}}, {}),
        errors.ManagerConflictError,
        backoff.Kind.CLUSTER,
    ),
}


@pytest.mark.parametrize(("answer", "kind", "pace"), TABLE.values(), ids=TABLE)
def test_an_answer_becomes(
    answer: apiserver.Answer,
    kind: type[errors.KubeError],
    pace: backoff.Kind,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> errors.KubeError:
        server.answers = [answer]
        body = {"metadata": {"name": "shop"}, "data": {"token": SECRET}}
        with pytest.raises(errors.KubeError) as caught:
            await made.apply_secret("shop", "shop", body)
        return caught.value

    error = apiserver.run(tmp_path, work)
    assert type(error) is kind
    assert error.problem.kind is pace
    assert error.problem.message == str(error)
    assert SECRET not in " ".join([str(error), repr(error), repr(error.problem), caplog.text])


def failure(tmp_path: pathlib.Path, answer: apiserver.Answer) -> Any:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> errors.KubeError:
        server.answers = [answer]
        with pytest.raises(errors.KubeError) as caught:
            await made.get_secret("shop", "shop")
        return caught.value

    return apiserver.run(tmp_path, work)


def test_a_conflict_names_the_manager_and_the_field(tmp_path: pathlib.Path) -> None:
    error = failure(tmp_path, FIELD_CONFLICT)
    assert error.managers == ("helm",)
    assert not error.by_hand
    assert error.problem.reason is reasons.Reason.TARGET_CONFLICT
    assert "helm" in str(error)
    assert ".data.token" in str(error)


def test_edits_by_hand_are_told_from_a_manager_that_applies(tmp_path: pathlib.Path) -> None:
    error = failure(tmp_path, BY_HAND)
    assert error.managers == ("kubectl-edit", "kubectl-patch")
    assert error.by_hand
    assert not failure(tmp_path, MIXED).by_hand


def test_a_refusal_names_the_fields_and_none_of_their_values(tmp_path: pathlib.Path) -> None:
    text = str(failure(tmp_path, INVALID))
    assert "HTTP 422 Invalid" in text
    assert "because of data[token], type" in text


def test_a_right_that_is_withheld_is_named(tmp_path: pathlib.Path) -> None:
    assert "may not get secrets" in str(failure(tmp_path, NOT_ALLOWED))


def test_a_namespace_that_goes_has_a_reason_of_its_own(tmp_path: pathlib.Path) -> None:
    assert failure(tmp_path, TERMINATING).problem.reason is reasons.Reason.TERMINATING


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1", 1), (" 30 ", 30), ("", None), ("soon", None), ("-1", None), ("1.5", None), ("\xb2", None), ("9" * 30, None)],
    ids=["a second", "with blanks", "nothing", "a word", "negative", "a fraction", "no ASCII", "thirty digits"],
)
def test_retry_after(tmp_path: pathlib.Path, value: str, seconds: int | None) -> None:
    code, body, _ = status(429, "TooManyRequests")
    asked = failure(tmp_path, (code, body, {"Retry-After": value})).problem.retry_after
    assert asked == (None if seconds is None else dt.timedelta(seconds=seconds))


def test_an_api_server_that_says_nothing_is_not_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.1)

    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        server.answers = [None]
        with pytest.raises(errors.UnavailableError, match=r"cannot be reached .*TimeoutError"):
            await made.get_secret("shop", "shop")

    apiserver.run(tmp_path, work)


def test_an_api_server_that_is_not_there_is_unavailable(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        found = access.Access(apiserver.write_kubeconfig(tmp_path, "http://127.0.0.1:1", {"token": "t"}))
        await found.load()
        made = gateway.Gateway(found)
        await made.close()
        await made.open()
        try:
            with pytest.raises(errors.UnavailableError, match="cannot be reached"):
                await made.get_secret("shop", "shop")
        finally:
            await made.close()

    asyncio.run(main())


def test_after_a_401_the_token_is_read_again_and_the_request_sent_once_more(tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> list[str]:
        (tmp_path / "token").write_text("second")
        server.answers = [status(401, "Unauthorized"), ok(metadata={"name": "shop"})]
        assert (await made.get_secret("shop", "shop"))["metadata"] == {"name": "shop"}
        return server.authorizations

    assert apiserver.run(tmp_path, work) == ["Bearer first", "Bearer second"]


def test_a_401_that_stays_is_an_error_after_two_requests(tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        server.answers = [status(401, "Unauthorized")]
        with pytest.raises(errors.UnavailableError, match="HTTP 401"):
            await made.get_secret("shop", "shop")
        assert len(server.requests) == 2

    apiserver.run(tmp_path, work)


def test_a_401_while_the_token_file_is_away_is_an_error_of_ours(tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        (tmp_path / "kubeconfig").unlink()
        server.answers = [status(401, "Unauthorized")]
        with pytest.raises(errors.UnavailableError, match="refuses the operator's token"):
            await made.get_secret("shop", "shop")

    apiserver.run(tmp_path, work)


REQUESTS: dict[str, tuple[Any, str, str, dict[str, str], str, Any]] = {
    "a look at a Secret": (
        lambda g: g.get_secret("shop", "a"),
        "GET",
        "/api/v1/namespaces/shop/secrets/a",
        {},
        "application/json",
        None,
    ),
    "a look at a ConfigMap": (
        lambda g: g.get_config_map("shop", "a"),
        "GET",
        "/api/v1/namespaces/shop/configmaps/a",
        {},
        "application/json",
        None,
    ),
    "a look at a namespace": (
        lambda g: g.get_namespace("shop"),
        "GET",
        "/api/v1/namespaces/shop",
        {},
        "application/json",
        None,
    ),
    "a create": (
        lambda g: g.create_secret("shop", {"a": 1}),
        "POST",
        "/api/v1/namespaces/shop/secrets",
        {"fieldManager": "squidex-operator"},
        "application/json",
        {"a": 1},
    ),
    "an apply, which takes nothing from others": (
        lambda g: g.apply_secret("shop", "a", {"a": 1}),
        "PATCH",
        "/api/v1/namespaces/shop/secrets/a",
        {"fieldManager": "squidex-operator", "force": "false"},
        "application/apply-patch+yaml",
        {"a": 1},
    ),
    "an apply that takes back": (
        lambda g: g.apply_secret("shop", "a", {"a": 1}, force=True),
        "PATCH",
        "/api/v1/namespaces/shop/secrets/a",
        {"fieldManager": "squidex-operator", "force": "true"},
        "application/apply-patch+yaml",
        {"a": 1},
    ),
    "a delete of the very Secret": (
        lambda g: g.delete_secret("shop", "a", uid="u", resource_version="7"),
        "DELETE",
        "/api/v1/namespaces/shop/secrets/a",
        {},
        "application/json",
        {"preconditions": {"uid": "u", "resourceVersion": "7"}},
    ),
    "a status of the very SquidexClient": (
        lambda g: g.patch_status("shop", "a", "u", {"failures": 1}),
        "PATCH",
        "/apis/squidex-operator.io/v1beta1/namespaces/shop/squidexclients/a/status",
        {"fieldManager": "squidex-operator"},
        "application/merge-patch+json",
        {"metadata": {"uid": "u"}, "status": {"failures": 1}},
    ),
    "an event": (
        lambda g: g.create_event("shop", {"reason": "a"}),
        "POST",
        "/api/v1/namespaces/shop/events",
        {},
        "application/json",
        {"reason": "a"},
    ),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_what_is_sent(request_: Any, tmp_path: pathlib.Path) -> None:
    call, *expected = request_

    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        await call(made)
        method, path, query, headers, body = server.requests[0]
        assert [method, path, query, headers["content-type"], body] == expected
        assert headers["authorization"] == "Bearer first"
        assert headers["user-agent"].startswith("squidex-operator/")

    apiserver.run(tmp_path, work)


def test_a_list_is_read_page_by_page(tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> list[Any]:
        server.answers = [
            ok(items=[{"n": 1}, {"n": 2}], metadata={"continue": "more"}),
            ok(items=None, metadata={"continue": "still"}),
            ok(items=[{"n": 3}], metadata={}),
        ]
        return [item["n"] async for item in made.list_secrets("shop")] + [
            (path, query) for _, path, query, _, _ in server.requests
        ]

    found = apiserver.run(tmp_path, work)
    assert found[:3] == [1, 2, 3]
    path = "/api/v1/namespaces/shop/secrets"
    query = {"labelSelector": names.LABEL_ROLE, "limit": str(gateway.PAGE)}
    assert found[3:] == [(path, {**query, "continue": token}) for token in ("", "more", "still")]


@pytest.mark.parametrize(("namespace", "where"), [(None, ""), ("shop", "/namespaces/shop")])
def test_squidexclients_are_listed_everywhere_or_in_one_namespace(
    namespace: str | None, where: str, tmp_path: pathlib.Path
) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        server.answers = [ok(items=[{"n": 1}])]
        assert [item async for item in made.list_clients(namespace)] == [{"n": 1}]
        assert server.requests[0][1] == f"/apis/{names.API_VERSION}{where}/squidexclients"
        assert "labelSelector" not in server.requests[0][2]

    apiserver.run(tmp_path, work)


def test_a_web_page_in_the_place_of_a_list_is_no_empty_list(tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> None:
        server.answers = [(200, b"<html>sign in</html>", {"Content-Type": "text/html"})]
        with pytest.raises(errors.UnavailableError, match="not Kubernetes"):
            _ = [item async for item in made.list_clients(None)]

    apiserver.run(tmp_path, work)


@pytest.mark.parametrize(
    ("answer", "served"),
    [
        (ok(resources=[{"name": "squidexclients"}, {"name": "squidexclients/status"}]), True),
        (ok(resources=[{"name": "others"}]), False),
        (ok(resources=None), False),
        (status(404, "NotFound"), False),
    ],
    ids=["it is", "another CRD of the group", "nothing", "no such group"],
)
def test_whether_the_crd_is_there(answer: apiserver.Answer, served: bool, tmp_path: pathlib.Path) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> bool:
        server.answers = [answer]
        return await made.is_served()

    assert apiserver.run(tmp_path, work) is served
