"""Try headers alone as predictors of a label, and look for labels that go with the device or the size of the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.library.audit.items import Item
from builder.report.association import associations, is_worth_a_look
from builder.report.baseline import metadata_baseline
from builder.report.people import SEVERAL, one_row_each

HEADER = ("modality", "manufacturer", "manufacturer_model", "kvp", "slices", "rows", "columns")
"""What is known of an image without looking at its content."""


@dataclass(frozen=True)
class Bias:
    """What headers say of the labels.

    Parameters
    ----------
    headers_alone
        For each answer of a column of two values: the cross-validated AUC of a model that sees headers only.
    associated
        Columns that go with a fact of the headers: strong, and unlikely to be chance.
    """

    headers_alone: tuple[Mapping[str, Any], ...] = ()
    associated: tuple[Mapping[str, Any], ...] = ()


def look_for_bias(items: Sequence[Item], headers: Mapping[str, Mapping[str, Any]]) -> Bias:
    """Compare every column of few values with what the headers of the images say, one row a person.

    Persons of whom nobody knows are their images; a person whose images disagree in a column counts as unknown there.

    Parameters
    ----------
    headers
        Name of an item to the facts of ``HEADER``; items without are left out.
    """
    known = [item for item in items if item.name in headers]
    labels = sorted({name for item in known for name in item.groups})
    rows = [
        {
            "person_key": item.person or item.name,
            **{name: headers[item.name].get(name) for name in HEADER},
            **{f"label.{name}": item.groups.get(name) or None for name in labels},
        }
        for item in known
    ]
    if not rows or not labels:
        return Bias()
    persons = one_row_each(pa.Table.from_pylist(rows), [*HEADER, *(f"label.{name}" for name in labels)])
    outcomes = dict(_answer(persons, name) for name in labels if len(_levels(persons, name)) == 2)
    told = [name for name in HEADER if persons[name].null_count < persons.num_rows]
    found = associations(persons, [f"label.{name}" for name in labels], told, seed=0)
    keys = ("label", "group", "cramers_v", "q")
    return Bias(
        tuple(row for row in metadata_baseline(persons, outcomes, told) if row["auc"] is not None),
        tuple({k: _plain(row[k]) for k in keys} for row in found if is_worth_a_look(row)),
    )


def _levels(persons: pa.Table, name: str) -> list[str]:
    return sorted({v for v in persons[f"label.{name}"].to_pylist() if v is not None and v != SEVERAL})


def _answer(persons: pa.Table, name: str) -> tuple[str, list[bool | None]]:
    """Return a column of two values as yes and no: whether it has the second, in alphabetical order."""
    _, yes = _levels(persons, name)
    values = persons[f"label.{name}"].to_pylist()
    return f"{name} = {yes}", [None if v is None or v == SEVERAL else v == yes for v in values]


def _plain(value: Any) -> Any:
    return value.removeprefix("label.") if isinstance(value, str) else value
