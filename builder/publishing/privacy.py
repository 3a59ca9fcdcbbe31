"""The last look before publishing: nothing that leaves holds a value the archive would recognise."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid.leaks import Canaries, assert_clean, values_to_find
from builder.deid.text import ordinary_words
from builder.errors import PrivacyError
from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory
from builder.spec import DatasetSpec

KEYED = re.compile(r"[0-9a-hjkmnp-tv-z]{26}(?:-\d+)?")
"""The shape of a keyed name (and of a sample's, with its number): what stands in key columns, and nothing else may."""

KEY_COLUMNS = re.compile(r"(?:.*_)?key|members")
FINGERPRINTS = frozenset({"shard"})


def scan(
    plan: DatasetPlan, inventory: Inventory, tables: Mapping[str, pa.Table], files: Mapping[str, bytes]
) -> None:
    """Search tables and documents for the archive's identifiers of persons, studies, series, objects and devices.

    Key columns are held to their shape instead: random names hold random digits, and some would equal a number of
    somebody. Of documents the texts are searched, not the numbers: counts and sizes would.

    Raises
    ------
    PrivacyError
        Naming the file, never the value; nothing is published then.
    """
    canaries = Canaries.of(_identifiers(plan, inventory), ordinary=ordinary_words())
    for name, table in sorted(tables.items()):
        _check_keys(table, where=name)
        assert_clean(_searched(table), canaries, where=name, counts=_counts(table, plan.spec))
    words = _without_numbers(canaries)
    for name, data in sorted(files.items()):
        if name.endswith(".json"):
            assert_clean(_texts(data), words if name.startswith("views/") else canaries, where=name)
        elif not name.endswith(".parquet"):
            assert_clean(data, words, where=name)


def _identifiers(plan: DatasetPlan, inventory: Inventory) -> Iterator[str]:
    yield from sorted(plan.persons.spellings)
    yield from values_to_find(plan.annotations)
    columns = ["patient_id", "accession_number", "device_serial_number", "study_uid", "series_uid"]
    for number in range(len(inventory.chunks)):
        yield from values_to_find(inventory.chunk(number, columns=columns))


def _check_keys(table: pa.Table, *, where: str) -> None:
    for field in table.schema:
        if KEY_COLUMNS.fullmatch(field.name) and field.name not in FINGERPRINTS:
            values = table.column(field.name)
            flat = pc.list_flatten(values) if pa.types.is_list(field.type) else values
            wrong = sum(1 for v in pc.unique(flat).to_pylist() if v is not None and not KEYED.fullmatch(v))
            if wrong:
                raise PrivacyError(
                    f"{where}, column {field.name!r}: found {wrong} value(s) that are no keyed names (not shown), "
                    "expected keyed names only; nothing is published"
                )


def _searched(table: pa.Table) -> pa.Table:
    keys = [n for n in table.column_names if KEY_COLUMNS.fullmatch(n) or n in FINGERPRINTS]
    return table.drop_columns(keys)


def _counts(table: pa.Table, spec: DatasetSpec) -> frozenset[str]:
    """Whole-number columns but those of clinical tables, which may hold anything."""
    clinical = {name for t in spec.clinical for name in t.names}
    return frozenset(f.name for f in table.schema if pa.types.is_integer(f.type) and f.name not in clinical)


def _without_numbers(canaries: Canaries) -> Canaries:
    """The canaries that are more than digits."""
    kept = {
        anchor: tuple(needle for needle in needles if not needle.isdigit())
        for anchor, needles in canaries.anchors.items()
    }
    return replace(canaries, anchors={anchor: needles for anchor, needles in kept.items() if needles})


def _texts(data: bytes) -> bytes:
    """Every text of a JSON document, keys too, once: most are said again and again.

    Zeros lie between them, across which nothing is taken for the number of a list.
    """
    found: dict[str, None] = {}
    _gather(json.loads(data), found)
    return "\0".join(found).encode()


def _gather(document: Any, found: dict[str, None]) -> None:
    if isinstance(document, str):
        found[document] = None
    elif isinstance(document, dict):
        for key, value in document.items():
            found[key] = None
            _gather(value, found)
    elif isinstance(document, list):
        for value in document:
            _gather(value, found)
