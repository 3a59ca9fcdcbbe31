"""Render the report as one page without network access or scripts; all text is escaped, all numbers come from JSON."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from builder.pages import template_environment
from builder.report import association, shift, wording
from builder.report.brief import points
from builder.report.labels import title as label_title
from builder.report.plots import histogram
from builder.report.power import too_few

if TYPE_CHECKING:
    from jinja2 import Template

MARKS = ("circle", "square", "triangle", "diamond", "cross", "bar")
"""One shape per split, so that splits can be told apart without colour."""

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

MOST_ROWS = 20
"""Most levels of a Table 1 column that are shown unfolded."""

PLOT_WIDTH = 220
PLOT_ROW = 14


def render(report: Mapping[str, Any]) -> str:
    """Return the whole page as HTML text.

    Parameters
    ----------
    report
        The result of ``assemble``, or the same document read back from ``report.json``.
    """
    order = [row["split"] for row in report["splits"]]
    page = page_template().render(
        report=report,
        order=order,
        marks={split: MARKS[i % len(MARKS)] for i, split in enumerate(order)},
        mark=_mark_svg,
        points=points(report),
        plot=_interval_plot,
        histogram=histogram,
        widest=_widest,
    )
    return page if page.endswith("\n") else page + "\n"


@cache
def page_template() -> "Template":
    """Return the template of the page. Compiling it takes longer than rendering a page, so a process does it once."""
    environment = template_environment(Path(__file__).parent)
    environment.filters |= {
        "whole": wording.whole,
        "percent": wording.percent,
        "fixed": wording.fixed,
        "probability": wording.probability,
        "range": wording.range_of,
        "interval": wording.interval,
        "words": wording.words,
        "in_order": wording.in_order,
        "short": wording.short,
        "stated": wording.stated,
        "too_few": too_few,
        "stayed_whole": _stayed_whole,
        "upright": _upright,
        "number_of": wording.number_of,
        "label_title": label_title,
        "json": _json,
        "png": _png,
    }
    environment.tests |= {
        "folded": _folded,
        "single": lambda values: len(values) == 1,
        "strong": association.is_worth_a_look,
        "far_apart": shift.is_worth_a_look,
    }
    return environment.get_template("page.html.jinja")


def _interval_plot(cells: Mapping[str, Any], order: Sequence[str], top: float) -> Markup:
    """Draw the share and interval of each split on one axis from 0 to ``top``, as a line with the split's mark."""
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
    """Draw one mark of radius 4."""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="mark {kind}"/>'
    text = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _OUTLINES[kind])
    return f'<polygon points="{text}" class="mark {kind}"/>'


def _mark_svg(kind: str) -> Markup:
    return Markup(f'<svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">{_mark(kind, 6, 6)}</svg>')


def _plot_words(cells: Mapping[str, Any], order: Sequence[str]) -> str:
    return "; ".join(f"{s}: {wording.percent(cells[s]['share'])} {wording.range_of(cells[s])}" for s in order)


def _widest(levels: Sequence[Mapping[str, Any]], order: Sequence[str]) -> float:
    """Return the top of the axis: the largest upper limit, rounded up to a tenth."""
    highs = [level["cells"][s]["high"] for level in levels for s in order]
    top = max((h for h in highs if h is not None), default=1.0)
    return min(1.0, int(top * 10 + 0.999999) / 10) or 0.1


def _folded(entry: Mapping[str, Any]) -> bool:
    """Return whether a column of Table 1 has so many levels that it is folded until the reader opens it."""
    return len(entry.get("levels", ())) > MOST_ROWS


def _stayed_whole(attrition: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether every person in every group kept at least one series."""
    rows = [row for entry in attrition for row in entry["levels"]]
    return all(row["stayed"]["count"] is not None and row["stayed"]["count"] == row["candidates"] for row in rows)


def _upright(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange two crossed groups so that the one with more levels runs down the page, which keeps the table narrow."""
    (down, across), cells = entry["levels"], entry["cells"]
    grid = [cells[i * len(across) : (i + 1) * len(across)] for i in range(len(down))]
    columns = list(entry["columns"])
    if len(across) > len(down):
        columns, down, across = columns[::-1], across, down
        grid = [list(column) for column in zip(*grid, strict=True)]
    return {"columns": columns, "across": across, "rows": list(zip(down, grid, strict=True))}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def _png(value: str) -> str:
    """Return the picture if it is an inline PNG, else nothing: the page may not load anything from elsewhere."""
    return value if value.startswith("data:image/png;base64,") else ""
