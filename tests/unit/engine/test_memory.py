"""What is remembered between reconciles, and what a process must not be misled by."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from squidex_operator.api import reasons
from squidex_operator.engine import inventory
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import backoff
from squidex_operator.squidex import errors
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

Reason = reasons.Reason
KEY = inventory.Key(cluster.NAMESPACE, "shop")


def test_no_edit_of_the_credentials_metadata_fetches_however_many_there_are(ready: World) -> None:
    for _ in range(4):
        ready.put_credentials()
        ready.run()
        ready.clock.advance(minutes=5)
    assert len(ready.squidex.granted) == 1
    assert ready.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_new_metadata_on_wrong_credentials_does_not_end_the_wait(world: World) -> None:
    refused = errors.RejectedError(Reason.INVALID_CLIENT, "No.")
    world.squidex.before["token"] = [refused for _ in range(10)]
    world.put_client()
    world.run()
    for _ in range(5):
        world.clock.advance(minutes=2)
        world.put_credentials()
        world.run()
    assert world.squidex.count("token") == 1
    world.put_credentials("corrected")
    world.run()
    assert world.squidex.count("token") == 2


def test_a_refused_token_is_not_brought_back_to_life_by_a_probe_without_an_answer(ready: World) -> None:
    ready.squidex.refused.add(ready.token())
    ready.squidex.before["token"] = [errors.UnavailableError(Reason.TIMEOUT, "Slow.") for _ in range(9)]
    ready.clock.advance(hours=1)
    ready.run()
    assert ready.condition("Ready") == ("False", Reason.TOKEN_REFUSED)
    ready.squidex.before["probe"] = [errors.UnavailableError(Reason.TIMEOUT, "Slow.") for _ in range(9)]
    ready.clock.advance(hours=2)
    ready.run()
    assert ready.squidex.count("probe") >= 2  # the refusal, and one without an answer
    assert ready.condition("Ready") == ("False", Reason.TOKEN_REFUSED)


def test_a_token_whose_key_vanished_is_asked_about_where_no_other_can_be_had(ready: World) -> None:
    ready.squidex.refused.add(ready.token())
    ready.squidex.key = "key-2"
    ready.squidex.before["token"] = [errors.UnavailableError(Reason.SERVER_ERROR, "Down.") for _ in range(9)]
    ready.clock.advance(minutes=6)
    ready.run()
    assert ready.condition("Ready") == ("False", Reason.TOKEN_REFUSED)


def test_who_waits_because_the_server_asked_others_to_is_told_until_when(ready: World) -> None:
    until = dt.timedelta(minutes=30)
    ready.tools.hosts.note(
        cluster.URL, backoff.Problem(backoff.Kind.TRANSIENT, Reason.RATE_LIMITED, "Slow down.", retry_after=until)
    )
    ready.put_client("other")
    ready.run()
    assert ready.condition("Ready", "other") == ("False", Reason.RATE_LIMITED)
    assert len(ready.squidex.granted) == 1
    ready.clock.advance(minutes=31)
    ready.run()
    assert ready.condition("Ready", "other") == ("True", Reason.TOKEN_VALID)


def test_a_clock_that_is_set_back_leaves_nobody_waiting_for_the_hours_in_between(ready: World) -> None:
    ready.tools.hosts.note(
        cluster.URL,
        backoff.Problem(backoff.Kind.TRANSIENT, Reason.RATE_LIMITED, "No.", retry_after=dt.timedelta(hours=1)),
    )
    ready.clock.advance(hours=-5)
    ready.tools.hosts.clock_set_back()
    assert ready.inventory.clock_set_back() == [KEY]
    ready.put_client("other")
    ready.run()
    assert ready.condition("Ready", "other") == ("True", Reason.TOKEN_VALID)
    ready.queue.wake(KEY)
    ready.run()
    assert ready.due(KEY) is not None
    assert ready.due(KEY) <= 3600


def test_trouble_of_the_api_server_does_not_shorten_the_wait_after_a_wrong_secret(world: World) -> None:
    world.squidex.before["token"] = [errors.RejectedError(Reason.INVALID_CLIENT, "No.") for _ in range(9)]
    world.put_client()
    world.put_credentials(labelled=False)
    world.run()
    assert world.squidex.count("token") == 1
    for _ in range(60):
        world.cluster.before["get_secret"] = [kube_errors.UnavailableError("HTTP 503.")]
        world.clock.advance(minutes=2)
        world.run()
    assert world.squidex.count("token") == 1
    assert world.condition("RefreshFailing") == ("True", Reason.INVALID_CLIENT)


def test_a_ca_that_went_is_told_by_the_next_probe(world: World) -> None:
    world.cluster.config_maps[cluster.NAMESPACE, "ca"] = {"data": {"ca.crt": cluster.CA}}
    world.put_client(tls={"caRef": {"kind": "ConfigMap", "name": "ca"}})
    world.run()
    world.cluster.config_maps.clear()
    world.clock.advance(hours=2)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert world.condition("TokenAccepted") == ("Unknown", Reason.PROBE_INCONCLUSIVE)
