"""The CA certificates of a spec: read once for many, and anew when they do not fit."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.api import reasons, resource
from squidex_operator.engine import trust
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

NS = cluster.NAMESPACE
PEM = cluster.CA


def tls(kind: Any = "ConfigMap", name: str = "ca", key: str = "ca.crt") -> resource.TLS:
    return resource.TLS(ca_ref=resource.CARef(kind=kind, name=name, key=key))


@pytest.fixture
def world() -> World:
    world = cluster.World()
    world.cluster.config_maps[NS, "ca"] = {"data": {"ca.crt": PEM, "empty": "", "text": "no certificate"}}
    world.cluster.secrets[NS, "ca"] = {"data": {"ca.crt": cluster.encode(PEM), "odd": "no base64!", "bytes": "/w=="}}
    return world


def get(world: World, ref: resource.TLS | None) -> str:
    return asyncio.run(world.tools.trust.get(NS, ref, world.clock.now()))


def test_without_a_reference_the_systems_own_count(world: World) -> None:
    assert get(world, None) == ""
    world.tools.trust.forget(NS, None)
    assert world.cluster.calls == []


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_they_come_from_a_config_map_or_a_secret(kind: str, world: World) -> None:
    assert get(world, tls(kind)) == PEM


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("ConfigMap", "none", "ca.crt"),
        ("ConfigMap", "ca", "none"),
        ("ConfigMap", "ca", "empty"),
        ("ConfigMap", "ca", "text"),
        ("Secret", "none", "ca.crt"),
        ("Secret", "ca", "odd"),
        ("Secret", "ca", "bytes"),
    ],
)
def test_where_there_is_none_the_message_says_which_is_missing(kind: str, name: str, key: str, world: World) -> None:
    with pytest.raises(trust.UnavailableCAError) as caught:
        get(world, tls(kind, name, key))
    assert caught.value.problem.reason is reasons.Reason.CA_UNAVAILABLE
    assert f"{kind} {name!r}" in str(caught.value)
    assert repr(key) in str(caught.value)


def test_many_that_come_together_read_them_once(world: World) -> None:
    async def main() -> None:
        found = await asyncio.gather(*(world.tools.trust.get(NS, tls(), world.clock.now()) for _ in range(50)))
        assert set(found) == {PEM}

    asyncio.run(main())
    assert world.cluster.count("get_config_map") == 1


def test_they_are_read_anew_after_a_minute_and_when_they_did_not_fit(world: World) -> None:
    get(world, tls())
    world.clock.advance(seconds=59)
    get(world, tls())
    assert world.cluster.count("get_config_map") == 1
    world.clock.advance(seconds=1)
    get(world, tls())
    assert world.cluster.count("get_config_map") == 2
    world.tools.trust.forget(NS, tls())
    get(world, tls())
    assert world.cluster.count("get_config_map") == 3


def test_a_failure_is_not_kept(world: World) -> None:
    world.cluster.before["get_config_map"] = [kube_errors.UnavailableError("HTTP 503.")]
    with pytest.raises(kube_errors.UnavailableError):
        get(world, tls())
    assert get(world, tls()) == PEM


def test_no_more_are_kept_than_anybody_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_MOST", 3)
    for n in range(10):
        world.cluster.config_maps[NS, f"ca-{n}"] = {"data": {"ca.crt": PEM}}
        assert get(world, tls(name=f"ca-{n}")) == PEM
    assert len(world.tools.trust._kept) <= 3
    assert dt.timedelta(minutes=1) == trust._KEPT


def test_after_a_certificate_that_was_not_trusted_they_are_read_anew(world: World) -> None:
    from squidex_operator.squidex import errors as squidex_errors

    world.put_client(tls={"caRef": {"kind": "ConfigMap", "name": "ca"}})
    world.squidex.before["token"] = [squidex_errors.UnclearError(reasons.Reason.TLS_ERROR, "It is not trusted.")]
    world.run()
    assert world.condition("Ready") == ("False", reasons.Reason.TLS_ERROR)
    world.clock.advance(seconds=30)
    world.run()
    assert world.condition("Ready") == ("True", reasons.Reason.TOKEN_VALID)
    assert world.cluster.count("get_config_map") == 2


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----\nput the certificate here\n-----END CERTIFICATE-----\n",
        PEM[:-60],
        PEM.replace("M", "N"),
    ],
    ids=["a placeholder", "cut off", "damaged"],
)
def test_what_is_no_certificate_is_the_clusters_trouble_and_read_again_soon(world: World, text: str) -> None:
    world.cluster.config_maps[NS, "ca"] = {"data": {"ca.crt": text}}
    with pytest.raises(trust.UnavailableCAError, match="no valid PEM certificates") as caught:
        get(world, tls())
    assert caught.value.problem.kind is backoff.Kind.CLUSTER
    world.cluster.config_maps[NS, "ca"] = {"data": {"ca.crt": PEM}}
    assert get(world, tls()) == PEM
