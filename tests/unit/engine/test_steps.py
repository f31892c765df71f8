"""What happens between a step and the next: whose token is written where, and when it is not."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from squidex_operator.api import names, reasons
from squidex_operator.engine import hosts, inventory
from squidex_operator.kube import errors as kube_errors
from squidex_operator.squidex import errors as squidex_errors
from tests.unit.engine import cluster

if TYPE_CHECKING:
    from tests.unit.engine.cluster import World

Reason = reasons.Reason
NS = cluster.NAMESPACE


def unavailable() -> Exception:
    return kube_errors.UnavailableError("The API server answered HTTP 503.")


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


def test_a_target_that_changed_between_look_and_write_is_looked_at_again(ready: World) -> None:
    target = ready.damage_target()

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
    world.cluster.config_maps[NS, "ca"] = {"data": {"ca.crt": cluster.CA}}
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


def test_a_target_that_is_gone_when_it_is_mended_is_looked_for_once(ready: World) -> None:
    ready.damage_target()
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
    target = ready.damage_target()

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


def test_who_damages_a_target_again_and_again_is_told_and_does_not_make_us_spin(ready: World) -> None:
    for _ in range(20):
        ready.damage_target()
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
    ready.damage_target()
    ready.cluster.before["apply_secret"] = [
        kube_errors.ManagerConflictError("helm also applies it.", managers=["helm"], by_hand=False)
    ]
    ready.run()
    assert ready.condition("RefreshFailing") == ("True", Reason.TARGET_CONFLICT)
    assert ready.cluster.count("apply_secret") == 1


def test_a_field_that_somebody_edited_by_hand_is_taken_back(ready: World) -> None:
    ready.damage_target()
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


def test_a_step_without_a_spec_is_a_bug_that_says_so(world: World) -> None:
    from squidex_operator.engine import attempt

    key = world.put_client(probe={"interval": "often"})
    with pytest.raises(RuntimeError, match="without a spec"):
        _ = attempt.Pass(key, world.inventory.records[key]).spec


def test_a_target_that_is_renamed_while_its_secret_is_made_leaves_no_secret_behind(world: World) -> None:
    world.put_client()
    world.cluster.after["create_secret"] = [lambda: world.put_client(target={"name": "renamed"})]
    world.run()
    assert world.queue.unforeseen == 0
    assert (NS, "shop") not in world.cluster.secrets
    assert world.squidex.granted == [world.token("renamed")]
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)
    assert world.status()["target"] == {"name": "renamed"}


def test_a_target_that_is_deleted_before_its_answer_is_read_is_written_again(world: World) -> None:
    world.put_client()
    world.cluster.after["create_secret"] = [world.delete_secret]
    world.run()
    assert world.queue.unforeseen == 0
    assert world.token() == world.squidex.granted[-1]
    assert world.condition("Ready") == ("True", Reason.TOKEN_VALID)


@pytest.mark.parametrize(
    "refusal",
    [
        kube_errors.RefusedError("The API server refuses it (HTTP 422)."),
        kube_errors.ManagerConflictError("helm also applies it.", managers=["helm"], by_hand=False),
        kube_errors.UnavailableError("The API server answered HTTP 503."),
    ],
    ids=["refused", "another manager", "an outage"],
)
@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (squidex_errors.RejectedError(Reason.INVALID_CLIENT, "invalid_client"), 1),
        (squidex_errors.UnavailableError(Reason.TIMEOUT, "It did not answer."), 18),
    ],
    ids=["a wrong secret", "a server that is away"],
)
def test_a_repair_that_fails_makes_no_token_request_come_sooner(
    ready: World, refusal: Exception, answer: Exception, most: int
) -> None:
    ready.squidex.before["token"] = [answer] * 999
    ready.squidex.probe_status = 503
    ready.clock.advance(days=21)
    ready.damage_target()
    ready.cluster.before["apply_secret"] = [refusal] * 999
    for _ in range(60):
        ready.run()
        ready.clock.advance(minutes=1)
    assert 1 <= ready.squidex.count("token") <= most
    assert 2 <= ready.cluster.count("apply_secret") <= 62
    # When it works again, it is mended without waiting for the server.
    ready.cluster.before["apply_secret"].clear()
    for _ in range(60):
        ready.clock.advance(minutes=1)
        ready.run()
    assert ready.target()["data"]["tokenType"] == cluster.encode("Bearer")


def test_a_repair_never_goes_to_the_secret_of_a_name_that_came_in_meanwhile(world: World) -> None:
    for name in ("other", "shop"):
        world.put_client(name)
    world.run()
    world.damage_target()
    world.cluster.after["get_secret"] = [lambda: world.put_client(target={"name": "other"})]
    world.run()
    assert world.condition("Ready", "other") == ("True", Reason.TOKEN_VALID)
    assert world.condition("Ready") == ("False", Reason.TARGET_NOT_OWNED)
    world.put_client()
    world.run()
    assert len(world.squidex.granted) == 2
    assert {world.condition("Ready", name)[0] for name in ("other", "shop")} == {"True"}


def test_a_repair_never_goes_to_a_secret_that_took_the_place_of_ours_meanwhile(ready: World) -> None:
    ready.damage_target()
    labels = {names.LABEL_ROLE: names.ROLE_TOKEN}
    theirs = {"metadata": {"namespace": NS, "name": "shop", "labels": labels}, "data": {"theirs": "a2VwdA=="}}

    def replace() -> None:
        ready.delete_secret()
        ready.cluster.secrets[NS, "shop"] = theirs
        ready.tell_secret(ready.cluster.stamp(theirs, new=True))

    ready.cluster.after["get_secret"] = [replace]
    ready.run()
    assert theirs["data"] == {"theirs": "a2VwdA=="}
    assert ready.condition("Ready") == ("False", Reason.TARGET_NOT_OWNED)


def test_no_server_is_shown_the_token_of_another() -> None:
    world = cluster.World(host_limits=hosts.HostLimits(concurrency=1))
    world.put_client("other", url="https://b.test")
    key = world.put_client()
    world.run()
    world.clock.advance(hours=2)

    async def main() -> None:
        async with world.tools.hosts.request(cluster.URL, "somebody", fetch=False):
            task = asyncio.create_task(world.reconciler.work(key))
            while not world.tools.hosts._hosts[cluster.URL].in_line:  # noqa: ASYNC110 - one turn of the loop at a time
                await asyncio.sleep(0)
            world.put_client(url="https://b.test", target={"name": "other"})
        await task

    asyncio.run(main())
    theirs = f"Bearer {world.token('other')}"
    assert not [url for url, sent in world.squidex.asked if sent.get("Authorization") == theirs and cluster.URL in url]


@pytest.mark.parametrize("trouble", ["no token can be had", "nothing can be deleted"])
def test_a_target_that_is_renamed_twice_leaves_nothing_behind(world: World, trouble: str) -> None:
    key = world.put_client(target={"name": "z"})
    world.run()
    if trouble == "no token can be had":
        world.clock.advance(days=21)
        world.squidex.before["token"] = [squidex_errors.UnavailableError(Reason.TIMEOUT, "Slow.")] * 20
        world.run()
    else:
        world.cluster.before["delete_secret"] = [unavailable() for _ in range(2)]
    for name in ("a", "m"):
        world.put_client(target={"name": name})
        world.run()
    world.squidex.before["token"].clear()
    for _ in range(30):
        world.clock.advance(minutes=10)
        world.run()
    assert set(world.cluster.secrets) == {(NS, "credentials"), (NS, "m")}
    assert world.status()["target"] == {"name": "m"}
    assert not world.inventory.records[key].written
    # A copy under a former name is somebody else's business.
    copied = copy.deepcopy(world.target("m"))
    copied["metadata"]["name"] = "z"
    world.cluster.secrets[NS, "z"] = copied
    world.tell_secret(world.cluster.stamp(copied, new=True))
    world.run()
    assert (NS, "z") in world.cluster.secrets


def test_who_waits_for_the_name_of_a_former_target_is_told_that_it_is_free(world: World) -> None:
    world.put_client("one", target={"name": "t"})
    world.run()
    key = world.put_client("two", target={"name": "t"})
    world.run()
    for _ in range(8):
        world.clock.advance(seconds=world.due(key) or 0)
        world.run()
    told = copy.deepcopy(world.target("t"))
    world.put_client("one", target={"name": "one"})
    world.run()
    world.watch.secret_event("DELETED", world.cluster.stamp(told))
    world.run()
    assert world.condition("Ready", "two") == ("True", Reason.TOKEN_VALID)


@pytest.mark.parametrize("what", ["another manager's field", "a former target that cannot be deleted"])
def test_what_cannot_be_written_keeps_nobody_from_asking_about_the_token(ready: World, what: str) -> None:
    key = inventory.Key(NS, "shop")
    if what == "another manager's field":
        ready.damage_target()
        conflict = kube_errors.ManagerConflictError("helm also applies it.", managers=["helm"], by_hand=False)
        ready.cluster.before["apply_secret"] = [conflict] * 9999
    else:
        ready.cluster.before["delete_secret"] = [kube_errors.RefusedError("No.")] * 9999
        ready.put_client(target={"name": "renamed"})
    ready.run()
    end = ready.clock.now() + dt.timedelta(hours=6)
    while ready.clock.now() < end:
        ready.clock.advance(seconds=ready.due(key) or 0)
        ready.run()
    assert ready.squidex.count("probe") >= 5
    assert ready.condition("RefreshFailing")[0] == "True"
    ready.cluster.before.clear()
    for _ in range(2):
        ready.clock.advance(hours=1)
        ready.run()
    assert ready.condition("RefreshFailing") == ("False", Reason.REFRESHED)
    assert len(ready.cluster.secrets) == 2


def test_a_server_that_asked_for_a_pause_holds_up_no_repair(ready: World) -> None:
    ready.clock.advance(days=22)
    ready.tools.hosts._host(cluster.URL).paused_until = ready.clock.now() + dt.timedelta(hours=1)
    ready.run()
    ready.damage_target()
    ready.run()
    assert ready.target()["data"]["tokenType"] == cluster.encode("Bearer")
    assert ready.squidex.count("token") == 0
