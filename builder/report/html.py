"""The report as one page: no network, no script, every text escaped, all numbers from the report's document."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from builder.report.labels import title as label_title
from builder.report.templates import template_environment

MARKS = ("circle", "square", "triangle", "diamond", "cross", "bar")
"""One shape a split: told apart without colour."""

NOTHING = "\u2013"

_OUTLINES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "triangle": ((0, -4.5), (4.5, 4), (-4.5, 4)),
    "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
    "square": ((-3.7, -3.7), (3.7, -3.7), (3.7, 3.7), (-3.7, 3.7)),
    "bar": ((-1.5, -5), (1.5, -5), (1.5, 5), (-1.5, 5)),
    "cross": (
        *((-4, -1), (-1, -1), (-1, -4), (1, -4), (1, -1), (4, -1)),
        *((4, 1), (1, 1), (1, 4), (-1, 4), (-1, 1), (-4, 1)),
    ),
}

PLOT_WIDTH = 240
PLOT_ROW = 14


def render(report: Mapping[str, Any]) -> str:
    """The whole page as HTML text.

    Parameters
    ----------
    report
        What ``assemble`` returned, or the same read back from ``report.json``.
    """
    environment = template_environment(Path(__file__).parent)
    environment.filters |= {
        "whole": _whole,
        "percent": _percent,
        "fixed": _fixed,
        "probability": _probability,
        "range": _range,
        "interval": _interval,
        "words": _words,
        "in_order": _in_order,
        "number_of": _number_of,
        "label_title": label_title,
        "json": _json,
        "png": _png,
    }
    order = [row["split"] for row in report["splits"]]
    page = environment.get_template("page.html.jinja").render(
        report=report,
        order=order,
        marks={split: MARKS[i % len(MARKS)] for i, split in enumerate(order)},
        mark=_mark_svg,
        plot=_interval_plot,
        widest=_widest,
    )
    return page if page.endswith("\n") else page + "\n"


def _interval_plot(cells: Mapping[str, Any], order: Sequence[str], top: float) -> Markup:
    """Share and interval of each split on one axis from 0 to ``top``: a line with the split's mark."""
    height = PLOT_ROW * len(order) + 2
    parts = [
        f'<svg class="plot" width="{PLOT_WIDTH}" height="{height}" viewBox="0 0 {PLOT_WIDTH} {height}" role="img">'
        f"<title>{escape(_plot_words(cells, order))}</title>"
        f'<line x1="4" y1="{height - 1}" x2="{PLOT_WIDTH - 4}" y2="{height - 1}" class="axis"/>'
    ]
    for i, split in enumerate(order):
        cell, y = cells[split], PLOT_ROW * i + PLOT_ROW / 2
        if cell["share"] is None:
            continue
        low, middle, high = (_x(cell[k], top) for k in ("low", "share", "high"))
        parts.append(f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" class="whisker"/>')
        parts.append(_mark(MARKS[i % len(MARKS)], middle, y))
    return Markup("".join(parts) + "</svg>")


def _x(share: float, top: float) -> float:
    return 6 + (PLOT_WIDTH - 12) * min(1.0, share / top if top else 0.0)


def _mark(kind: str, x: float, y: float) -> str:
    """One mark of radius 4."""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="mark {kind}"/>'
    text = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _OUTLINES[kind])
    return f'<polygon points="{text}" class="mark {kind}"/>'


def _mark_svg(kind: str) -> Markup:
    return Markup(f'<svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">{_mark(kind, 6, 6)}</svg>')


def _plot_words(cells: Mapping[str, Any], order: Sequence[str]) -> str:
    return "; ".join(f"{s}: {_percent(cells[s]['share'])} {_range(cells[s])}" for s in order)


def _widest(levels: Sequence[Mapping[str, Any]], order: Sequence[str]) -> float:
    """Top of the axis: the largest upper limit, on the next tenth."""
    highs = [level["cells"][s]["high"] for level in levels for s in order]
    top = max((h for h in highs if h is not None), default=1.0)
    return min(1.0, int(top * 10 + 0.999999) / 10) or 0.1


def _whole(value: float | None) -> str:
    return "masked" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _number_of(value: int | None, things: str) -> str:
    """``1 person``, ``2 persons``: ``things`` is the plural."""
    singular = {"series": "series", "studies": "study"}.get(things, things.removesuffix("s"))
    return f"{_whole(value)} {singular if value == 1 else things}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def _fixed(value: float | None, digits: int = 2) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def _probability(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _range(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None:
        return ""
    return f"({100 * cell['low']:.1f}\u2013{100 * cell['high']:.1f})"


def _interval(figure: Mapping[str, Any] | None) -> str:
    """A figure with its interval; a dash where it is not defined."""
    if not figure or figure.get("value") is None:
        return NOTHING
    if figure["low"] is None:
        return _fixed(figure["value"])
    return f"{_fixed(figure['value'])} ({_fixed(figure['low'])} to {_fixed(figure['high'])})"


_ORDER = (
    *("files", "file", "instances", "instance", "series", "studies", "study", "persons", "person", "cases", "samples"),
    *("found", "used", "label", "quarantined", "excluded", "duplicate", "train", "validation", "test"),
)
"""Levels, statuses and splits as they are read; stored JSON has its keys in alphabetical order."""


def _in_order(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Items of a mapping, known names first and in their usual order, others by name."""
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(values.items(), key=lambda item: (known.get(item[0], len(known)), item[0]))


def _words(value: str) -> str:
    """A column's or reason's name in words."""
    return value.replace("_", " ")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _png(value: str) -> str:
    """Only inline PNG pictures: nothing on the page may load from elsewhere."""
    return value if value.startswith("data:image/png;base64,") else ""
