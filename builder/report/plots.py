"""Small pictures of numbers as SVG, for a page without scripts."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from builder.report import wording

WIDTH, HEIGHT, MARGIN = 220, 74, 4


def histogram(entry: Mapping[str, Any]) -> Markup:
    """Draw a histogram: an area for each bin, so that bins of unlike width can be compared."""
    edges: Sequence[float] = entry["edges"]
    counts: Sequence[int] = entry["counts"]
    widths = [high - low for low, high in pairwise(edges)]
    heights = [count / width for count, width in zip(counts, widths, strict=True)]
    top, span, floor = max(heights), edges[-1] - edges[0], HEIGHT - 16
    parts = [
        f'<svg class="histogram" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(in_words(entry))}</title>"
    ]
    for low, width, height in zip(edges, widths, heights, strict=False):
        x = MARGIN + (low - edges[0]) / span * (WIDTH - 2 * MARGIN)
        tall = height / top * (floor - 4)
        broad = max(1.0, width / span * (WIDTH - 2 * MARGIN) - 1)
        parts.append(f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{broad:.1f}" height="{tall:.1f}" class="bin"/>')
    parts.append(f'<line x1="{MARGIN}" y1="{floor}" x2="{WIDTH - MARGIN}" y2="{floor}" class="axis"/>')
    for x, anchor, value in ((MARGIN, "start", edges[0]), (WIDTH - MARGIN, "end", edges[-1])):
        parts.append(f'<text x="{x}" y="{HEIGHT - 3}" text-anchor="{anchor}">{escape(_end(entry, value))}</text>')
    return Markup("".join(parts) + "</svg>")


def in_words(entry: Mapping[str, Any]) -> str:
    """Return the bins that hold something in words, for who does not see the picture."""
    edges = entry["edges"]
    bins = zip(edges, edges[1:], entry["counts"], strict=False)
    return "; ".join(f"{low:g} to {_end(entry, high)}: {count}" for low, high, count in bins if count)


def _end(entry: Mapping[str, Any], value: float) -> str:
    """Write an edge; the last one of ages has no upper end."""
    is_open = entry["quantity"] == "age_years" and value > 90
    return "90 and above" if is_open else wording.short(value)
