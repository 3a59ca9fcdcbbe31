"""Columns and expressions that a spec names, checked against what its sources and tables will have.

The check looks at the document rather than at the model, so that it also answers when another block is not valid.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from builder.clinical import ClinicalTable
from builder.errors import SpecError
from builder.model.expression import compile as compile_expression
from builder.spec import centre_faults, columns_of, field_faults, retain_faults
from builder.specfile.positions import Path
from builder.split import TRUE_DATE


@dataclass(frozen=True)
class _Columns:
    """What a cohort will have: columns of known type, and names declared in tables that are not valid yet."""

    schema: pa.Schema
    dated: tuple[str, ...]
    doubtful: frozenset[str]

    def has(self, name: str) -> bool:
        return name in self.schema.names or name in self.doubtful


def column_faults(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Expressions that do not compile, and columns that nothing declares, each with its place in the document."""
    columns = _columns(document)
    for place, text in _expressions(document):
        if not columns.doubtful & set(re.findall(r"\w+", text)):
            try:
                compile_expression(text, columns.schema)
            except SpecError as error:
                yield place, f"{'.'.join(map(str, place))}: {error}"
    for place, column in _named(document):
        if not columns.has(column):
            near = difflib.get_close_matches(column, columns.schema.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ", expected a column of SERIES or of a clinical table"
            yield place, f"{'.'.join(map(str, place))}: found the unknown column {column!r}{hint}"
    yield from _references(document, columns)


def _columns(document: Mapping[str, Any]) -> _Columns:
    tables: list[ClinicalTable] = []
    doubtful: set[str] = set()
    adapter = TypeAdapter(ClinicalTable)
    for block in _list(document.get("clinical")):
        try:
            tables.append(adapter.validate_python(block))
        except ValidationError:
            declared = _map(_map(block).get("columns"))
            doubtful |= {*map(str, declared), *map(str, _map(_map(block).get("events")))}
    schema = columns_of(tables, labelled=bool(_map(document.get("labels"))))
    return _Columns(schema, tuple(name for table in tables for name in table.dated), frozenset(doubtful))


def _references(document: Mapping[str, Any], columns: _Columns) -> Iterator[tuple[Path, str]]:
    """What ``DatasetSpec`` says of names of other blocks, which it only checks once every block is valid."""
    deid, samples, shards = (_map(document.get(name)) for name in ("deid", "samples", "shards"))
    kept = [name for name in _list(deid.get("retain")) if isinstance(name, str) and name not in columns.doubtful]
    yield from ((("deid", "retain"), fault) for fault in retain_faults(kept, columns.dated))
    labels, blocks = (_map(document.get(name)) for name in ("labels", "consensus"))
    gone = {
        str(o).partition("/")[0]
        for c in blocks.values()
        if _map(c).get("readers") == "drop"
        for o in _list(_map(c).get("of"))
    }
    known = sorted({*map(str, labels), *map(str, blocks)} - gone)
    centred = samples.get("centred_on")
    if isinstance(centred, str):
        yield from ((("samples", "centred_on"), fault) for fault in centre_faults(centred, known))
    yield from ((("shards", "fields"), fault) for fault in field_faults(map(str, _map(shards.get("fields"))), known))


def _expressions(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    cohort = _map(document.get("cohort"))
    if isinstance(cohort.get("image"), str):
        yield ("cohort", "image"), cohort["image"]
    for i, rule in enumerate(_list(cohort.get("rules"))):
        if isinstance(_map(rule).get("keep"), str):
            yield ("cohort", "rules", i, "keep"), rule["keep"]


def _named(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    cohort, splits, report = (_map(document.get(name)) for name in ("cohort", "splits", "report"))
    for place, names in (
        (("cohort", "prefer"), _list(cohort.get("prefer"))),
        (("splits", "stratify"), _list(splits.get("stratify"))),
        (("report", "groups"), _list(report.get("groups"))),
        (("report", "outcomes"), _list(report.get("outcomes"))),
    ):
        for i, name in enumerate(names):
            if isinstance(name, str):
                yield (*place, i), name.removeprefix("-") if place[0] == "cohort" else name
    for i, held in enumerate(_list(splits.get("hold_out"))):
        if isinstance(_map(held).get("column"), str) and held["column"] != TRUE_DATE:
            yield ("splits", "hold_out", i, "column"), held["column"]
    if isinstance(splits.get("leave_one_out"), str):
        yield ("splits", "leave_one_out"), splits["leave_one_out"]
    for name in _map(_map(report.get("reference")).get("shares")):
        yield ("report", "reference", "shares", name), str(name)


def _map(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []
