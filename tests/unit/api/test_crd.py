"""The CRD, which is kept by hand, against the models that read it and the code that writes a status."""

from __future__ import annotations

import datetime as dt
import pathlib
import re
import typing
from typing import TYPE_CHECKING, Any

import annotated_types
import pydantic
import pytest
import yaml

from squidex_operator.api import names, reasons, resource
from squidex_operator.policy import conditions, credentials, observed
from tests.unit.policy import situation

if TYPE_CHECKING:
    from collections.abc import Iterator

CRD = yaml.safe_load(pathlib.Path("crds/squidexclients.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]
Schema = dict[str, Any]


def fields_of_crd(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field below a schema, by its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields_of_crd(field, f"{path}.{name}")


def model_of(field: pydantic.fields.FieldInfo) -> type[pydantic.BaseModel] | None:
    """The model that a field holds, where it holds one."""
    for kind in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            return kind
    return None


def fields_of_model(model: type[pydantic.BaseModel], path: str) -> Iterator[tuple[str, pydantic.fields.FieldInfo]]:
    """The same of a model."""
    for field in model.model_fields.values():
        yield f"{path}.{field.alias}", field
        if inner := model_of(field):
            yield from fields_of_model(inner, f"{path}.{field.alias}")


IN_CRD = dict(fields_of_crd(SCHEMA["spec"], "spec"))
IN_MODEL = dict(fields_of_model(resource.Spec, "spec"))


def test_the_names_are_those_that_the_code_uses() -> None:
    assert CRD["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"
    assert CRD["spec"]["group"] == names.GROUP
    assert (CRD["spec"]["names"]["kind"], CRD["spec"]["names"]["plural"]) == (names.KIND, names.PLURAL)
    assert [version["name"] for version in CRD["spec"]["versions"]] == [names.VERSION]
    assert VERSION["subresources"] == {"status": {}}


def test_the_crd_and_the_model_have_the_same_fields() -> None:
    assert IN_CRD.keys() == IN_MODEL.keys()


@pytest.mark.parametrize("path", IN_CRD)
def test_a_field_says_what_it_is_for(path: str) -> None:
    assert IN_CRD[path]["description"].endswith(".")


@pytest.mark.parametrize("path", IN_CRD)
def test_a_field_is_required_in_both_or_in_neither(path: str) -> None:
    parent, _, name = path.rpartition(".")
    schema = IN_CRD[parent] if parent != "spec" else SCHEMA["spec"]
    assert (name in schema.get("required", [])) is IN_MODEL[path].is_required()


@pytest.mark.parametrize("path", [path for path in IN_CRD if "enum" in IN_CRD[path]])
def test_a_choice_is_the_same_in_both(path: str) -> None:
    assert list(typing.get_args(IN_MODEL[path].annotation)) == IN_CRD[path]["enum"]


def test_every_choice_of_the_model_is_one_of_the_crd() -> None:
    choices = {path for path, field in IN_MODEL.items() if typing.get_origin(field.annotation) is typing.Literal}
    assert choices == {path for path, field in IN_CRD.items() if "enum" in field}


def bounds(field: pydantic.fields.FieldInfo) -> dict[str, object]:
    """The smallest and the largest value that a field of the model takes."""
    found: dict[str, object] = {}
    metadata = list(field.metadata)
    for kind in typing.get_args(field.annotation):
        for one in getattr(kind, "__metadata__", ()):
            metadata += getattr(one, "metadata", [one])
    for one in metadata:
        if isinstance(one, annotated_types.Ge):
            found["minimum"] = one.ge
        elif isinstance(one, annotated_types.Le):
            found["maximum"] = one.le
    return found


@pytest.mark.parametrize("path", [path for path in IN_CRD if IN_CRD[path]["type"] == "integer"])
def test_a_number_has_the_same_bounds_in_both(path: str) -> None:
    assert bounds(IN_MODEL[path]) == {key: IN_CRD[path][key] for key in ("minimum", "maximum") if key in IN_CRD[path]}


def with_defaults(schema: Schema, value: Any) -> Any:
    """What the API server makes of a value: defaults filled in."""
    if schema.get("type") != "object":
        return value
    filled = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name not in filled and "default" in field:
            filled[name] = field["default"]
        if name in filled:
            filled[name] = with_defaults(field, filled[name])
    return filled


MINIMAL: dict[str, Any] = {"credentialsSecretRef": {"name": "keys"}}
WITH_CA: dict[str, Any] = {**MINIMAL, "tls": {"caRef": {"kind": "Secret", "name": "ca"}}}


@pytest.mark.parametrize("raw", [MINIMAL, WITH_CA], ids=["minimal", "with a CA"])
def test_the_api_server_fills_in_what_the_model_would(raw: dict[str, Any]) -> None:
    filled = with_defaults(SCHEMA["spec"], raw)
    assert filled != raw
    assert resource.parse_spec(filled) == resource.parse_spec(raw)
    # Every default of the model that says something is one of the CRD.
    for path, field in IN_MODEL.items():
        plain = field.default
        if not field.is_required() and plain is not None and not isinstance(plain, pydantic.BaseModel):
            assert "default" in IN_CRD[path], path


RULES = [
    (path, rule)
    for path, field in [("", VERSION["schema"]["openAPIV3Schema"]), *IN_CRD.items()]
    for rule in field.get("x-kubernetes-validations", [])
]


@pytest.mark.parametrize(("path", "rule"), RULES, ids=[f"{path}: {rule['message'][:30]}" for path, rule in RULES])
def test_a_rule_has_a_message_to_act_on(path: str, rule: dict[str, str]) -> None:
    # The API server puts the field's path and the value in front of it.
    assert re.match(r"(must|is|set|plain http|the token) ", rule["message"] + " ")
    assert not rule["message"].endswith(".")


@pytest.mark.parametrize("path", ["spec.refresh.renewBefore", "spec.probe.interval"])
@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("72h", True),
        ("10m", True),
        ("1h30m", True),
        ("1.5h", True),
        ("2592000s", True),
        ("720h0m0s", True),
        ("3600000ms", True),
        ("99999h", True),
        ("100000h", False),
        ("1d", False),
        ("1w", False),
        ("-1h", False),
        ("1", False),
        ("", False),
        ("soon", False),
        ("1h ", False),
        (" 1h", False),
        ("1h30", False),
        (".5h", False),
        ("1.h", False),
        ("1e3s", False),
    ],
)
def test_the_model_reads_every_duration_that_the_crd_lets_in(path: str, text: str, right: bool) -> None:
    pattern = re.search(r"self\.matches\('([^']*)'\)", IN_CRD[path]["x-kubernetes-validations"][0]["rule"])
    assert pattern is not None
    assert bool(re.search(pattern[1], text)) is right
    # The same one in the rule that compares: of what is no duration there is one message, not two.
    assert pattern[1] in IN_CRD[path]["x-kubernetes-validations"][1]["rule"]
    if right:
        group, name = path.split(".")[1:]
        assert resource.parse_spec({**MINIMAL, group: {name: text}})


# The status.

OTHERWISE: list[dict[str, Any]] = [
    {},
    {"failure": situation.failure()},
    {"target": None, "credentials": observed.UNKNOWN},
    {"credentials": credentials.missing(resource.CredentialsSecretRef(name="keys"))},
    *({"probed": situation.probed(verdict)} for verdict in observed.Verdict),
]
STATUSES = [
    conditions.build(
        situation.NOW,
        situation.seen(**changes),
        refreshed=conditions.Refreshed(situation.NOW, reasons.Cause.EXPIRING),
    )
    for changes in OTHERWISE
]


def test_the_code_writes_every_field_of_the_status_and_no_other() -> None:
    written = set().union(*STATUSES)
    assert written == SCHEMA["status"]["properties"].keys()
    for name in ("target", "binding"):
        assert set(STATUSES[0][name]) == SCHEMA["status"]["properties"][name]["properties"].keys()


def test_the_code_writes_every_field_of_a_condition_and_no_other() -> None:
    item = SCHEMA["status"]["properties"]["conditions"]["items"]
    for one in STATUSES[0]["conditions"]:
        assert one.keys() == item["properties"].keys()
    assert set(item["required"]) < item["properties"].keys()


@pytest.mark.parametrize("status", STATUSES, ids=[str(number) for number in range(len(STATUSES))])
def test_what_is_written_fits_the_schema(status: dict[str, Any]) -> None:
    check(SCHEMA["status"], status)


def check(schema: Schema, value: Any) -> None:
    """The little of OpenAPI that the status uses."""
    if schema["type"] == "object":
        for name, inner in value.items():
            check(schema["properties"][name], inner)
        assert set(schema.get("required", [])) <= value.keys()
    elif schema["type"] == "array":
        for item in value:
            check(schema["items"], item)
        keys = [tuple(item[key] for key in schema["x-kubernetes-list-map-keys"]) for item in value]
        assert len(keys) == len(set(keys))
    elif schema["type"] == "integer":
        assert type(value) is int
        assert value >= schema.get("minimum", value)
    else:
        assert type(value) is str
        assert value in schema.get("enum", [value])
        assert schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        if schema.get("format") == "date-time":
            assert dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


def test_the_description_names_all_types_of_conditions() -> None:
    text = SCHEMA["status"]["properties"]["conditions"]["items"]["properties"]["type"]["description"]
    assert set(re.findall(r"[A-Z][A-Za-z]+", text)) == {str(kind) for kind in reasons.ConditionType}


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_column_shows_a_field_that_there_is(column: dict[str, Any]) -> None:
    path = column["jsonPath"]
    if path == ".metadata.creationTimestamp":
        return
    if condition := re.fullmatch(r'\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.(\w+)', path):
        assert condition[1] in set(reasons.ConditionType)
        assert condition[2] in SCHEMA["status"]["properties"]["conditions"]["items"]["properties"]
        return
    assert path.lstrip(".") in {**IN_CRD, **dict(fields_of_crd(SCHEMA["status"], "status"))}


def test_a_selectable_field_is_one_of_the_spec() -> None:
    assert {field["jsonPath"].lstrip(".") for field in VERSION["selectableFields"]} <= IN_CRD.keys()
