"""Turn the class labels of samples that the index holds only as lists of names and values into columns."""

import pyarrow as pa

from builder.model.classes import class_name, is_class

MOST_CLASSES = 50
"""Most findings that become columns, taken in alphabetical order."""


def with_classes(index: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Add a text column ``<label>/<finding>`` for each finding without a column; return the index and the names."""
    if not {"class_names", "class_values"} <= set(index.column_names):
        return index, ()
    names = index["class_names"].to_pylist()
    columns = {field.name for field in index.schema if is_class(field)}
    found = sorted(
        {name for row in names for name in row or () if class_name(*_parts(name)) not in columns}
        - set(index.column_names)
    )[:MOST_CLASSES]
    if not found:
        return index, ()
    rows = [
        dict(zip(n or (), v or (), strict=True)) for n, v in zip(names, index["class_values"].to_pylist(), strict=True)
    ]
    for name in found:
        index = index.append_column(name, pa.array([row.get(name) for row in rows], pa.string()))
    return index, tuple(found)


def _parts(name: str) -> tuple[str, str]:
    label, _, finding = name.partition("/")
    return label, finding
