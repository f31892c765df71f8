"""The docs say what the code does: generated pages are fresh, and what they name exists."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import tomllib
from typing import Any

import pytest
import yaml

from docs import generate_reference
from squidex_operator import settings
from squidex_operator.api import names, reasons, resource

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = {"node_modules", "build", "dist"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def pages() -> list[str]:
    """All Markdown of the repository, as paths below its root."""
    found: list[str] = []
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".") and name not in SKIPPED]
        found += [str((pathlib.Path(folder) / name).relative_to(ROOT)) for name in files if name.endswith(".md")]
    return sorted(found)


@functools.cache
def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", (ROOT / page).read_text())


@functools.cache
def anchors(page: str) -> set[str]:
    """What `#…` may follow a link to a page: its headings, as GitHub writes them."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in headings}


def links() -> list[tuple[str, str]]:
    """(page, where to) of every link that is not to another site."""
    found = [(page, target) for page in pages() for target in LINK.findall(prose(page))]
    return [(page, target) for page, target in found if not re.match(r"[a-z]+:", target)]


def clients() -> list[tuple[str, dict[str, Any]]]:
    """(page, object) of every SquidexClient that is shown somewhere."""
    found = []
    for page in pages():
        for _, language, text in FENCE.findall((ROOT / page).read_text()):
            if language == "yaml":
                found += [(page, body) for body in yaml.safe_load_all(text) if body and body.get("kind") == names.KIND]
    return found


def unknown_fields(body: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """Fields of an object that the CRD does not have."""
    found: list[str] = []
    for key, value in body.items():
        field = schema.get("properties", {}).get(key)
        if field is None:
            found.append(f"{path}.{key}")
        elif isinstance(value, dict):
            found += unknown_fields(value, field, f"{path}.{key}")
    return found


@functools.cache
def crd() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    parsed: dict[str, Any] = yaml.safe_load(generate_reference.CRD.read_text())
    return parsed


def test_the_reference_is_what_the_crd_gives() -> None:
    assert generate_reference.PAGE.read_text() == generate_reference.reference(crd()), generate_reference.__doc__


def test_the_readme_has_the_flags_that_the_help_prints() -> None:
    text = generate_reference.README.read_text()
    assert text == generate_reference.readme(text), generate_reference.__doc__


@pytest.mark.parametrize("name", settings.Settings.model_fields)
def test_the_readme_has_a_row_for_the_flag(name: str) -> None:
    assert f"| `--{name.replace('_', '-')}` |" in generate_reference.README.read_text()


@pytest.mark.parametrize("reason", reasons.Reason)
def test_troubleshooting_has_a_section_for_the_reason(reason: reasons.Reason) -> None:
    assert reason in HEADING.findall(prose("docs/troubleshooting.md"))


def test_troubleshooting_has_no_section_for_a_reason_that_there_is_not() -> None:
    headings = HEADING.findall(prose("docs/troubleshooting.md"))
    camel_case = [heading for heading in headings if re.fullmatch(r"([A-Z]+[a-z]+){2,}", heading)]
    assert set(camel_case) <= set(reasons.Reason)


def test_there_are_links_to_check() -> None:
    assert len(links()) > 30


@pytest.mark.parametrize(("page", "target"), links())
def test_the_link_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    place = (ROOT / page).parent / path if path else ROOT / page
    assert place.exists()
    if anchor:
        assert anchor in anchors(str(place.resolve().relative_to(ROOT)))


def test_there_are_squidexclients_to_check() -> None:
    assert "README.md" in [page for page, _ in clients()]


@pytest.mark.parametrize(("page", "body"), clients())
def test_the_squidexclient_can_be_used(page: str, body: dict[str, Any]) -> None:
    assert body["apiVersion"] == names.API_VERSION, page
    resource.parse_spec(body["spec"])
    root = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert unknown_fields({"spec": body["spec"]}, root) == [], page


def test_the_readme_names_every_metric() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))
    text = (ROOT / "README.md").read_text()
    missing = [name for name in re.findall(r'"(squidex_operator_[a-z_]+)"', sources) if f"`{name}" not in text]
    assert missing == []


def test_every_test_that_the_table_of_peers_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/peers.md").read_text())
    assert len(named) > 10
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in _text(ROOT / file)]
    assert missing == []


def _text(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def test_every_decision_is_listed() -> None:
    text = (ROOT / "docs/design.md").read_text()
    assert [path.name for path in (ROOT / "docs/adr").glob("*.md") if f"(adr/{path.name})" not in text] == []


@pytest.mark.parametrize("page", pages())
def test_the_page_names_no_place_of_one_machine(page: str) -> None:
    text = (ROOT / page).read_text()
    assert re.findall(r"/(?:work|root|home)/\S*|\b(?:docker|ghcr|quay|gcr)\.io\b", text) == []


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
