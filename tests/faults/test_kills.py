"""A short run of chaos.py; `make chaos` is the long one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.chaos import Chaos

if TYPE_CHECKING:
    from sandbox.environment import Sandbox

KILLS = 8
SEED = 20261124


def test_no_kill_leaves_a_bad_token_an_orphan_or_a_changed_foreign_secret(sandbox: Sandbox) -> None:
    report = Chaos(sandbox, SEED).run(KILLS)
    assert report.kills == KILLS
    assert report.published >= KILLS, report
