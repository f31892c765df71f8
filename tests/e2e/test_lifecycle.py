"""The main job: a SquidexClient becomes a token in a Secret, and stays one."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.operator_process import Operator
    from tests.e2e.world import World

ROLE = "squidex-operator.io/role"


def test_a_squidexclient_becomes_a_token_that_the_server_accepts(world: World) -> None:
    secret = world.ready()
    assert sorted(secret["data"]) == ["expiresAt", "token", "tokenType", "url"]
    assert secret["metadata"]["labels"] == {ROLE: "token", "app.kubernetes.io/managed-by": "squidex-operator"}
    assert secret["metadata"]["ownerReferences"][0]["name"] == "shop"
    assert base64.b64decode(secret["data"]["tokenType"]) == b"Bearer"
    assert world.accepts(world.token()) == 200
    assert world.token_requests() == 1
    status = world.get("sqc", "shop")["status"]
    assert status["target"] == status["binding"] == {"name": "shop"}
    assert status["lastRefreshReason"] == "FirstToken"
    assert status["observedGeneration"] == 1


def test_nothing_is_written_and_nothing_fetched_when_nothing_changes(world: World) -> None:
    world.ready()
    mark = world.sandbox.control_plane.audit_mark()
    world.kubectl("annotate", "sqc", "shop", "note=edited")
    world.kubectl("label", "sqc", "shop", "team=shop")
    world.create("other", target={"name": "other-token"})
    world.wait_ready("other")
    assert [row for row in world.operator_requests(mark) if "shop" in row] == []
    assert world.token_requests() == 2


def test_a_restart_fetches_and_writes_nothing(world: World, operator: Operator) -> None:
    world.ready()
    operator.stop()
    mark = world.sandbox.control_plane.audit_mark()
    operator.start()
    world.create("next", target={"name": "next-token"})
    world.wait_ready("next")
    assert world.token_requests() == 2
    assert [row for row in world.operator_requests(mark) if "shop" in row] == []


def test_a_deleted_target_comes_back(world: World) -> None:
    world.ready()
    old = world.token()
    world.kubectl("delete", "secret", "shop")
    world.new_token(old)
    assert world.token_requests() == 2
    world.wait(lambda: world.get("sqc", "shop")["status"]["lastRefreshReason"] == "TargetDeleted", "the reason")


def test_a_damaged_token_is_replaced(world: World) -> None:
    world.ready()
    old = world.token()
    world.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"token": "damaged"}}))
    world.new_token(old)
    assert world.token_requests() == 2


def test_a_damaged_key_beside_the_token_is_mended_without_a_new_token(world: World) -> None:
    world.ready()
    old = world.token()
    world.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"tokenType": "Basic"}}))
    world.wait(lambda: world.get("secret", "shop")["data"]["tokenType"] == "QmVhcmVy", "the mended key")
    assert world.token() == old
    assert world.token_requests() == 1


def test_stripped_labels_come_back_without_a_new_token(world: World) -> None:
    world.ready()
    world.kubectl("label", "secret", "shop", f"{ROLE}-", "app.kubernetes.io/managed-by-")
    world.wait(lambda: (world.get("secret", "shop")["metadata"].get("labels") or {}).get(ROLE) == "token", "the label")
    assert world.token_requests() == 1


def test_stripped_annotations_lead_to_a_new_token_that_is_whole(world: World) -> None:
    world.ready()
    old = world.token()
    keys = [f"{key}-" for key in world.get("secret", "shop")["metadata"]["annotations"]]
    world.kubectl("annotate", "secret", "shop", *keys)
    world.new_token(old)
    assert world.token_requests() == 2


def test_another_clients_token_pasted_into_the_target_is_replaced(world: World) -> None:
    world.ready()
    world.squidex.patch({"clients": {f"{world.namespace}:other": "s"}})
    world.set_credentials(f"{world.namespace}:other", "s", name="other-credentials")
    world.ready("other", credentialsSecretRef={"name": "other-credentials"})
    pasted = world.token("other")
    old = world.token()
    world.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"token": pasted}}))
    new = world.wait(lambda: world.token() not in (pasted, old) and world.token(), "a token of its own")
    assert world.accepts(new) == 200


def test_extra_keys_and_labels_of_others_stay(world: World) -> None:
    world.ready()
    world.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"theirs": "kept"}}))
    world.kubectl("label", "secret", "shop", "theirs=kept")
    old = world.token()
    world.kubectl("patch", "secret", "shop", "-p", json.dumps({"stringData": {"token": "damaged"}}))
    world.new_token(old)
    secret = world.get("secret", "shop")
    assert base64.b64decode(secret["data"]["theirs"]) == b"kept"
    assert secret["metadata"]["labels"]["theirs"] == "kept"


def test_changed_credentials_lead_to_a_new_token_at_once(world: World) -> None:
    world.ready()
    old = world.token()
    world.squidex.patch({"clients": {f"{world.namespace}:second": "s"}})
    world.set_credentials(f"{world.namespace}:second", "s")
    world.new_token(old)
    assert world.token_requests(f"{world.namespace}:second") == 1
    world.wait(lambda: world.get("sqc", "shop")["status"]["lastRefreshReason"] == "CredentialsChanged", "the reason")


def test_new_metadata_on_the_credentials_fetches_nothing(world: World) -> None:
    world.ready()
    before = world.get("secret", "shop")["metadata"]["annotations"]["squidex-operator.io/inputs-hash"]
    world.kubectl("annotate", "secret", "credentials", "note=edited")

    def hash_of_inputs() -> bool:
        annotations = world.get("secret", "shop")["metadata"]["annotations"]
        return bool(annotations["squidex-operator.io/inputs-hash"] != before)

    world.wait(hash_of_inputs, "the new version to be noted on the target")
    assert world.token_requests() == 1


def test_credentials_that_appear_later_act_at_once(world: World) -> None:
    world.create(credentialsSecretRef={"name": "later"})
    world.wait_condition("Ready", "False", "CredentialsMissing")
    world.wait_condition("CredentialsAvailable", "False", "CredentialsMissing")
    assert world.token_requests() == 0
    world.set_credentials(name="later")
    world.wait_ready()


def test_deleted_credentials_leave_the_token_and_say_so(world: World) -> None:
    world.ready()
    old = world.token()
    world.kubectl("delete", "secret", "credentials")
    world.wait_condition("CredentialsAvailable", "False", "CredentialsMissing")
    world.wait_condition("Ready", "True", "TokenValid")
    assert world.token() == old


def test_a_changed_spec_leads_to_another_token(world: World) -> None:
    world.ready()
    old = world.token()
    world.create(scope="squidex-api openid")
    world.new_token(old)
    assert world.wait_ready()["status"]["lastRefreshReason"] == "SpecChanged"


def test_an_edit_of_the_schedule_moves_the_renewal_and_fetches_nothing(world: World) -> None:
    world.ready()
    before = world.get("sqc", "shop")["status"]["nextRefreshTime"]
    world.create(refresh={"renewBefore": "24h"}, probe={"interval": "2h"})
    world.wait(lambda: world.get("sqc", "shop")["status"]["nextRefreshTime"] > before, "the later renewal")
    assert world.token_requests() == 1


def test_a_foreign_secret_is_left_alone_and_no_token_is_fetched_for_it(world: World) -> None:
    world.kubectl("create", "secret", "generic", "shop", "--from-literal=theirs=kept")
    before = world.get("secret", "shop")
    world.create()
    seen = world.wait_condition("Ready", "False", "TargetNotOwned")
    assert "spec.target.name" in seen["message"]
    assert world.token_requests() == 0
    assert world.get("secret", "shop") == before
    world.kubectl("delete", "secret", "shop")
    world.wait_ready()


def test_the_target_of_another_squidexclient_is_left_alone(world: World) -> None:
    world.ready()
    before = world.get("secret", "shop")
    world.create("rival", target={"name": "shop"})
    world.wait_condition("Ready", "False", "TargetNotOwned", name="rival")
    assert world.get("secret", "shop") == before
    assert world.token_requests() == 1


def test_a_renamed_target_is_written_before_the_old_one_goes(world: World) -> None:
    world.ready()
    old = world.token()
    mark = world.sandbox.control_plane.audit_mark()
    world.create(target={"name": "renamed"})
    world.wait(lambda: world.find("secret", "shop") is None, "the old target to go")
    assert world.token("renamed") == old
    assert world.token_requests() == 1
    writes = [row for row in world.operator_requests(mark) if "secrets" in row]
    assert writes == ["create secrets renamed", "delete secrets shop"]
    assert world.wait_ready()["status"]["target"] == {"name": "renamed"}


def test_a_copy_that_somebody_made_of_the_target_is_never_deleted(world: World) -> None:
    secret = world.ready()
    copy = {**secret, "metadata": {**secret["metadata"], "name": "backup"}}
    for key in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        copy["metadata"].pop(key, None)
    world.apply(copy)
    world.create(target={"name": "renamed"})
    world.wait(lambda: world.find("secret", "shop") is None, "the old target to go")
    assert world.find("secret", "backup") is not None


def test_a_deleted_squidexclient_takes_its_target_along(world: World) -> None:
    world.ready()
    world.kubectl("delete", "sqc", "shop")
    world.wait(lambda: world.find("secret", "shop") is None, "garbage collection")
    assert world.token_requests() == 1


def test_a_token_left_behind_is_used_again_by_a_new_squidexclient(world: World) -> None:
    world.ready()
    old = world.token()
    world.kubectl("delete", "sqc", "shop", "--cascade=orphan")
    world.ready()
    assert world.token() == old
    assert world.token_requests() == 1
    owner = world.get("secret", "shop")["metadata"]["ownerReferences"]
    assert [o["uid"] for o in owner] == [world.get("sqc", "shop")["metadata"]["uid"]]


def test_a_namespace_is_deleted_without_the_operator(world: World, operator: Operator) -> None:
    world.ready()
    operator.stop()
    world.kubectl("delete", "namespace", world.namespace, "--timeout=30s", namespaced=False)


def test_nothing_is_fetched_for_a_squidexclient_that_hangs_in_deletion(world: World) -> None:
    world.create()
    world.wait_ready()
    world.kubectl(
        "patch", "sqc", "shop", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": ["test.io/hold"]}})
    )
    world.kubectl("delete", "sqc", "shop", "--wait=false")
    world.kubectl("delete", "secret", "shop")
    world.set_credentials("another:client", "s")
    world.create("other", credentialsSecretRef={"name": "later"})
    world.wait_condition("Ready", "False", "CredentialsMissing", name="other")
    assert world.token_requests() == 1
    assert world.token_requests("another:client") == 0
    world.kubectl("patch", "sqc", "shop", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": []}}))


def test_nothing_is_fetched_in_a_namespace_that_hangs_in_deletion(world: World) -> None:
    hold = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hold", "finalizers": ["test.io/hold"]}}
    world.apply({**hold, "metadata": {**hold["metadata"], "namespace": world.namespace}})
    world.ready()
    world.kubectl("delete", "namespace", world.namespace, "--wait=false", namespaced=False)
    world.wait(lambda: world.find("secret", "shop") is None, "the target to go")
    world.wait(lambda: world.find("sqc", "shop") is None, "the SquidexClient to go")
    assert world.token_requests() == 1
    world.kubectl("patch", "configmap", "hold", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": []}}))
