"""The curves of cost against number, as an SVG picture: a handful of lines, which no plotting library is worth."""

from __future__ import annotations

from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 300, 200, 46, 30, 36, 24


def growth(runs: list[dict[str, Any]]) -> str:
    """Cost per SquidexClient of a fill and of a restart, and of an idle minute, against their number."""
    counts = [run["count"] for run in runs]
    panels = [
        ("fill: CPU ms each", [run["fill"]["cpu_ms"] for run in runs], "#1f6feb"),
        ("restart: CPU ms each", [run["restart"]["cpu_seconds"] / run["count"] * 1000 for run in runs], "#8250df"),
        ("idle: CPU ms a minute each", [run["idle"]["cpu_percent"] * 600 / run["count"] for run in runs], "#1a7f37"),
        ("peak RSS: MiB", [run["fill"]["peak_rss_mib"] for run in runs], "#bc4c00"),
    ]
    step = WIDTH + GAP
    drawn = [
        _panel(index * step, title, counts, values, colour) for index, (title, values, colour) in enumerate(panels)
    ]
    size = f'width="{step * len(panels)}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" fill="#57606a">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>", ""])


def _panel(x: int, title: str, counts: list[int], values: list[float], colour: str) -> str:
    most, top = max(counts), max(values) * 1.25 or 1
    right, foot = x + WIDTH - 8, HEIGHT - BOTTOM
    points = [
        (x + LEFT + count / most * (right - x - LEFT), foot - value / top * (foot - TOP))
        for count, value in zip(counts, values, strict=True)
    ]
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    parts = [
        f'<text x="{x + LEFT}" y="{TOP - 12}" font-size="13" fill="#1f2328">{title}</text>',
        f'<path d="M{x + LEFT} {TOP}V{foot}H{right}" fill="none" stroke="#d0d7de"/>',
        f'<text x="{x + LEFT - 4}" y="{foot}" text-anchor="end">0</text>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
    ]
    for (px, py), count, value in zip(points, counts, values, strict=True):
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<text x="{px:.1f}" y="{py - 7:.1f}" text-anchor="middle">{value:.3g}</text>')
        if count >= most / 6:
            parts.append(f'<text x="{px:.1f}" y="{foot + 15}" text-anchor="middle">{count}</text>')
    return "\n".join(parts)
