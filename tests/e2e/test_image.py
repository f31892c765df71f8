"""The image, as far as it can be judged without building it: tests/pods/test_image.py judges the one that was built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import squidex_operator
from sandbox.operator_process import Operator
from sandbox.places import REPOSITORY

if TYPE_CHECKING:
    from sandbox.environment import Sandbox
    from tests.e2e.world import World

DOCKERFILE = REPOSITORY / "Dockerfile"


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_start_from_the_same_exact_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", bases[0])


def test_the_label_has_the_packages_version() -> None:
    labels = re.findall(r'image\.version="([^"]*)"', DOCKERFILE.read_text())
    assert labels == [squidex_operator.__version__]


def test_the_locked_build_requirements_are_those_of_the_project() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    lines = (REPOSITORY / "requirements" / "build.in").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == wanted
    locked = (REPOSITORY / "requirements" / "build.txt").read_text()
    assert all(f"{requirement} \\\n    --hash=" in locked for requirement in wanted)


def test_the_operator_needs_no_name_of_its_user(empty_world: World, sandbox: Sandbox, tmp_path: Path) -> None:
    """The image's user is a number without a name: once, Kopf asked for it, and every container ended at its start."""
    for other in sandbox.operators:
        other.stop()  # it would do the job
    nameless = "import getpass\ndef getuser():\n    raise OSError('no name')\ngetpass.getuser = getuser\n"
    (tmp_path / "sitecustomize.py").write_text(nameless)
    operator = Operator(
        sandbox.home,
        kubeconfig=sandbox.operator_kubeconfig(),
        name="nameless",
        namespaces=[empty_world.namespace],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY / "operator")])},
    )
    try:
        operator.start()
        empty_world.ready()
        # By the watch, which is what Kopf has to do here: the first list was before it.
        empty_world.create("second", target={"name": "second-token"})
        empty_world.wait_ready("second")
        assert operator.stop() == 0
    finally:
        operator.kill()
