"""Write the images, links and labels of a case of several images into the columns of the cohort."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.errors import SpecError
from builder.labels import AnyLabel
from builder.model.expression import compile as compile_expression
from builder.model.linking import How
from builder.planning.link import Link, label_status, planned_tier
from builder.planning.registrations import REGISTRATION
from builder.planning.visits import ImageSet
from builder.spec import DatasetSpec
from builder.spec.columns import columns_of_images

ALWAYS = ("series_key", "modality", "vendor", "manufacturer_model")
"""Columns of every other image that a case gets beside those that the spec names."""

PARTNERS = pa.list_(pa.struct([("image", pa.string()), ("stack_key", pa.string()), ("matrix", pa.list_(pa.float64()))]))
LABELLED = pa.list_(pa.struct([("label", pa.string()), ("image", pa.string())]))


def with_images(table: pa.Table, spec: DatasetSpec, sets: Mapping[int, Mapping[str, int]]) -> pa.Table:
    """Return the table with ``present.NAME`` and the columns ``NAME.column`` that are asked for.

    ``sets`` maps the row of each reference to the rows of all images of its case.
    """
    for name in spec.cohort.partners:
        places = [sets[row].get(name) if row in sets else None for row in range(table.num_rows)]
        present = [place is not None if row in sets else None for row, place in enumerate(places)]
        table = table.append_column(f"present.{name}", pa.array(present, pa.bool_()))
        taken = table.take(pa.array(places, pa.int64()))
        for column in dict.fromkeys((*ALWAYS, *_asked(spec, name, table.schema))):
            table = table.append_column(f"{name}.{column}", taken[column])
    return table


def _asked(spec: DatasetSpec, name: str, schema: pa.Schema) -> Iterator[str]:
    """Yield the columns of an image that the spec names."""
    known = columns_of_images(schema, spec.cohort.partners)
    named = [c for rule in spec.cohort.rules for c in compile_expression(rule.keep, known).columns]
    named += [*spec.splits.stratify, *spec.report.groups, *spec.report.outcomes]
    named += [held.column for held in spec.splits.hold_out]
    for column in named:
        image, dot, own = column.rpartition(".")
        if dot and image == name:
            if own not in schema.names:
                raise SpecError(f"{column}: found no column {own!r}, expected one of SERIES or of a clinical table")
            yield own


def partners_of(found: ImageSet | None, stacks: Sequence[str]) -> list[dict[str, Any]]:
    if found is None:
        return []
    at = found.placements
    return [
        {"image": name, "stack_key": stacks[row], "matrix": list(at[name].matrix) if name in at else []}
        for name, row in found.rows.items()
        if name != found.reference
    ]


def links_of_registrations(found: ImageSet) -> list[Link]:
    """Return links with the objects that place the images of a case, so that the ledger counts them as used."""
    how = str(How.FRAME_OF_REFERENCE)
    return [Link(f"{REGISTRATION}:{name}", at.rows, how) for name, at in found.placements.items() if at.rows]


def labels_of(found: ImageSet | None) -> list[dict[str, str]]:
    links = {} if found is None else found.links
    return [{"label": label, "image": image} for label, (image, _) in links.items()]


def links_of(found: ImageSet, labels: Mapping[str, AnyLabel]) -> list[Link]:
    """Return the links of a case, one a label; a label without objects has one without rows."""
    return [found.links[label][1] if label in found.links else Link(label, (), str(How.NONE)) for label in labels]


def with_label_columns(table: pa.Table, links: Mapping[str, Sequence[Link]], spec: DatasetSpec) -> pa.Table:
    """Replace what is said of a row's own labels by what is said of the labels of its case."""
    if not spec.labels:
        return table
    keys = table.column("case_key").to_pylist()
    states = {
        "label_status": [label_status(links[k]) if k in links else None for k in keys],
        "label_tier": [planned_tier(links[k], spec) if k in links else None for k in keys],
    }
    for name, values in states.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return table
