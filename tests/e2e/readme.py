"""The commands of the README, as somebody pastes them into a shell, from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "README.md"

ELSEWHERE = {
    "make demo": ".ci/run runs it",
    "make test": "this is it",
    "export SQUIDEX_URL=https://cloud.squidex.io SQUIDEX_CLIENT_ID=shop:default": "in a cluster of one's own",
    "read -rsp 'The secret of the client: ' SQUIDEX_CLIENT_SECRET": "in a cluster of one's own",
    "docker build -t squidex-operator:0.1.0 .": "tests/e2e/test_image.py, sandbox/images/ build it",
    "kind load docker-image squidex-operator:0.1.0": "takes kind",
    "kubectl apply -k manifests/namespaced": "a second operator; tests/e2e/test_manifests.py",
}
"""Lines that are not run, and why."""

NO_NODE = {"kubectl -n squidex-operator rollout status deployment/squidex-operator": "tests/pods/test_readme.py"}
"""What `make sandbox` cannot do, as no pod runs there."""


def blocks() -> list[str]:
    """All commands, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def commands(line: str) -> str:
    """A line without its comment."""
    return re.sub(r"\s+# .*", "", line).strip()


def run(skipped: Mapping[str, str], *, env: Mapping[str, str]) -> list[str]:
    """Paste the blocks one after the other into one shell; what each of them has put out.

    Args:
        skipped: lines that are left out, and why.
        env: what the shell has on top of its user's variables.
    """
    kept = [
        "".join(line for line in block.splitlines(keepends=True) if commands(line) not in skipped) for block in blocks()
    ]
    mark = "=== a block ends here ==="
    script = "set -euo pipefail\n" + "".join(f"{block}echo '{mark}'\n" for block in kept)
    inherited = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    outputs = done.stdout.split(f"{mark}\n")
    assert done.returncode == 0, f"block {len(outputs)}:\n{kept[len(outputs) - 1]}\n{outputs[-1]}\n{done.stderr}"
    return outputs
