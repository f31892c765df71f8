"""How the API server is reached, and that a token that was replaced on disk is used."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from squidex_operator.kube import access, gateway
from tests.unit.kube import apiserver


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Neither a pod, nor a kubeconfig of the person who runs the tests."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def load(path: str | None = None, context: str | None = None) -> access.Access:
    found = access.Access(path, context)
    asyncio.run(found.load())
    return found


def problem(path: str | None = None) -> str:
    with pytest.raises(access.AccessError) as caught:
        load(path)
    return str(caught.value)


def test_without_anything_the_message_says_what_to_do() -> None:
    text = problem()
    assert "run in a pod with a ServiceAccount, or set KUBECONFIG" in text
    assert ".kube/config does not exist" in text


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    assert f"{tmp_path}/none does not exist" in problem(f"{tmp_path}/none")


BROKEN = {
    "nothing": "",
    "a text": "kubeconfig",
    "a list": "[1, 2]",
    "no YAML": "users: [\n  token: the-very-token\n {{",
    "a tab": "\tusers: the-very-token",
    "no contexts": "current-context: x\n",
    "contexts of a wrong type": "current-context: x\ncontexts: 7\nclusters: 7\nusers: 7\n",
    "a context without a cluster": "current-context: x\ncontexts: [{name: x, context: {}}]\nclusters: []\nusers: []\n",
    "contexts of nothing": "current-context: x\ncontexts: [null]\nclusters: [null]\nusers: [null]\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_kubeconfig_that_cannot_be_read_is_a_clear_error_without_its_lines(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    assert "What was found" in problem(str(path))
    assert "the-very-token" not in problem(str(path))


def test_a_folder_is_no_kubeconfig(tmp_path: pathlib.Path) -> None:
    assert "What was found" in problem(str(tmp_path))


def test_the_variable_names_the_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("KUBECONFIG", apiserver.write_kubeconfig(tmp_path, "https://kube.test:6443", {"token": "t"}))
    found = load().connection()
    assert (found.server, found.token) == ("https://kube.test:6443", "t")
    assert not found.insecure


def test_the_token_does_not_show(tmp_path: pathlib.Path) -> None:
    found = load(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {"token": "the-very-token"}))
    assert "the-very-token" not in repr(found.connection())


def test_without_a_token_there_is_none(tmp_path: pathlib.Path) -> None:
    assert load(apiserver.write_kubeconfig(tmp_path, "https://kube.test", {})).connection().token is None


def test_a_context_can_be_named(tmp_path: pathlib.Path) -> None:
    path = apiserver.write_kubeconfig(tmp_path, "https://kube.test", {"token": "t"})
    config = json.loads(pathlib.Path(path).read_text())
    config["clusters"].append({"name": "d", "cluster": {"server": "https://other.test"}})
    config["contexts"].append({"name": "y", "context": {"cluster": "d", "user": "u"}})
    pathlib.Path(path).write_text(json.dumps(config))
    assert load(path, "y").connection().server == "https://other.test"
    with pytest.raises(access.AccessError):
        load(path, "z")


def test_a_token_that_was_replaced_on_disk_is_used_within_a_minute(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(server: apiserver.ApiServer, made: gateway.Gateway) -> list[str]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        (tmp_path / "token").write_text("second")
        await made.get_namespace("shop")
        monkeypatch.setattr(loop, "time", lambda: began + access.TOKEN_REREAD.total_seconds() + 1)
        await made.get_namespace("shop")
        (tmp_path / "kubeconfig").rename(tmp_path / "away")
        monkeypatch.setattr(loop, "time", lambda: began + 2 * access.TOKEN_REREAD.total_seconds() + 2)
        await made.get_namespace("shop")  # being replaced just now: the old one is kept
        return server.authorizations

    async def main() -> list[str]:
        async with apiserver.serving(tmp_path) as (server, made):
            return await work(server, made)

    assert asyncio.run(main()) == ["Bearer first", "Bearer second", "Bearer second"]


def test_in_a_pod_the_service_account_is_used_and_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    token, ca = tmp_path / "sa-token", tmp_path / "ca.crt"
    token.write_text("first")
    ca.write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    defaults: dict[str, Any] = {"token_filename": str(token), "cert_filename": str(ca)}
    original = incluster_config.InClusterConfigLoader.__init__
    monkeypatch.setattr(
        incluster_config.InClusterConfigLoader,
        "__init__",
        lambda self, **given: original(self, **{**given, **defaults}),
    )
    found = load()
    assert found.connection().server == "https://10.96.0.1:443"
    assert found.connection().token == "first"
    assert found.connection().ca_path == str(ca)
    token.write_text("second")
    asyncio.run(found.reread())
    assert found.connection().token == "second"
    token.unlink()
    with pytest.raises(access.AccessError):
        asyncio.run(found.reread())
    assert found.connection().token == "second"
