"""Condition types, reasons and causes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from squidex_operator.api import reasons

if TYPE_CHECKING:
    import enum


@pytest.mark.parametrize("words", [reasons.ConditionType, reasons.Reason, reasons.Cause], ids=lambda e: e.__name__)
def test_each_word_is_camel_case_as_kubernetes_asks_and_is_what_its_name_says(words: type[enum.StrEnum]) -> None:
    # metav1.Condition allows more; events and alerts are easier to read with less.
    for word in words:
        assert re.fullmatch(r"([A-Z]+[a-z]+|URL|TLS|CA)+", word.value)
        assert word.value.lower() == word.name.replace("_", "").lower()
