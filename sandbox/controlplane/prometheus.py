"""Reads single metrics out of the megabytes of the API server's /metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One line of the exposition format."""

    name: str
    labels: Mapping[str, str] = field(hash=False)
    value: float


def samples(text: str, name: str) -> Iterator[Sample]:
    """The samples of one metric (for a histogram name its `_count`, `_sum` or `_bucket`)."""
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " "):
            labels, _, value = line[len(name) :].rpartition(" ")
            yield Sample(name, dict(LABEL.findall(labels)), float(value))
