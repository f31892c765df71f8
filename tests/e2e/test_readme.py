"""The README from top to bottom on `make sandbox`: every command as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from sandbox import binaries
from tests.e2e import readme, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own_state(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A sandbox for this test alone: whoever runs the tests may have one in the background."""
    if subprocess.run(
        ["make", "--question", ".venv/.ready"], cwd=readme.ROOT, capture_output=True, check=False
    ).returncode:
        pytest.skip(".venv is not what the Makefile would install: make would install it anew, below these tests")
    binaries.find()
    env = {
        "XDG_STATE_HOME": str(tmp_path),
        "HOME": os.environ.get("HOME", str(tmp_path)),
        "KUBECACHEDIR": str(tmp_path),
    }
    yield env
    ended = subprocess.run(
        ["make", "--silent", "sandbox-down"],
        cwd=readme.ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "are gone" in ended.stdout


def test_every_command_of_the_readme_works_as_it_stands(own_state: dict[str, str]) -> None:
    outputs = readme.run({**readme.ELSEWHERE, **readme.NO_NODE}, env=own_state)
    (token,) = (text for text in outputs if "condition met\nNAME" in text)
    rows = [troubles.normalised(line) for line in token.splitlines()[-2:]]
    # What the README shows of `kubectl get sqc` is what it says.
    shown = re.findall(
        r"^\$ kubectl get (?:sqc|squidexclients)\n(NAME.*)\n(shop-token.*)$", readme.PAGE.read_text(), re.MULTILINE
    )
    assert len(shown) >= 2
    for table in shown:
        assert [troubles.normalised(line) for line in table] == rows
    assert any('"name":"sandbox"' in text for text in outputs)
    (broken,) = (text for text in outputs if "Events:" in text)
    assert "Ready\n" in broken
    assert "InvalidClient" in broken


def test_what_is_not_run_is_in_the_readme() -> None:
    lines = {readme.commands(line) for block in readme.blocks() for line in block.splitlines()}
    assert readme.ELSEWHERE.keys() | readme.NO_NODE.keys() <= lines


def test_no_command_of_the_readme_hides_from_this_test() -> None:
    text = re.sub(r"^```.*?^```$", "", readme.PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4,}\S.*", text, re.MULTILINE) == []
    assert set(re.findall(r"^```(\w+)$", readme.PAGE.read_text(), re.MULTILINE)) == {"sh", "yaml", "python", "js"}
