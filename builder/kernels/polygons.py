"""Polygon kernels under the even-odd rule: fill by scan lines, and test points against stacks of prisms."""

from typing import Any

import numpy as np

from builder.model.compiled import compiled


@compiled
def fill_spans(edges: Any, lines: int, out: Any) -> None:
    """Add the share of each pixel that lies inside the polygons of ``edges`` (n, 4) to ``out`` (row, column)."""
    rows, columns = out.shape
    first = max(0, int(np.floor(min(edges[:, 0].min(), edges[:, 2].min()) + 0.5)))
    last = min(rows - 1, int(np.floor(max(edges[:, 0].max(), edges[:, 2].max()) + 0.5)))
    crossings = np.empty(len(edges), dtype=np.float64)
    for row in range(first, last + 1):
        for line in range(lines):
            y = row - 0.5 + (line + 0.5) / lines
            found = 0
            for e in range(len(edges)):
                a, b = edges[e, 0], edges[e, 2]
                if (a <= y) != (b <= y):
                    crossings[found] = edges[e, 1] + (y - a) * (edges[e, 3] - edges[e, 1]) / (b - a)
                    found += 1
            crossings[:found].sort()
            for pair in range(0, found - 1, 2):
                left, right = crossings[pair], crossings[pair + 1]
                if lines == 1:
                    for column in range(max(0, int(np.ceil(left))), min(columns, int(np.ceil(right)))):
                        out[row, column] = 1.0
                else:
                    begin = max(0, int(np.floor(left + 0.5)))
                    end = min(columns - 1, int(np.floor(right + 0.5)))
                    for column in range(begin, end + 1):
                        part = min(right, column + 0.5) - max(left, column - 0.5)
                        if part > 0:
                            out[row, column] += part / lines


@compiled
def find_in_prisms(points: Any, edges: Any, starts: Any, slabs: Any, out: Any) -> None:
    """Set ``out`` for each point (in-plane a, b, offset) inside a prism of ``slabs``, whose edges are at ``starts``."""
    for i in range(len(points)):
        u, v, w = points[i, 0], points[i, 1], points[i, 2]
        for p in range(len(slabs)):
            if slabs[p, 0] <= w < slabs[p, 1]:
                inside = False
                for e in range(starts[p], starts[p + 1]):
                    a, b = edges[e, 0], edges[e, 2]
                    if (a <= u) != (b <= u) and v < edges[e, 1] + (u - a) * (edges[e, 3] - edges[e, 1]) / (b - a):
                        inside = not inside
                if inside:
                    out[i] = True
                    break
