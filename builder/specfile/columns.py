"""Check the columns and expressions that a spec names against what its sources and tables will have.

The check reads the document and not the model, so that it also works when another block is invalid.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from builder.clinical import ClinicalTable
from builder.cohort import Visits
from builder.errors import SpecError
from builder.imaging.series_types import rule_schema
from builder.labels import AnyLabel
from builder.model.expression import compile as compile_expression
from builder.spec.columns import columns_of, columns_of_images
from builder.spec.names import centre_faults, field_faults, retain_faults
from builder.specfile.positions import Path
from builder.split import TRUE_DATE


@dataclass(frozen=True)
class _Columns:
    """What a cohort will have: columns of known type, and names declared in tables that are still invalid."""

    schema: pa.Schema
    published: pa.Schema
    dated: tuple[str, ...]
    doubtful: frozenset[str]

    def has(self, name: str, *, published: bool) -> bool:
        return name in (self.published if published else self.schema).names or name in self.doubtful


def column_faults(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield expressions that do not compile and columns that nothing declares, each with its place in the document."""
    columns = _columns(document)
    for place, text in _expressions(document):
        if not columns.doubtful & set(re.findall(r"\w+", text)):
            try:
                compile_expression(text, columns.schema)
            except SpecError as error:
                yield place, f"{'.'.join(map(str, place))}: {error}"
    yield from _rule_faults(document)
    for place, column in _named(document):
        published = place[0] != "cohort"
        if not columns.has(column, published=published):
            yield place, f"{'.'.join(map(str, place))}: {_unknown(column, columns, published=published)}"
        elif not published and _holds_lists(columns.schema, column):
            found = f"{'.'.join(map(str, place))}: found {column!r}, a column of lists"
            yield place, f"{found}, expected a column of numbers, texts or dates to sort by"
    yield from _references(document, columns)


def _unknown(column: str, columns: _Columns, *, published: bool) -> str:
    if published and column in columns.schema.names:
        return f"found {column!r}, which cohort rules and prefer may read but which does not leave the archive"
    near = difflib.get_close_matches(column, (columns.published if published else columns.schema).names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ", expected a column of SERIES, a clinical table or a label"
    return f"found the unknown column {column!r}{hint}"


def _holds_lists(schema: pa.Schema, column: str) -> bool:
    return column in schema.names and pa.types.is_list(schema.field(column).type)


def _rule_faults(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for i, rule in enumerate(_list(_map(document.get("cohort")).get("series_rules"))):
        if isinstance(_map(rule).get("when"), str):
            try:
                compile_expression(rule["when"], rule_schema())
            except SpecError as error:
                yield ("cohort", "series_rules", i, "when"), f"cohort.series_rules.{i}.when: {error}"


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
    labels = _map(document.get("labels"))
    gone = _dropped(document)
    classes = [f for name, block in labels.items() if name not in gone for f in _classes(str(name), block)]
    dated = tuple(name for table in tables for name in table.dated)
    cohort = _map(document.get("cohort"))
    images = [str(name) for name in _map(cohort.get("images"))]
    visits = _map(cohort.get("visits"))
    if visits:
        names = _list(visits.get("names")) or list(Visits().names)
        images = [f"{visit}.{name}" for visit in names for name in images]
    partners = images[1:]
    tables_and_labels = (
        columns_of(tables, labelled=bool(labels), classes=classes, published=only) for only in (False, True)
    )
    known, published = (columns_of_images(columns, partners) for columns in tables_and_labels)
    return _Columns(known, published, dated, frozenset(doubtful))


def _classes(name: str, block: Any) -> tuple[pa.Field, ...]:
    """Return the columns of one label; none for an invalid label, which another message reports."""
    try:
        return TypeAdapter(AnyLabel).validate_python(block).class_fields(name)
    except ValidationError:
        return ()


def _dropped(document: Mapping[str, Any]) -> set[str]:
    """Return the labels of readers that a consensus drops."""
    blocks = [_map(block) for block in _map(document.get("consensus")).values()]
    return {str(o).partition("/")[0] for b in blocks if b.get("readers") == "drop" for o in _list(b.get("of"))}


def _references(document: Mapping[str, Any], columns: _Columns) -> Iterator[tuple[Path, str]]:
    """Yield wrong references between blocks, which ``DatasetSpec`` only checks once every block is valid."""
    deid, samples, shards = (_map(document.get(name)) for name in ("deid", "samples", "shards"))
    kept = [name for name in _list(deid.get("retain")) if isinstance(name, str) and name not in columns.doubtful]
    yield from ((("deid", "retain"), fault) for fault in retain_faults(kept, columns.dated))
    labels, blocks = (_map(document.get(name)) for name in ("labels", "consensus"))
    known = sorted({*map(str, labels), *map(str, blocks)} - _dropped(document))
    centred = samples.get("centred_on")
    if isinstance(centred, str):
        yield from ((("samples", "centred_on"), fault) for fault in centre_faults(centred, known))
    stored = map(str, _map(shards.get("fields")))
    yield from ((("shards", "fields"), fault) for fault in field_faults(stored, known, _image_fields(document)))


def _image_fields(document: Mapping[str, Any]) -> list[str]:
    """Return every name that a field of images may have in this document."""
    cohort, samples = (_map(document.get(name)) for name in ("cohort", "samples"))
    visits = _list(_map(cohort.get("visits")).get("names")) if "visits" in cohort else []
    apart = [n for n, image in _map(cohort.get("images")).items() if _map(image).get("aligned") == "none"]
    return ["image", *map(str, (*_map(samples.get("fields")), *visits, *apart))]


def _expressions(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    cohort = _map(document.get("cohort"))
    if isinstance(cohort.get("image"), str):
        yield ("cohort", "image"), cohort["image"]
    for name, image in _map(cohort.get("images")).items():
        if isinstance(_map(image).get("select"), str):
            yield ("cohort", "images", str(name), "select"), image["select"]
    for i, rule in enumerate(_list(cohort.get("rules"))):
        if isinstance(_map(rule).get("keep"), str):
            yield ("cohort", "rules", i, "keep"), rule["keep"]


def _named(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    cohort, splits, report = (_map(document.get(name)) for name in ("cohort", "splits", "report"))
    images = _map(cohort.get("images"))
    for place, names in (
        (("cohort", "prefer"), _list(cohort.get("prefer"))),
        *((("cohort", "images", str(n), "prefer"), _list(_map(b).get("prefer"))) for n, b in images.items()),
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
