# noqa: INP001 - a script, not a package
"""Write docs/reference/squidexclient.md from the CRD, and the README's table of flags from `squidex-operator --help`.

    python docs/generate_reference.py

tests/unit/test_docs.py fails while one of them is out of date.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any
from unittest import mock

import yaml

from squidex_operator import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRD = ROOT / "crds" / "squidexclients.yaml"
PAGE = ROOT / "docs" / "reference" / "squidexclient.md"
README = ROOT / "README.md"

FLAGS_BEGIN = "<!-- flags: written by docs/generate_reference.py -->"
FLAGS_END = "<!-- end of flags -->"

_HEAD = """\
# SquidexClient: all fields

Written by `docs/generate_reference.py` from `crds/squidexclients.yaml`. Edit the CRD, not this page.

| | |
|---|---|
| group, version | `{group}/{version}` |
| kind | `{kind}`, namespaced |
| with kubectl | `{plural}`, `{singular}`, short `{short}`; `kubectl get {category}` lists them too |
| field selectors | {selectors} |

Everything that a SquidexClient refers to lives in its own namespace. The API server checks every field when the object is
applied and answers with the messages below. `kubectl apply` refuses unknown fields as well.
"""

Schema = dict[str, Any]


def reference(crd: Schema) -> str:
    """The reference page of a CustomResourceDefinition with one version."""
    spec, version = crd["spec"], crd["spec"]["versions"][0]
    names, root = spec["names"], version["schema"]["openAPIV3Schema"]
    head = _HEAD.format(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names["singular"],
        short=", ".join(names["shortNames"]),
        category=", ".join(names["categories"]),
        selectors=", ".join(f"`{field['jsonPath'][1:]}`" for field in version.get("selectableFields", [])),
    )
    parts = [head, _text(root["description"]), ""]
    parts += ["## spec", "", *_table("spec", root["properties"]["spec"]), ""]
    if rules := _rules(root):
        parts += ["Refused for the object as a whole:", "", *(f"- {message}" for message in rules), ""]
    parts += ["## status", "", _text(root["properties"]["status"]["description"]), ""]
    parts += [*_table("status", root["properties"]["status"]), ""]
    parts += ["## Columns of kubectl get", "", "| column | from | shown | what |", "|---|---|---|---|"]
    for column in version["additionalPrinterColumns"]:
        shown = "with `-o wide`" if column.get("priority") else "always"
        path = column["jsonPath"].replace("|", "\\|")
        parts.append(f"| {column['name']} | `{path[1:]}` | {shown} | {_text(column.get('description', ''))} |")
    return "\n".join(parts) + "\n"


def _table(path: str, schema: Schema) -> list[str]:
    return ["| field | type | default | what |", "|---|---|---|---|", *_rows(path, schema)]


def _rows(path: str, schema: Schema) -> Iterator[str]:
    required = set(schema.get("required", []))
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        meaning = [_text(field.get("description", ""))]
        meaning += [f"Refused: {message}." for message in _rules(field)]
        default = "required" if name in required else _default(field)
        yield f"| `{where}` | {_type(field)} | {default} | {'<br>'.join(part for part in meaning if part)} |"
        yield from _rows(where, field)
        if "items" in field:
            yield from _rows(f"{where}[]", field["items"])


def _default(field: Schema) -> str:
    default = field.get("default")
    return "" if default is None or default == {} else f"`{default}`"


def _type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    kind = field["type"]
    if kind == "array":
        return f"list of {field['items']['type']}s"
    if kind == "integer" and "maximum" in field:
        return f"integer, {field['minimum']} to {field['maximum']}"
    if field.get("format") == "date-time":
        return "time"
    if "maxLength" in field:
        return f"{kind}, at most {field['maxLength']} characters"
    return str(kind)


def _rules(schema: Schema) -> list[str]:
    return [_text(rule["message"]).removesuffix(".") for rule in schema.get("x-kubernetes-validations", [])]


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def flags() -> str:
    """The table of the operator's flags, read from the help that the operator prints."""
    rows = ["| flag | default | what |", "|---|---|---|"]
    option = re.compile(r"^  (--[a-z-]+) [A-Z_]+ +(.+?)(?: \(default: (.*)\))?$")
    # Behind a long flag, argparse puts the text on a line of its own.
    for line in re.sub(r"\n {8,}", "  ", _help()).splitlines():
        if found := option.match(line):
            flag, meaning, default = found.groups()
            shown = f"`{default}`" if default else ""
            rows.append(f"| `{flag}` | {shown} | {_text(meaning)} |")
    return "\n".join(rows) + "\n"


def _help() -> str:
    printed = io.StringIO()
    # One line for each flag, however wide the terminal is.
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "500"}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        settings.parse(["--help"])
    return printed.getvalue()


def readme(text: str) -> str:
    """The README with a fresh table of flags."""
    before, _, rest = text.partition(FLAGS_BEGIN)
    _, _, after = rest.partition(FLAGS_END)
    return f"{before}{FLAGS_BEGIN}\n{flags()}{FLAGS_END}{after}"


def main() -> None:
    """Write both."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(reference(yaml.safe_load(CRD.read_text())))
    README.write_text(readme(README.read_text()))


if __name__ == "__main__":
    main()
