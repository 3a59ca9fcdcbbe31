"""The columns that a cohort has: by these, strata, hold-outs, rules and report groups may name them."""

import contextlib
from collections.abc import Iterable

import pyarrow as pa

from builder.clinical import ClinicalTable
from builder.clinical import schema as clinical_schema
from builder.deid import RETAINABLE
from builder.errors import SpecError
from builder.model.expression import compile as compile_expression
from builder.model.tables import CHOICE, SERIES


def columns_of_images(columns: pa.Schema, partners: Iterable[str]) -> pa.Schema:
    """Return columns with those of a case's other images: ``NAME.column``, and ``present.NAME``."""
    fields = {field.name: field for field in columns}
    for name in partners:
        fields.setdefault(f"present.{name}", pa.field(f"present.{name}", pa.bool_()))
        for field in columns:
            if "." not in field.name:
                fields.setdefault(f"{name}.{field.name}", field.with_name(f"{name}.{field.name}"))
    return pa.schema(list(fields.values()))


def named_columns(expressions: Iterable[str], columns: pa.Schema) -> list[str]:
    """Return the columns that expressions read; one that cannot be read is reported where it is applied."""
    found: list[str] = []
    for text in expressions:
        with contextlib.suppress(SpecError):
            found += compile_expression(text, columns).columns
    return found


def columns_of(
    tables: Iterable[ClinicalTable], *, labelled: bool, classes: Iterable[pa.Field] = (), published: bool = False
) -> pa.Schema:
    """Return the columns of a cohort with these clinical tables and class labels, with or without labels.

    With ``published``, leave out those that may not cross into a dataset, which strata, hold-outs and report groups
    therefore cannot name. A clinical column goes before a header's of the same name.
    """
    fields = {field.name: field for field in SERIES}
    for table in tables:
        for field in list(clinical_schema(table))[1:]:
            fields.setdefault(field.name, field)
    if labelled:
        fields["label_status"] = pa.field("label_status", pa.string())
    fields |= {field.name: field for field in classes}
    for field in CHOICE:
        if not published or field.name in RETAINABLE:
            fields.setdefault(field.name, field)
    return pa.schema(list(fields.values()))
