"""What happens when something happens between two steps of a reconcile."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.api import names, reasons
from squidex_operator.engine import disagreement, hosts, inventory, servers
from squidex_operator.kube import errors as kube_errors
from squidex_operator.policy import decide, observed
from squidex_operator.squidex import errors as squidex_errors
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

Reason = reasons.Reason
NS = cluster.NAMESPACE


@pytest.fixture
def world() -> World:
    return cluster.World()


@pytest.fixture
def ready(world: World) -> World:
    """A world with a token in a Secret."""
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    world.cluster.calls.clear()
    world.squidex.calls.clear()
    return world


def unavailable() -> Exception:
    return kube_errors.UnavailableError("The API server answered HTTP 503.")


def timed_out() -> Exception:
    return squidex_errors.UnavailableError(Reason.TIMEOUT, "It did not answer.")


def test_a_token_is_fetched_once_and_written(ready: World) -> None:
    assert ready.token() == ready.squidex.granted[0]
    assert len(ready.squidex.granted) == 1
    ready.clock.advance(seconds=1)
    ready.queue.wake(inventory.Key(NS, "shop"))
    ready.run()
    assert ready.cluster.calls == []
    assert ready.squidex.calls == []


def test_a_token_that_could_not_be_written_is_written_later_and_not_fetched_again(world: World) -> None:
    key = world.put_client()
    world.cluster.before["create_secret"] = [unavailable() for _ in range(3)]
    world.run()
    assert world.condition("Ready") == ("False", Reason.KUBERNETES_ERROR)
    for _ in range(3):
        due = world.due(key)
        assert due is not None
        assert 0 < due <= 60
        world.clock.advance(seconds=due)
        world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert len(world.squidex.granted) == 1
    assert world.token() == world.squidex.granted[0]
    assert world.inventory.records[key].pending is None


def test_a_token_that_was_fetched_for_other_credentials_is_not_written(world: World) -> None:
    key = world.put_client()
    world.cluster.before["create_secret"] = [unavailable()]
    world.run()
    world.put_credentials("another")
    world.clock.advance(minutes=2)
    world.run()
    assert world.token() == world.squidex.granted[1]
    assert len(world.squidex.granted) == 2
    assert world.inventory.records[key].pending is None


def test_a_status_that_could_not_be_written_is_written_later(world: World) -> None:
    key = world.put_client()
    world.cluster.before["patch_status"] = [unavailable()]
    world.run()
    assert world.status() == {}
    due = world.due(key)
    assert due is not None
    assert 0 < due <= 10
    world.clock.advance(seconds=due)
    world.run()
    status = world.status()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert status["lastRefreshReason"] == reasons.Cause.FIRST_TOKEN
    assert len(world.squidex.granted) == 1


def test_a_conflict_on_the_status_is_tried_again(world: World) -> None:
    key = world.put_client()
    world.cluster.before["patch_status"] = [kube_errors.StaleError("It changed meanwhile.")]
    world.run()
    assert world.due(key) is not None
    world.clock.advance(minutes=1)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_a_squidexclient_that_went_during_the_fetch_gets_no_secret(world: World) -> None:
    world.put_client()
    world.squidex.after["token"] = [world.delete_client]
    world.run()
    assert world.cluster.count("create_secret") == 0
    assert world.cluster.count("patch_status") == 0
    assert world.inventory.records == {}
    assert inventory.Key(NS, "shop") not in world.queue._due


def test_a_squidexclient_that_was_made_anew_during_the_fetch_gets_a_token_of_its_own(world: World) -> None:
    world.put_client()

    def replace() -> None:
        world.delete_client()
        world.put_client()

    world.squidex.after["token"] = [replace]
    world.run()
    assert len(world.squidex.granted) == 2
    assert world.token() == world.squidex.granted[1]
    uid = world.cluster.clients[NS, "shop"]["metadata"]["uid"]
    assert world.target()["metadata"]["annotations"][names.ANNOTATION_CLIENT_UID] == uid


def test_an_answer_to_a_status_write_does_not_bring_a_deleted_squidexclient_back(world: World) -> None:
    world.put_client()
    world.squidex.before["token"] = [timed_out()]
    world.cluster.after["patch_status"] = [world.delete_client]
    world.run()
    assert world.inventory.records == {}
    assert world.cluster.events == []
    assert inventory.Key(NS, "shop") not in world.queue._due


def test_a_target_that_changed_between_look_and_write_is_looked_at_again(ready: World) -> None:
    target = ready.target()
    target["data"]["tokenType"] = cluster.encode("Basic")
    ready.tell_secret(ready.cluster.stamp(target))

    def touch() -> None:
        ready.cluster.stamp(target)  # the watch has not told yet

    ready.cluster.before["apply_secret"] = [touch]
    ready.run()
    assert ready.target()["data"]["tokenType"] == cluster.encode("Bearer")
    assert ready.cluster.count("apply_secret") == 2
    assert ready.squidex.granted == [ready.token()]


def test_a_secret_that_somebody_made_a_moment_ago_is_left_alone(world: World) -> None:
    key = world.put_client()
    theirs = {"metadata": {"namespace": NS, "name": "shop"}, "data": {"theirs": "a2VwdA=="}}

    def make() -> None:
        world.cluster.secrets[NS, "shop"] = theirs
        world.cluster.stamp(theirs, new=True)

    world.cluster.before["create_secret"] = [make]
    world.run()
    assert world.condition("Ready") == ("False", Reason.TARGET_NOT_OWNED)
    assert theirs["data"] == {"theirs": "a2VwdA=="}
    due = world.due(key)
    assert due is not None
    assert 0 < due <= 120
    world.delete_secret(told=False)  # it has no role: no watch tells
    world.clock.advance(seconds=due)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert len(world.squidex.granted) == 1


def test_who_is_blocked_does_not_become_a_hot_loop_when_its_credentials_change(world: World) -> None:
    theirs = {"metadata": {"namespace": NS, "name": "shop"}, "data": {}}
    world.cluster.secrets[NS, "shop"] = theirs
    world.cluster.stamp(theirs, new=True)
    key = world.put_client()
    world.run()
    world.inventory.records[key].credentials = observed.UNKNOWN
    world.inventory.records[key].credentials_due = world.clock.now()
    world.queue.wake(key)
    world.run()  # `settle` raises where it never ends
    due = world.due(key)
    assert due is not None
    assert due > 0


@pytest.mark.parametrize("method", ["get_secret", "get_config_map"])
def test_an_api_server_that_fails_a_look_is_not_asked_without_end(world: World, method: str) -> None:
    key = world.put_client(tls={"caRef": {"kind": "ConfigMap", "name": "ca"}})
    world.cluster.before[method] = [unavailable() for _ in range(1000)]
    world.run()
    assert world.cluster.count(method) <= 3
    due = world.due(key)
    assert due is not None
    assert due > 0
    assert world.squidex.granted == []


def test_a_look_at_credentials_that_is_due_and_fails_waits(ready: World) -> None:
    ready.put_credentials("changed")
    ready.cluster.before["get_secret"] = [unavailable() for _ in range(1000)]
    ready.run()
    assert ready.cluster.count("get_secret") == 1
    due = ready.due(inventory.Key(NS, "shop"))
    assert due is not None
    assert due > 0
    ready.cluster.before.clear()
    ready.clock.advance(seconds=due)
    ready.run()
    assert ready.token() == ready.squidex.granted[1]


def test_credentials_that_change_during_the_fetch_lead_to_another_one(world: World) -> None:
    world.put_client()
    world.squidex.after["token"] = [lambda: world.put_credentials("changed")]
    world.run()
    assert len(world.squidex.granted) == 2
    assert world.token() == world.squidex.granted[1]
    assert [asked["client_secret"] for url, asked in world.squidex.asked if "client_secret" in asked] == [
        "s3cr3t",
        "changed",
    ]


def test_credentials_never_go_to_the_url_of_a_spec_that_came_in_meanwhile(world: World) -> None:
    world.put_credentials("other", name="others")
    world.put_client(tls={"caRef": {"kind": "ConfigMap", "name": "ca"}})
    certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"
    world.cluster.config_maps[NS, "ca"] = {"data": {"ca.crt": certificate}}
    other = "https://other.test"
    # The spec changes after the credentials of the old one were read, and before they are sent.
    world.cluster.before["get_config_map"] = [
        lambda: world.put_client(url=other, credentialsSecretRef={"name": "others"})
    ]
    world.run()
    sent = {
        (url.partition("/identity")[0], asked["client_secret"])
        for url, asked in world.squidex.asked
        if "client_secret" in asked
    }
    assert sent == {(other, "other")}


def test_a_token_is_not_shown_to_the_url_of_a_spec_that_came_in_meanwhile(world: World) -> None:
    world.put_client()
    world.squidex.after["token"] = [lambda: world.put_client(url="https://other.test")]
    world.run()
    first = world.squidex.granted[0]
    shown = [url for url, asked in world.squidex.asked if asked.get("Authorization") == f"Bearer {first}"]
    assert shown == [f"{cluster.URL}/api/apps/shop"]


def test_a_pending_token_and_a_changed_spec_end_with_one_good_token(world: World) -> None:
    key = world.put_client()
    world.cluster.before["create_secret"] = [unavailable()]
    world.run()
    world.put_client(scope="squidex-api openid")
    world.run()
    assert world.token() == world.squidex.granted[1]
    assert world.inventory.records[key].pending is None
    assert world.status()["observedGeneration"] == 2


def test_a_new_token_that_is_refused_replaces_nothing(ready: World) -> None:
    old = ready.token()
    ready.put_credentials("changed")
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])]
    ready.run()
    assert ready.token() == old
    assert ready.condition("RefreshFailing") == ("True", Reason.NEW_TOKEN_REFUSED)


def test_a_new_token_that_is_refused_is_asked_about_again_whatever_keys_are_published(ready: World) -> None:
    ready.squidex.published = ["another"]  # and yet it signs with key-1
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])] * 9
    ready.put_credentials("changed")
    ready.run()
    for _ in range(9):
        ready.clock.advance(minutes=5)
        ready.run()
    # One, one more because its key may just have been replaced, and that one is kept.
    assert len(ready.squidex.granted) == 3
    ready.squidex.refused.clear()
    ready.clock.advance(minutes=10)
    ready.run()
    assert ready.token() == ready.squidex.granted[2]
    assert len(ready.squidex.granted) == 3


def test_a_refused_token_whose_key_is_gone_is_not_waited_for_where_nobody_has_a_token(ready: World) -> None:
    # Its replicas disagree, so one list of keys is no proof; but here nobody has anything that could be better than a new one.
    disagreement.doubt(ready.tools, ready.inventory.records[inventory.Key(NS, "shop")])
    refuse = ready.squidex.refused.add
    ready.squidex.after["token"] = [lambda: refuse(ready.squidex.granted[-1])]
    ready.delete_secret()
    ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.NEW_TOKEN_REFUSED)
    ready.squidex.key = "key-2"
    ready.clock.advance(seconds=1)
    ready.queue.wake(servers.ServerKey(cluster.URL))
    ready.run()
    ready.clock.advance(seconds=20)
    ready.run()
    assert ready.token() == ready.squidex.granted[2]


def test_where_the_old_token_is_refused_too_a_quarter_of_an_hour_of_lists_is_proof_enough(ready: World) -> None:
    squidex, key = ready.squidex, inventory.Key(NS, "shop")
    disagreement.doubt(ready.tools, ready.inventory.records[key])
    squidex.after["token"] = [lambda: squidex.refused.add(squidex.granted[-1])]
    squidex.refused.add(ready.token())
    ready.clock.advance(hours=1)
    ready.queue.wake(key)
    ready.run()
    assert len(squidex.granted) == 2
    squidex.key = "key-2"
    for minute in range(25):
        assert len(squidex.granted) == 2 or minute >= 8
        ready.clock.advance(minutes=1)
        ready.run()
    assert ready.token() == squidex.granted[2]


def test_where_all_new_tokens_are_refused_and_no_key_is_published_the_lists_are_proof_once(ready: World) -> None:
    squidex, key = ready.squidex, inventory.Key(NS, "shop")
    disagreement.doubt(ready.tools, ready.inventory.records[key])
    squidex.after["token"] = [lambda: squidex.refused.add(squidex.granted[-1])] * 99
    squidex.refused.add(ready.token())
    squidex.published = ["another"]
    for _ in range(24 * 12):
        ready.clock.advance(minutes=5)
        ready.run()
    assert 20 <= len(squidex.granted) <= 48  # two an hour, at most


def test_a_key_that_is_replaced_during_a_doubt_is_believed_after_a_quarter_of_an_hour(ready: World) -> None:
    for _ in range(4):
        disagreement.doubt(ready.tools, ready.inventory.records[inventory.Key(NS, "shop")])  # half an hour to wait
    ready.squidex.key = "key-2"
    ready.squidex.refused.add(ready.token())
    for _ in range(16):
        ready.clock.advance(minutes=1)
        ready.run()
    assert len(ready.squidex.granted) == 2
    assert ready.token() == ready.squidex.granted[1]


def test_one_refused_token_makes_the_keys_be_asked_for(ready: World) -> None:
    ready.squidex.refused.add(ready.token())
    ready.clock.advance(hours=2)
    ready.queue.wake(inventory.Key(NS, "shop"))
    ready.run()
    assert ready.squidex.count("keys") >= 1
    assert ready.token() == ready.squidex.granted[1]


def test_nothing_is_fetched_where_the_namespace_goes(ready: World) -> None:
    ready.cluster.terminating.add(NS)
    ready.delete_secret()
    ready.run()
    assert len(ready.squidex.granted) == 1
    assert ready.condition("Ready") == ("False", Reason.TERMINATING)


def test_a_target_that_is_gone_when_it_is_mended_is_looked_for_once(ready: World) -> None:
    target = ready.target()
    target["data"]["tokenType"] = cluster.encode("Basic")
    ready.tell_secret(ready.cluster.stamp(target))
    ready.cluster.before["get_secret"] = [lambda: ready.delete_secret(told=False)]
    ready.run()
    assert ready.token() == ready.squidex.granted[1]
    assert ready.cluster.count("get_secret") <= 4


def test_a_target_without_its_label_that_is_gone_when_it_is_mended_is_looked_for_once(ready: World) -> None:
    target = ready.target()
    target["metadata"]["labels"] = {}
    ready.watch.secret_event("DELETED", ready.cluster.stamp(target))  # so the watch tells a lost label
    # The first look finds it; before the second one, which is for its token, it goes.
    ready.cluster.before["get_secret"] = [lambda: None, lambda: ready.delete_secret(told=False)]
    ready.run()
    assert ready.token() == ready.squidex.granted[1]
    assert ready.cluster.count("get_secret") <= 4


def test_a_target_that_lost_its_label_when_it_is_mended_is_still_mended(ready: World) -> None:
    target = ready.target()
    target["data"]["tokenType"] = cluster.encode("Basic")
    ready.tell_secret(ready.cluster.stamp(target))

    def strip() -> None:
        target["metadata"]["labels"] = {}
        ready.cluster.stamp(target)

    ready.cluster.before["get_secret"] = [strip]
    ready.run()
    assert ready.target()["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_TOKEN
    assert ready.target()["data"]["tokenType"] == cluster.encode("Bearer")
    assert len(ready.squidex.granted) == 1


def test_a_secret_that_came_while_a_look_found_none_is_not_forgotten(ready: World) -> None:
    key = inventory.Key(NS, "shop")
    ready.delete_secret()
    # The look's answer says that there is none; one comes before that answer is read.
    made: dict[str, Any] = {}

    def restore() -> None:
        made.update({"metadata": {"namespace": NS, "name": "shop", "labels": {names.LABEL_ROLE: "token"}}, "data": {}})
        ready.cluster.secrets[NS, "shop"] = made
        ready.tell_secret(ready.cluster.stamp(made, new=True))

    ready.cluster.after["get_secret"] = [restore]
    asyncio.run(ready.reconciler.work(key))
    assert ready.inventory.known_secret(key) == (made["metadata"]["uid"], made["metadata"]["resourceVersion"])


def test_a_former_target_that_changed_when_it_is_removed_is_removed_all_the_same(ready: World) -> None:
    former = ready.target()
    ready.cluster.before["delete_secret"] = [lambda: ready.cluster.stamp(former)]
    ready.put_client(target={"name": "renamed"})
    ready.run()
    assert (NS, "shop") not in ready.cluster.secrets
    assert ready.token("renamed") == ready.squidex.granted[0]
    assert ready.status()["target"] == {"name": "renamed"}


def test_a_former_target_that_is_gone_already_is_no_failure(ready: World) -> None:
    ready.cluster.before["delete_secret"] = [lambda: ready.delete_secret(told=False)]
    ready.put_client(target={"name": "renamed"})
    ready.run()
    assert ready.condition("RefreshFailing")[0] == "False"
    assert ready.status()["target"] == {"name": "renamed"}


def test_two_causes_at_once_lead_to_one_fetch(ready: World) -> None:
    ready.delete_secret()
    ready.put_credentials("changed")
    ready.put_client(scope="squidex-api openid")
    ready.run()
    assert len(ready.squidex.granted) == 2
    assert ready.token() == ready.squidex.granted[1]


def test_who_damages_a_target_again_and_again_is_told_and_does_not_make_us_spin(ready: World) -> None:
    for _ in range(20):
        target = ready.target()
        target["data"]["tokenType"] = cluster.encode("Basic")
        ready.tell_secret(ready.cluster.stamp(target))
        ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.TARGET_CONFLICT)
    assert ready.cluster.count("apply_secret") <= 11
    assert len(ready.squidex.granted) == 1


def test_a_target_that_the_api_server_refuses_is_a_failure_of_the_target(world: World) -> None:
    world.put_client()
    world.cluster.before["create_secret"] = [kube_errors.RefusedError("The API server refuses it (HTTP 403).")]
    world.run()
    assert world.condition("Ready") == ("False", Reason.TARGET_REFUSED)
    assert len(world.squidex.granted) == 1


def test_a_field_of_another_manager_is_a_conflict_and_not_taken(ready: World) -> None:
    target = ready.target()
    target["data"]["tokenType"] = cluster.encode("Basic")
    ready.tell_secret(ready.cluster.stamp(target))
    ready.cluster.before["apply_secret"] = [
        kube_errors.ManagerConflictError("helm also applies it.", managers=["helm"], by_hand=False)
    ]
    ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.TARGET_CONFLICT)
    assert ready.cluster.count("apply_secret") == 1


def test_a_field_that_somebody_edited_by_hand_is_taken_back(ready: World) -> None:
    target = ready.target()
    target["data"]["tokenType"] = cluster.encode("Basic")
    ready.tell_secret(ready.cluster.stamp(target))
    ready.cluster.before["apply_secret"] = [
        kube_errors.ManagerConflictError("kubectl holds it.", managers=["kubectl-edit"], by_hand=True)
    ]
    ready.run()
    assert ready.target()["data"]["tokenType"] == cluster.encode("Bearer")
    assert ready.cluster.count("apply_secret") == 2


def test_a_namespace_that_goes_while_a_secret_is_made_stops_everything(world: World) -> None:
    key = world.put_client()
    world.cluster.before["create_secret"] = [kube_errors.TerminatingError("The namespace is being deleted.")]
    world.run()
    assert world.condition("Ready") == ("False", Reason.TERMINATING)
    assert world.due(key) is None


def test_an_error_that_nobody_foresaw_is_in_the_status_and_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.put_client()
    world.squidex.before["token"] = [RuntimeError("a bug")]
    world.run()
    assert world.condition("Ready")[0] == "False"
    due = world.due(key)
    assert due is not None
    assert due > 0
    assert "unforeseen" in caplog.text


def test_an_event_that_cannot_be_posted_is_no_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.squidex.before["token"] = [timed_out()]
    world.cluster.before["create_event"] = [kube_errors.RefusedError("No.") for _ in range(9)]
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("False", Reason.TIMEOUT)
    assert "event not posted" in caplog.text


def test_workers_that_start_together_do_not_pass_a_servers_limit_together() -> None:
    world = cluster.World(host_limits=hosts.HostLimits(concurrency=2))
    keys = [world.put_client(f"shop-{n}") for n in range(10)]
    most, now = 0, 0

    original = world.squidex.send

    async def send(*args: Any, **options: Any) -> Any:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0)
            return await original(*args, **options)
        finally:
            now -= 1

    world.squidex.send = send  # type: ignore[method-assign]

    async def together() -> None:
        for _ in range(20):
            due = [key for key, at in world.queue._due.items() if at <= world.clock.now()]
            for key in due:
                world.queue._due.pop(key)
            await asyncio.gather(*(world.reconciler.work(key) for key in due))

    asyncio.run(together())
    assert most <= 2
    assert len(world.squidex.granted) == len(keys)
    assert all(world.condition("Ready", key.name)[0] == "True" for key in keys)


@pytest.mark.parametrize("what", ["a deletion", "other credentials", "another spec"])
def test_what_happens_while_a_place_at_the_server_is_waited_for_counts(what: str) -> None:
    world = cluster.World(host_limits=hosts.HostLimits(concurrency=1))
    key = world.put_client()

    async def main() -> None:
        async with world.tools.hosts.request(cluster.URL, "somebody else", fetch=False):
            task = asyncio.create_task(world.reconciler.work(key))
            while not world.tools.hosts._hosts[cluster.URL].in_line:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
            if what == "a deletion":
                world.delete_client()
            elif what == "other credentials":
                world.put_credentials("changed")
            else:
                world.put_client(url="https://other.test")
        await task

    asyncio.run(main())
    asked = [(url, form) for url, form in world.squidex.asked if "client_secret" in form]
    if what == "a deletion":
        assert asked == []
        return
    ((url, form),) = asked
    assert form["client_secret"] == ("changed" if what == "other credentials" else "s3cr3t")
    assert url.startswith("https://other.test/" if what == "another spec" else cluster.URL)
    assert world.token() == world.squidex.granted[0]


def test_who_waits_for_its_turn_costs_nothing_and_comes_back_for_it() -> None:
    world = cluster.World(host_limits=hosts.HostLimits(rate=0.1, burst=1))
    keys = [world.put_client(f"shop-{n}") for n in range(4)]
    world.run()
    assert len(world.squidex.granted) == 1
    waiting = [key for key in keys if (NS, key.name) not in world.cluster.secrets]
    assert sorted(world.due(key) or 0 for key in waiting) == [10, 20, 30]
    world.cluster.calls.clear()
    for key in waiting:
        world.queue.wake(key)  # by an event before its time
    world.run()
    assert [call for call in world.cluster.calls if "patch_status" not in call] == []
    for granted in (2, 3, 4):
        world.clock.advance(seconds=10)
        world.run()
        assert len(world.squidex.granted) == granted


def test_two_rules_that_disagree_make_no_hot_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.put_client()
    always = decide.Look(decide.Subject.TARGET)
    monkeypatch.setattr(decide, "decide", lambda *_: always)
    world.run()
    assert world.due(key) == 60
    assert "undecided key=shop/shop decision=Look" in caplog.text
    assert world.cluster.count("get_secret") <= 16


def test_a_server_that_hangs_is_asked_by_one_at_a_time() -> None:
    world = cluster.World()
    for n in range(5):
        world.put_client(f"shop-{n}")
    world.squidex.before["token"] = [timed_out() for _ in range(100)]
    world.run()
    state = world.tools.hosts._hosts[cluster.URL]
    assert state.trouble_until is not None
    assert state.in_flight == 0


def test_keys_are_asked_for_with_the_ca_of_whoever_has_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(3):
        world.put_client(f"broken-{n}", tls={"caRef": {"kind": "ConfigMap", "name": "none"}})
    world.put_client("good")
    world.run()
    server = servers.ServerKey(cluster.URL)
    # Another one comes while the first CA is looked for.
    world.cluster.before["get_config_map"] = [lambda: world.put_client("late")]
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(server))
    assert world.squidex.calls == ["keys"]
    assert world.queue._due[server] > world.clock.now()


def test_keys_are_not_asked_for_without_any_ca(world: World) -> None:
    world.put_client(tls={"caRef": {"kind": "Secret", "name": "none"}})
    world.run()
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(servers.ServerKey(cluster.URL)))
    assert world.squidex.calls == []


def test_keys_wait_their_turn_at_a_server_in_trouble(world: World) -> None:
    world.put_client()
    world.run()
    server = servers.ServerKey(cluster.URL)
    state = world.tools.hosts._host(cluster.URL)
    state.in_flight, state.trouble_until = 1, world.clock.now() + dt.timedelta(hours=1)
    world.squidex.calls.clear()
    asyncio.run(world.reconciler.work(server))
    assert world.squidex.calls == []
    assert server in state.parked


def test_a_replaced_key_renews_every_token_of_the_server(world: World) -> None:
    for name in ("one", "two", "three"):
        world.put_client(name, target={"name": f"{name}-token"})
    world.run()
    world.squidex.key = "key-2"
    world.clock.advance(minutes=6)
    world.run()
    world.run()
    assert len(world.squidex.granted) == 6
    for name in ("one", "two", "three"):
        assert world.status(name)["keyID"] == "key-2"
        assert world.status(name)["lastRefreshReason"] == reasons.Cause.KEY_REPLACED


def test_replicas_that_disagree_do_not_make_a_flood(world: World) -> None:
    world.put_client(probe={"mode": "Off"})
    world.run()
    world.squidex.published = ["another"]  # and yet it signs with key-1
    for _ in range(60):
        world.clock.advance(minutes=1)
        world.run()
    assert len(world.squidex.granted) <= 8


def test_a_list_of_keys_that_is_cached_costs_one_token_and_is_told(world: World) -> None:
    world.put_client()
    world.run()
    world.squidex.published = ["key-1"]  # for a day, whatever it signs with
    world.squidex.key = "key-2"
    world.squidex.refused.add(world.token())
    for _ in range(24 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert len(world.squidex.granted) == 2
    assert world.condition("TokenAccepted") == ("Unknown", "KeysDisagree")
    assert world.condition("Ready") == ("True", "TokenValid")
    world.squidex.published = None
    for _ in range(3 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert world.condition("TokenAccepted") == ("True", "Accepted")
    # A key that is really replaced is answered as ever.
    world.squidex.key = "key-3"
    world.clock.advance(minutes=6)
    world.run()
    world.run()
    assert len(world.squidex.granted) == 3
    assert world.status("shop")["keyID"] == "key-3"


def test_where_the_keys_do_not_fit_and_nothing_can_be_asked_a_token_is_fetched_now_and_then(world: World) -> None:
    world.put_client()
    world.run()
    world.squidex.published = ["another"]
    world.squidex.probe_status = 503
    for _ in range(4 * 12):
        world.clock.advance(minutes=5)
        world.run()
    assert 4 <= len(world.squidex.granted) <= 12


def test_probes_wait_their_turn_at_a_server_in_trouble(ready: World) -> None:
    key = inventory.Key(NS, "shop")
    ready.clock.advance(hours=2)
    ready.queue._due.pop(servers.ServerKey(cluster.URL), None)
    state = ready.tools.hosts._host(cluster.URL)
    state.in_flight, state.trouble_until = 1, ready.clock.now() + dt.timedelta(hours=1)
    ready.run()
    assert "probe" not in ready.squidex.calls
    assert key in state.parked
    state.in_flight = 0
    ready.clock.advance(minutes=1)
    ready.run()
    assert "probe" in ready.squidex.calls


def test_a_token_left_to_die_by_a_dead_server_ends_as_expired_and_comes_back(world: World) -> None:
    world.squidex.lifetime = 6 * 3600
    key = world.put_client()
    world.run()
    world.squidex.before["token"] = [timed_out() for _ in range(1000)]
    end = world.clock.now() + dt.timedelta(hours=7)

    async def live() -> None:
        while world.clock.now() < end:
            world.clock.at = max(min(world.queue._due.values()), world.clock.now())
            await world.settle()

    asyncio.run(live())
    assert world.condition("Ready") == ("False", Reason.TOKEN_EXPIRED)
    assert len(world.squidex.before["token"]) > 900
    world.squidex.before.clear()
    wait = world.due(key)
    assert wait is not None
    assert wait <= 600
    world.clock.advance(seconds=wait)
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_a_key_is_never_without_a_due_time_while_there_is_something_to_wait_for(world: World) -> None:
    """Whatever fails, the key comes back by itself: nobody has to restart anything."""
    errors = [unavailable(), kube_errors.RefusedError("No."), kube_errors.StaleError("Old.")]
    for method in ("get_secret", "create_secret", "patch_status"):
        for error in errors:
            world = cluster.World()
            key = world.put_client()
            world.cluster.before[method] = [error]
            world.run()
            for _ in range(20):
                due = world.due(key)
                assert due is not None, (method, error)
                if world.condition("Ready") == ("True", Reason.TOKEN_VALID) if world.status() else False:
                    break
                world.clock.advance(seconds=due)
                world.run()
            assert world.condition("Ready") == ("True", Reason.TOKEN_VALID), (method, error)
            assert len(world.squidex.granted) == 1, (method, error)


def test_an_invalid_spec_waits_for_the_next_edit(world: World) -> None:
    key = world.put_client(probe={"interval": "often"})
    world.run()
    assert world.condition("Ready") == ("False", Reason.INVALID_SPEC)
    assert world.due(key) is None
    world.put_client()
    world.run()
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


def test_a_step_without_a_spec_is_a_bug_that_says_so(world: World) -> None:
    from squidex_operator.engine import attempt

    key = world.put_client(probe={"interval": "often"})
    with pytest.raises(RuntimeError, match="without a spec"):
        _ = attempt.Pass(key, world.inventory.records[key]).spec


def test_credentials_that_nobody_watches_are_looked_at_again(world: World) -> None:
    world.put_credentials(name="plain", labelled=False)
    world.put_client(credentialsSecretRef={"name": "plain"}, probe={"interval": "10m"})
    world.run()
    world.put_credentials("changed", name="plain", labelled=False)
    for _ in range(12):
        world.clock.advance(minutes=1)
        world.run()
    assert world.token() == world.squidex.granted[1]


def test_no_reconcile_of_a_key_that_nobody_knows(world: World) -> None:
    asyncio.run(world.reconciler.work(inventory.Key(NS, "nobody")))
    assert world.cluster.calls == []
