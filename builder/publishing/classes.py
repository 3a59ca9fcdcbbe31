"""Give the class labels and texts of an index that are known only after the build their columns."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from builder.labels import class_fields
from builder.labels.report import Report
from builder.labels.text import TEXTS
from builder.model.classes import class_field, class_name, is_class, levels_of, with_fields
from builder.spec import DatasetSpec

REPORTED = ("absent", "negative", "uncertain", "positive")
"""Levels of a finding in a report, as a person's value is chosen by them."""


def with_class_columns(index: pa.Table, planned: pa.Schema, spec: DatasetSpec) -> pa.Table:
    """Return the index with a typed column for each finding of a report or of a consensus on classes, and each text.

    Parameters
    ----------
    planned
        The cohort's columns, which state the levels of the class labels that the plan read.
    """
    index = with_fields(index, {field.name: field for field in planned if is_class(field)})
    names, values = (index[name].to_pylist() for name in ("class_names", "class_values"))
    found = {name for row in names for name in row or ()}
    rows = [dict(zip(n or (), v or (), strict=True)) for n, v in zip(names, values, strict=True)]
    for label in (name for name, reader in spec.labels.items() if isinstance(reader, TEXTS)):
        texts = [dict(zip(n or (), t or (), strict=True)) for n, t in _texts(index)]
        index = index.append_column(f"text.{label}", pa.array([t.get(label) for t in texts], pa.string()))
    for name, field in _late(spec, sorted(found)):
        if field.name not in index.column_names:
            cells = [_parsed(row.get(name), field.type) for row in rows]
            index = index.append_column(field, pa.array(cells, field.type))
    return index


def _texts(index: pa.Table) -> Iterator[tuple[list[str] | None, list[str] | None]]:
    yield from zip(index["text_names"].to_pylist(), index["texts"].to_pylist(), strict=True)


def _late(spec: DatasetSpec, names: list[str]) -> Iterator[tuple[str, pa.Field]]:
    """Yield the names of such findings with their columns."""
    planned = {field.name: field for field in class_fields(spec.labels)}
    for name in names:
        label, _, finding = name.partition("/")
        block = spec.consensus.get(label)
        if block is not None:
            like = [planned[c] for c in (class_name(member, finding) for member in block.labels) if c in planned]
            kind, levels = (like[0].type, levels_of(like[0])) if like else (pa.string(), REPORTED)
            yield name, class_field(label, finding, kind, levels)
        elif isinstance(spec.labels.get(label), Report):
            yield name, class_field(label, finding, pa.string(), REPORTED)


def _parsed(text: str | None, kind: pa.DataType) -> Any:
    if text is None or pa.types.is_string(kind):
        return text
    return text == "true" if pa.types.is_boolean(kind) else float(text)
