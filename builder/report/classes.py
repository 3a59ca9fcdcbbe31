"""Turn the class labels of samples, which the index holds as lists of names and values, into columns."""

import pyarrow as pa

MOST_CLASSES = 50
"""Most findings that become columns, taken in alphabetical order."""


def with_classes(index: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Add one text column per finding (``<label>/<finding>``) to the index; return it and the names of the columns."""
    if not {"class_names", "class_values"} <= set(index.column_names):
        return index, ()
    names = index["class_names"].to_pylist()
    found = sorted({name for row in names for name in row or ()} - set(index.column_names))[:MOST_CLASSES]
    if not found:
        return index, ()
    rows = [
        dict(zip(n or (), v or (), strict=True)) for n, v in zip(names, index["class_values"].to_pylist(), strict=True)
    ]
    for name in found:
        index = index.append_column(name, pa.array([row.get(name) for row in rows], pa.string()))
    return index, tuple(found)
