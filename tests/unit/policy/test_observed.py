"""What is known when a decision is taken."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.unit.policy import situation

if TYPE_CHECKING:
    from squidex_operator.policy import observed


@pytest.mark.parametrize(
    ("client", "name"),
    [
        pytest.param(situation.client(), "shop", id="the SquidexClient's own"),
        pytest.param(situation.client(spec=situation.spec(target={"name": "token"})), "token", id="what the spec says"),
        pytest.param(situation.client(spec=None, spec_error="?"), "shop", id="its own, where the spec cannot be read"),
    ],
)
def test_the_name_of_a_target(client: observed.Client, name: str) -> None:
    assert client.target_name == name


def test_an_observation_cannot_be_changed() -> None:
    for thing in (situation.seen(), situation.client(), situation.target(), situation.pending()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, dataclasses.fields(thing)[0].name, "other")


def test_no_token_is_in_an_observation() -> None:
    assert situation.jwt() not in repr(situation.seen(pending=situation.pending()))
