"""The CRD as its users meet it: what is let in, what is refused and with which words, and what each field does."""

from __future__ import annotations

import base64
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e import world as world_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.world import World

CRD = yaml.safe_load(pathlib.Path("crds/squidexclients.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

SECRET_NAME = (
    "must be the name of a Secret: lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or a "
    "digit"
)
CA_NAME = SECRET_NAME.replace("Secret", "ConfigMap or Secret")
SECRET_KEY = "must be a key of a Secret, letters, digits, '-', '_' and '.'"
CA_KEY = SECRET_KEY.replace("Secret", "ConfigMap or Secret")
ABSOLUTE = "must be an absolute URL such as https://cloud.squidex.io"
ASCII = "must be printable ASCII without blanks: write other letters of a host as xn--, and of a path as %XX"
CLEAR_TEXT = (
    "plain http would send the secret in clear text: use https, or an address in the cluster that ends in .svc or "
    ".svc.cluster.local"
)
SCOPES = "must be scopes separated by single spaces, such as squidex-api"
RENEW_BEFORE = "must be a duration such as 72h, 10m or 1h30m"
INTERVAL = "must be a duration such as 1h or 10m"
OWN_TYPE = "must be Opaque or a type of your own; Kubernetes' own types ask for keys that a token has not"
OVER_CREDENTIALS = (
    "the token would be written over the credentials: set spec.target.name (by default the SquidexClient's own name) to "
    "something else than spec.credentialsSecretRef.name"
)
IMMUTABLE = "is immutable, as a Secret's type is; make another SquidexClient"


def credentials(**fields: Any) -> dict[str, Any]:
    return {"credentialsSecretRef": {"name": "credentials", **fields}}


def ca(**fields: Any) -> dict[str, Any]:
    return {"tls": {"caRef": {"kind": "Secret", "name": "ca", **fields}}}


GOOD: dict[str, dict[str, Any]] = {
    "nothing but the credentials": {},
    "a URL with a path and a slash": {"url": "https://cms.example.com:8443/base/"},
    "a URL in upper case": {"url": "HTTPS://CMS.EXAMPLE.COM"},
    "an IPv6 address": {"url": "https://[2001:db8::1]"},
    "plain http in the cluster": {"url": "http://squidex.cms.svc"},
    "plain http in the cluster, by its long name": {"url": "http://squidex.cms.svc.cluster.local:5000"},
    "plain http on this machine": {"url": "http://localhost:5000"},
    "plain http on this machine, by address": {"url": "http://127.0.0.1"},
    "plain http on this machine, by IPv6 address": {"url": "http://[::1]:5000"},
    "the highest port": {"url": "https://cms.example.com:65535"},
    "a name of several parts": credentials(name="a.b-c.0"),
    "keys of all letters": credentials(clientIdKey="a.B_c-0", clientSecretKey="A"),
    "several scopes": {"scope": "squidex-api openid role"},
    "a CA in a ConfigMap": {"tls": {"caRef": {"kind": "ConfigMap", "name": "ca"}}},
    "a CA under a key": ca(key="root.pem"),
    "renewBefore": {"refresh": {"renewBefore": "1h30m"}},
    "renewBefore as Go writes it": {"refresh": {"renewBefore": "720h0m0s"}},
    "renewBefore in seconds": {"refresh": {"renewBefore": "2592000s"}},
    "renewBeforePercentage at its lowest": {"refresh": {"renewBeforePercentage": 1}},
    "renewBeforePercentage at its highest": {"refresh": {"renewBeforePercentage": 90}},
    "a probe of every kind": {"probe": {"mode": "Languages", "interval": "1m"}},
    "no probe": {"probe": {"mode": "Off"}},
    "a target": {"target": {"name": "token", "type": "example.com/token"}},
    "fields that are null": {"url": None, "scope": None, "tls": None, "refresh": None, "probe": None, "target": None},
}

BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("no URL", {"url": ""}, "spec.url", ABSOLUTE),
    ("a URL without a scheme", {"url": "cloud.squidex.io"}, "spec.url", ABSOLUTE),
    ("a URL of another scheme", {"url": "ftp://cms.example.com"}, "spec.url", ABSOLUTE),
    ("a URL without a host", {"url": "https:///base"}, "spec.url", ABSOLUTE),
    ("half an IPv6 address", {"url": "https://[::1"}, "spec.url", ABSOLUTE),
    ("a host with a backslash", {"url": "https://evil.org\\.example.com"}, "spec.url", ABSOLUTE),
    ("a host of other letters", {"url": "https://\u00e4.example.com"}, "spec.url", ASCII),
    ("a blank in a URL", {"url": "https://cms.example.com/a b"}, "spec.url", ASCII),
    ("a newline after a URL", {"url": "https://cms.example.com\n"}, "spec.url", ASCII),
    ("no such port", {"url": "https://cms.example.com:65536"}, "spec.url", "must have no port, or one up to 65535"),
    ("a port past all numbers", {"url": f"https://a:{'9' * 30}"}, "spec.url", "must have no port, or one up to 65535"),
    ("a query", {"url": "https://a.example?x=1"}, "spec.url", "must be the base URL, without a query or a fragment"),
    (
        "an empty query",
        {"url": "https://a.example?"},
        "spec.url",
        "must be the base URL, without a query or a fragment",
    ),
    ("a fragment", {"url": "https://a.example#x"}, "spec.url", "must be the base URL, without a query or a fragment"),
    (
        "a user name",
        {"url": "https://u:p@a.example"},
        "spec.url",
        (
            "must not carry a user name or a password: the client's id and secret belong in the Secret that "
            "spec.credentialsSecretRef names"
        ),
    ),
    (
        "the path that the operator adds",
        {"url": "https://a.example/identity-server"},
        "spec.url",
        "must be the base URL, without /identity-server, which the operator adds",
    ),
    ("plain http", {"url": "http://cms.example.com"}, "spec.url", CLEAR_TEXT),
    ("plain http to a private address", {"url": "http://10.0.0.1"}, "spec.url", CLEAR_TEXT),
    ("plain http to a name like the cluster's", {"url": "http://a.svc.evil.org"}, "spec.url", CLEAR_TEXT),
    ("plain http to a name like this machine's", {"url": "http://127.0.0.1.evil.org"}, "spec.url", CLEAR_TEXT),
    ("a URL that is too long", {"url": f"https://a.example/{'b' * 1024}"}, "spec.url", "Too long"),
    ("a URL that is a number", {"url": 5}, "spec.url", "must be of type string"),
    ("no credentials", {"credentialsSecretRef": None}, "spec.credentialsSecretRef", "Required value"),
    ("credentials without a name", {"credentialsSecretRef": {}}, "spec.credentialsSecretRef.name", "Required value"),
    ("an empty name", credentials(name=""), "spec.credentialsSecretRef.name", SECRET_NAME),
    ("a name in upper case", credentials(name="Shop"), "spec.credentialsSecretRef.name", SECRET_NAME),
    ("a name with two dots", credentials(name="a..b"), "spec.credentialsSecretRef.name", SECRET_NAME),
    ("a part that begins with a dash", credentials(name="a.-b"), "spec.credentialsSecretRef.name", SECRET_NAME),
    ("a name that is too long", credentials(name="a" * 254), "spec.credentialsSecretRef.name", "Too long"),
    ("an empty key", credentials(clientIdKey=""), "spec.credentialsSecretRef.clientIdKey", SECRET_KEY),
    ("a key with a slash", credentials(clientSecretKey="a/b"), "spec.credentialsSecretRef.clientSecretKey", SECRET_KEY),
    ("a key that is too long", credentials(clientIdKey="a" * 254), "spec.credentialsSecretRef.clientIdKey", "Too long"),
    ("a long key", credentials(clientSecretKey="a" * 254), "spec.credentialsSecretRef.clientSecretKey", "Too long"),
    ("no scope", {"scope": ""}, "spec.scope", SCOPES),
    ("two blanks between scopes", {"scope": "a  b"}, "spec.scope", SCOPES),
    ("a blank before a scope", {"scope": " a"}, "spec.scope", SCOPES),
    ("a quote in a scope", {"scope": 'a"b'}, "spec.scope", SCOPES),
    ("scopes that are too long", {"scope": "a" * 513}, "spec.scope", "Too long"),
    ("TLS without a CA", {"tls": {}}, "spec.tls.caRef", "Required value"),
    ("a CA of no kind", {"tls": {"caRef": {"name": "ca"}}}, "spec.tls.caRef.kind", "Required value"),
    ("a CA without a name", {"tls": {"caRef": {"kind": "Secret"}}}, "spec.tls.caRef.name", "Required value"),
    ("a CA of another kind", ca(kind="File"), "spec.tls.caRef.kind", 'supported values: "ConfigMap", "Secret"'),
    ("a CA of a bad name", ca(name="CA"), "spec.tls.caRef.name", CA_NAME),
    ("a CA of a long name", ca(name="a" * 254), "spec.tls.caRef.name", "Too long"),
    ("a CA under a bad key", ca(key="a b"), "spec.tls.caRef.key", CA_KEY),
    ("a CA under a long key", ca(key="a" * 254), "spec.tls.caRef.key", "Too long"),
    (
        "both ways to say when",
        {"refresh": {"renewBefore": "1h", "renewBeforePercentage": 5}},
        "spec.refresh",
        "set either renewBefore or renewBeforePercentage, not both",
    ),
    ("a renewal in days", {"refresh": {"renewBefore": "3d"}}, "spec.refresh.renewBefore", RENEW_BEFORE),
    ("a renewal after the expiry", {"refresh": {"renewBefore": "-1h"}}, "spec.refresh.renewBefore", RENEW_BEFORE),
    ("a renewal past all time", {"refresh": {"renewBefore": "999999h" * 4}}, "spec.refresh.renewBefore", RENEW_BEFORE),
    (
        "a renewal at the expiry",
        {"refresh": {"renewBefore": "0h0s"}},
        "spec.refresh.renewBefore",
        "must be longer than zero",
    ),
    ("a renewal that is too long", {"refresh": {"renewBefore": "1h" * 17}}, "spec.refresh.renewBefore", "Too long"),
    ("a renewal without a unit", {"refresh": {"renewBefore": 5}}, "spec.refresh.renewBefore", "must be of type string"),
    ("0 percent", {"refresh": {"renewBeforePercentage": 0}}, "renewBeforePercentage", "greater than or equal to 1"),
    ("91 percent", {"refresh": {"renewBeforePercentage": 91}}, "renewBeforePercentage", "less than or equal to 90"),
    ("half a percent", {"refresh": {"renewBeforePercentage": 0.5}}, "renewBeforePercentage", "must be of type int32"),
    ("another mode", {"probe": {"mode": "On"}}, "spec.probe.mode", 'values: "Auto", "App", "Languages", "Off"'),
    ("off without quotes", {"probe": {"mode": False}}, "spec.probe.mode", 'values: "Auto", "App", "Languages", "Off"'),
    ("an interval of no time", {"probe": {"interval": "often"}}, "spec.probe.interval", INTERVAL),
    ("an interval past all time", {"probe": {"interval": "999999h" * 4}}, "spec.probe.interval", INTERVAL),
    ("an interval below a minute", {"probe": {"interval": "59.999s"}}, "spec.probe.interval", "must be at least 1m"),
    ("an interval that is too long", {"probe": {"interval": "1h" * 17}}, "spec.probe.interval", "Too long"),
    ("a target of a bad name", {"target": {"name": "-a"}}, "spec.target.name", SECRET_NAME),
    ("a target of a long name", {"target": {"name": "a" * 254}}, "spec.target.name", "Too long"),
    ("a target over the credentials", {"target": {"name": "credentials"}}, "spec.target.name", OVER_CREDENTIALS),
    ("its own name over the credentials", credentials(name="shop"), "spec.target.name", OVER_CREDENTIALS),
    ("a target of a type of Kubernetes", {"target": {"type": "kubernetes.io/tls"}}, "spec.target.type", OWN_TYPE),
    (
        "a target of a boot token's type",
        {"target": {"type": "bootstrap.kubernetes.io/token"}},
        "spec.target.type",
        OWN_TYPE,
    ),
    ("a target of no type", {"target": {"type": ""}}, "spec.target.type", "should be at least 1 chars long"),
    ("a target of a long type", {"target": {"type": "a" * 254}}, "spec.target.type", "Too long"),
]


def sample(world: World, name: str = "shop", **spec: Any) -> dict[str, Any]:
    """A SquidexClient with the credentials' name, and what else is said."""
    body = world.manifest(name)
    body["spec"] = {**credentials(), **spec}
    return body


def tried(world: World, body: dict[str, Any], *args: str) -> str:
    """What kubectl says to an object; empty where it is let in."""
    how = ("apply", "--validate=strict", "--dry-run=server", "-f", "-", *args)
    done = world.kubectl(*how, text=json.dumps(body), check=False, namespaced=False)
    return done.stderr if done.returncode else ""


def test_what_is_right_is_let_in(empty_world: World) -> None:
    refused = {name: said for name, spec in GOOD.items() if (said := tried(empty_world, sample(empty_world, **spec)))}
    assert refused == {}


def test_what_is_wrong_is_refused_with_the_field_and_what_it_should_be(empty_world: World) -> None:
    wrong = {}
    for name, spec, field, message in BAD:
        said = tried(empty_world, sample(empty_world, **spec))
        if not re.search(rf"{re.escape(field)}: [^\n]*{re.escape(message)}", said):
            wrong[name] = said or "let in"
    assert wrong == {}


def rules(schema: dict[str, Any]) -> Iterator[str]:
    """The messages of all rules below a schema."""
    yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", []))
    for field in schema.get("properties", {}).values():
        yield from rules(field)


def test_every_rule_is_tried() -> None:
    assert set(rules(SCHEMA)) - {message for *_, message in BAD} == {IMMUTABLE}


def limits(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every limit that OpenAPI has of its own, by its field."""
    yield from ((path, key) for key in schema.keys() & {"enum", "minimum", "maximum", "maxLength", "minLength"})
    yield from ((f"{path}.{name}", "required") for name in schema.get("required", []))
    for name, field in schema.get("properties", {}).items():
        yield from limits(field, f"{path}.{name}")


WORDS = {
    "enum": "values: ",
    "minimum": "greater than",
    "maximum": "less than",
    "maxLength": "Too long",
    "minLength": "at least 1 chars",
    "required": "Required value",
}


def test_every_limit_is_tried() -> None:
    tried_limits = {(field, key) for _, _, field, message in BAD for key, words in WORDS.items() if words in message}
    missing = {
        (path, key)
        for path, key in limits(SCHEMA["properties"]["spec"], "spec")
        if not any(path.endswith(field) and key == kind for field, kind in tried_limits)
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"later": 1}, "spec.later"),
        (
            {"tls": {"caRef": {"kind": "Secret", "name": "ca"}, "insecureSkipVerify": True}},
            "spec.tls.insecureSkipVerify",
        ),
        ({"target": {"nmae": "token"}}, "spec.target.nmae"),
    ],
    ids=["an unknown field", "a way to skip the check of a certificate", "a slip of the pen"],
)
def test_fields_that_there_are_not_are_named(empty_world: World, spec: dict[str, Any], field: str) -> None:
    assert f'unknown field "{field}"' in tried(empty_world, sample(empty_world, **spec))


def test_an_object_without_a_spec_is_refused(empty_world: World) -> None:
    body = sample(empty_world)
    del body["spec"]
    assert "spec: Required value" in tried(empty_world, body)


def test_the_type_of_a_target_cannot_be_changed_nor_taken_back(empty_world: World) -> None:
    empty_world.apply(sample(empty_world, "other"), sample(empty_world, target={"type": "example.com/token"}))
    assert f"spec.target.type: Invalid value: {IMMUTABLE}" in tried(empty_world, sample(empty_world)).replace(
        ' "Opaque":', ""
    )
    assert IMMUTABLE in tried(empty_world, sample(empty_world, target={"type": "example.com/other"}))
    assert IMMUTABLE in tried(empty_world, sample(empty_world, "other", target={"type": "example.com/token"}))
    assert tried(empty_world, sample(empty_world, target={"type": "example.com/token", "name": "renamed"})) == ""


def test_defaults_are_filled_in(empty_world: World) -> None:
    how = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    body = sample(empty_world, tls={"caRef": {"kind": "Secret", "name": "ca"}})
    spec = json.loads(empty_world.kubectl(*how, text=json.dumps(body), namespaced=False).stdout)["spec"]
    assert spec == {
        "url": "https://cloud.squidex.io",
        "credentialsSecretRef": {"name": "credentials", "clientIdKey": "clientId", "clientSecretKey": "clientSecret"},
        "scope": "squidex-api",
        "tls": {"caRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}},
        "probe": {"mode": "Auto", "interval": "1h"},
        "target": {"type": "Opaque"},
    }


def test_kubectl_explains_every_field(empty_world: World) -> None:
    said = empty_world.kubectl("explain", "squidexclients.spec.target", namespaced=False).stdout
    assert "The Secret that the token is written to, in this namespace." in said


# The status is a subresource.


def patch_status(world: World, status: dict[str, Any]) -> str:
    """What kubectl says to a status; empty where it is let in."""
    how = ("patch", "sqc", "shop", "--subresource=status", "--type=merge", "--dry-run=server", "-p")
    done = world.kubectl(*how, json.dumps({"status": status}), check=False)
    return done.stderr if done.returncode else ""


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "TokenValid",
    "message": "It is valid.",
    "lastTransitionTime": "2026-05-01T12:00:00Z",
}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param({"conditions": [CONDITION], "failures": 0}, "", id="a right one"),
        pytest.param({"conditions": [{**CONDITION, "status": "Yes"}]}, "Unsupported value", id="another status"),
        pytest.param({"conditions": [{"type": "Ready"}]}, "Required value", id="half a condition"),
        pytest.param({"conditions": [CONDITION, CONDITION]}, "Duplicate value", id="a condition twice"),
        pytest.param({"failures": -1}, "greater than or equal to 0", id="failures below nothing"),
        pytest.param({"failures": 2**31}, "int32", id="failures past their type"),
        pytest.param({"expiresAt": "soon"}, "date-time", id="a time that is none"),
    ],
)
def test_a_status_has_its_form(empty_world: World, status: dict[str, Any], message: str) -> None:
    empty_world.apply(sample(empty_world, url="https://squidex.invalid"))
    said = patch_status(empty_world, status)
    assert message in said
    assert bool(said) is bool(message)


def test_status_and_spec_are_written_apart(empty_world: World) -> None:
    how = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    body = {**sample(empty_world), "status": {"failures": 5}}
    created = json.loads(empty_world.kubectl(*how, text=json.dumps(body), namespaced=False).stdout)
    assert "failures" not in created.get("status", {})
    empty_world.apply(sample(empty_world))
    edit = ("patch", "sqc", "shop", "--subresource=status", "--type=merge", "--dry-run=server", "-o", "json", "-p")
    patched = json.loads(
        empty_world.kubectl(*edit, json.dumps({"spec": {"scope": "x"}, "status": {"failures": 5}})).stdout
    )
    assert (patched["spec"]["scope"], patched["status"]["failures"]) == ("squidex-api", 5)
    assert patched["metadata"]["generation"] == 1


# What kubectl shows.


def test_kubectl_shows_what_matters(world: World) -> None:
    world.ready()
    for kind in ("squidexclients", "squidexclient", "sqc", "squidex"):
        head, row = world.kubectl("get", kind).stdout.splitlines()
        assert re.split(r"\s{2,}", head.strip()) == [
            "NAME",
            "READY",
            "REASON",
            "SECRET",
            "EXPIRES",
            "NEXT REFRESH",
            "AGE",
        ]
        assert row.split()[:4] == ["shop", "True", "TokenValid", "shop"]
        status = world.get("sqc", "shop")["status"]
        assert row.split()[4:6] == [status["expiresAt"], status["nextRefreshTime"]]
    head, row = world.kubectl("get", "sqc", "-o", "wide").stdout.splitlines()
    assert re.split(r"\s{2,}", head.strip())[-3:] == ["URL", "LAST REFRESH", "RENEWAL"]
    assert world.squidex.url in row
    assert row.split()[-1] == "Refreshed"


def test_squidexclients_are_found_by_their_fields(empty_world: World) -> None:
    empty_world.apply(
        sample(empty_world, "one", url="https://one.invalid"),
        sample(empty_world, "two", **credentials(name="others"), url="https://two.invalid", target={"name": "token"}),
    )
    for selector, found in {
        "spec.url=https://one.invalid": "one",
        "spec.credentialsSecretRef.name=others": "two",
        "spec.target.name=token": "two",
        "spec.target.name!=token": "one",
    }.items():
        said = empty_world.kubectl("get", "sqc", "--field-selector", selector, "-o", "name").stdout.split()
        assert said == [f"squidexclient.squidex-operator.io/{found}"]


# Each field does something: changing it changes what is observed.


def edit(world: World, field: str, value: Any) -> None:
    """Change one field of the spec."""
    patch: Any = value
    for part in reversed(field.split(".")):
        patch = {part: patch}
    world.kubectl("patch", "sqc", "shop", "--type=merge", "-p", json.dumps(patch))


def second_client(world: World) -> str:
    """Another client of the same secret."""
    client_id = f"{world.namespace}:second"
    world.squidex.patch({"clients": {client_id: world.client_secret}})
    return client_id


def add_credentials_key(world: World, key: str, value: str) -> None:
    world.kubectl("patch", "secret", "credentials", "-p", json.dumps({"stringData": {key: value}}))


def claims(token: str) -> dict[str, Any]:
    """The payload of a token."""
    part = token.split(".")[1]
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return payload


def the_url_is_asked(world: World) -> None:
    world.ready()
    edit(world, "spec.url", f"{world.squidex.url}/elsewhere")
    seen = world.wait_condition("Ready", "False", "NotSquidex")
    assert "still holds a token for other settings" in seen["message"]


def the_credentials_are_those_of_the_secret(world: World) -> None:
    client_id = second_client(world)
    world.set_credentials(client_id, name="others")
    world.ready()
    edit(world, "spec.credentialsSecretRef.name", "others")
    world.wait(lambda: world.token_requests(client_id) == 1, "a request with the other credentials")


def the_id_is_the_one_under_the_key(world: World) -> None:
    client_id = second_client(world)
    world.ready()
    add_credentials_key(world, "otherId", client_id)
    edit(world, "spec.credentialsSecretRef.clientIdKey", "otherId")
    world.wait(lambda: claims(world.token())["client_id"] == client_id, "a token of the other client")


def the_secret_is_the_one_under_the_key(world: World) -> None:
    world.ready()
    add_credentials_key(world, "otherSecret", "wrong")
    edit(world, "spec.credentialsSecretRef.clientSecretKey", "otherSecret")
    world.kubectl("delete", "secret", "shop")
    world.wait_condition("Ready", "False", "InvalidClient")


def the_scope_is_asked_for(world: World) -> None:
    world.ready()
    edit(world, "spec.scope", "squidex-api openid")
    world.wait(lambda: "openid" in str(claims(world.token())["scope"]), "a token of the other scope")


def the_ca_is_read(world: World, field: str, value: str, *, kind: str, name: str, key: str) -> None:
    """The CA moves to another place, and the old place goes: only who looks there gets another token."""
    world.ready()
    old = world.token()
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": world.namespace}}
    world.apply(body | {"stringData" if kind == "Secret" else "data": {key: world.squidex.ca}})
    if (kind, name) != ("ConfigMap", "ca"):
        world.kubectl("delete", "configmap", "ca")
    edit(world, field, value)
    world.kubectl("delete", "secret", "shop")
    world.new_token(old)


def the_cas_kind_is_read(world: World) -> None:
    the_ca_is_read(world, "spec.tls.caRef.kind", "Secret", kind="Secret", name="ca", key="ca.crt")


def the_cas_name_is_read(world: World) -> None:
    the_ca_is_read(world, "spec.tls.caRef.name", "ca2", kind="ConfigMap", name="ca2", key="ca.crt")


def the_cas_key_is_read(world: World) -> None:
    the_ca_is_read(world, "spec.tls.caRef.key", "root.pem", kind="ConfigMap", name="ca", key="root.pem")


def the_renewal_moves(world: World, field: str, value: Any) -> None:
    world.ready()
    before = world.get("sqc", "shop")["status"]["nextRefreshTime"]
    edit(world, field, value)
    world.wait(lambda: world.get("sqc", "shop")["status"]["nextRefreshTime"] > before, "the later renewal")
    assert world.token_requests() == 1


def app_probes(world: World) -> int:
    """How often the client's app was asked for."""
    found: int = world.squidex.state()["counts"]["probe"]["byApp"].get(world.namespace, 0)
    return found


def language_probes(world: World) -> int:
    """How often the languages were asked for."""
    counts = world.squidex.state()["counts"]["probe"]
    return int(counts["total"]) - sum(counts["byApp"].values())


def the_probe_asks_for_what_the_mode_says(world: World) -> None:
    before = language_probes(world)
    world.ready(probe={"mode": "App"})
    assert (app_probes(world), language_probes(world)) == (1, before)
    for mode, apps, languages in (("Auto", 2, 0), ("Languages", 2, 1), ("Off", 2, 1)):
        old = world.token()
        edit(world, "spec.probe.mode", mode)
        world.kubectl("delete", "secret", "shop")
        world.new_token(old)
        # One of them is the test's own: an application asks for its app, too.
        own = {"Auto": 1, "Languages": 2, "Off": 3}[mode]
        assert (app_probes(world) - own, language_probes(world) - before) == (apps, languages)
    world.wait_condition("TokenAccepted", "Unknown", "ProbeOff")


def the_interval_brings_the_next_probe(world: World) -> None:
    """When the first probe after an edit comes is drawn by the uid: of so many, one comes soon."""
    names = [f"shop{number}" for number in range(24)]
    world.apply(*(world.manifest(name) for name in names))
    for name in names:
        world.wait_ready(name)
    before = app_probes(world)
    world.apply(*(world.manifest(name, probe={"interval": "1m"}) for name in names))
    world.wait(lambda: app_probes(world) > before, "a probe within the minute")


def the_target_has_the_name(world: World) -> None:
    world.ready()
    edit(world, "spec.target.name", "renamed")
    world.wait(lambda: world.find("secret", "renamed") and not world.find("secret", "shop"), "the other Secret")


def the_target_has_the_type(world: World) -> None:
    assert world.ready()["type"] == "Opaque"
    assert world.ready("other", target={"name": "other", "type": "example.com/token"})["type"] == "example.com/token"


WHAT_A_FIELD_DOES: dict[str, Callable[[World], None]] = {
    "spec.url": the_url_is_asked,
    "spec.credentialsSecretRef.name": the_credentials_are_those_of_the_secret,
    "spec.credentialsSecretRef.clientIdKey": the_id_is_the_one_under_the_key,
    "spec.credentialsSecretRef.clientSecretKey": the_secret_is_the_one_under_the_key,
    "spec.scope": the_scope_is_asked_for,
    "spec.tls.caRef.kind": the_cas_kind_is_read,
    "spec.tls.caRef.name": the_cas_name_is_read,
    "spec.tls.caRef.key": the_cas_key_is_read,
    "spec.refresh.renewBefore": lambda world: the_renewal_moves(world, "spec.refresh.renewBefore", "24h"),
    "spec.refresh.renewBeforePercentage": lambda world: the_renewal_moves(
        world, "spec.refresh.renewBeforePercentage", 10
    ),
    "spec.probe.mode": the_probe_asks_for_what_the_mode_says,
    "spec.probe.interval": the_interval_brings_the_next_probe,
    "spec.target.name": the_target_has_the_name,
    "spec.target.type": the_target_has_the_type,
}


def leaves(schema: dict[str, Any], path: str) -> Iterator[str]:
    """The fields that hold a value."""
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from leaves(field, f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def test_every_field_has_a_test_that_it_does_something() -> None:
    assert WHAT_A_FIELD_DOES.keys() == set(leaves(SCHEMA["properties"]["spec"], "spec"))


@pytest.mark.parametrize("field", WHAT_A_FIELD_DOES)
def test_a_field_does_something(world: World, field: str) -> None:
    WHAT_A_FIELD_DOES[field](world)


def test_a_secret_of_another_type_that_was_left_behind_is_named_with_what_to_do(world: World) -> None:
    world.ready()
    world.kubectl("delete", "sqc", "shop", "--cascade=orphan")
    world.create(target={"type": "example.com/token"})
    seen = world_module.condition(world.wait(lambda: reported(world, "TargetRefused"), "the report"), "RefreshFailing")
    assert "is of type 'Opaque' and spec.target.type is 'example.com/token'" in seen["message"]
    assert world.token_requests() == 1
    world.kubectl("delete", "secret", "shop")
    world.wait_ready()


def reported(world: World, reason: str) -> Any:
    found = world.find("sqc", "shop")
    return found if world_module.condition(found, "RefreshFailing").get("reason") == reason else None


def test_a_squidexclient_that_is_made_again_at_once_does_not_adopt_what_is_about_to_go(world: World) -> None:
    world.ready()
    old, before = world.token(), world.get("secret", "shop")
    garbage_collection = world.sandbox.control_plane.controller_manager
    garbage_collection.pause()
    try:
        world.kubectl("delete", "sqc", "shop")
        world.create()
        seen = world.wait_condition("Ready", "False", "TargetNotOwned")
        assert "belongs to a SquidexClient that was deleted just now" in seen["message"]
        assert world.get("secret", "shop") == before
        assert world.token_requests() == 1
    finally:
        garbage_collection.resume()
    world.new_token(old)
    world.wait_ready()
    assert world.token_requests() == 2
