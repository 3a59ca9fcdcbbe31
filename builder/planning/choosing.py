"""Choose the stacks that become cases: link annotation objects, apply the cohort's rules, keep every decision."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final

import pyarrow as pa

from builder.cohort import select_cohort
from builder.errors import Reason
from builder.labels import class_fields
from builder.labels.linking import image_row
from builder.model.case import Scalar
from builder.persons import Persons
from builder.plan import (
    LINKS,
)
from builder.planning.asked import asked_columns, asked_values, with_asked
from builder.planning.candidates import accession_column, date_column, person_column, series_table
from builder.planning.clinical import Clinical
from builder.planning.image_sets import select_sets
from builder.planning.inputs import PlanInputs
from builder.planning.link import (
    Annotations,
    Link,
    check_files_serve_one_person,
    label_state,
    label_status,
    link_stack,
    longer_ids,
    open_files,
    planned_tier,
    read_classes,
)
from builder.planning.members import members
from builder.planning.origins import Stated
from builder.planning.registrations import registrations_of
from builder.planning.rows import LinkRow, Placed, rows_of
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

CARRIED: Final = (
    *("usable_reason", "usable_detail", "peak_bytes", "voxel_bytes", "number_type", "number_type_sure", "series_uid"),
    *("chunk", "holders", "holder_instances", "holder_bytes", "frame_lists"),
)
"""Columns of stacks that the cohort table has as they are."""


def choose_cases(
    inputs: PlanInputs,
    stacks: pa.Table,
    *,
    persons: Persons,
    clinical: Clinical,
    annotations: Annotations,
    stated: Stated,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return every stack with its decision, the links of the included ones, and the annotation objects passed over.

    Returns
    -------
    tuple
        The cohort table (SERIES, clinical and decision columns), then two tables with schema LINKS: the links of the
        included stacks, and the objects that refer to a stack but hold nothing that its labels ask for.
    """
    spec, key = inputs.spec, inputs.key
    person_keys = person_column(stacks, persons)
    found, classes = _link(inputs, stacks, person_keys=person_keys, annotations=annotations)
    kinds = [sorted({link.label for link in links if link.rows}) for links in found]
    terms = stated.licenses(stacks)
    table = series_table(stacks, person_keys, key=key, annotations=kinds, licenses=terms, clinical=clinical.table)
    numbers = map(str, stacks.column("stack").to_pylist())
    case_keys = [*key.names_of("case", zip(stacks.column("series_uid").to_pylist(), numbers, strict=True))]
    states = [label_state(links) for links in found]
    extra = {
        **{name: stacks.column(name) for name in CARRIED},
        "clinical_rows": pa.array(clinical.rows or [0] * stacks.num_rows, pa.int64()),
        "clinical_unclear": pa.array(clinical.unclear or [False] * stacks.num_rows, pa.bool_()),
        "label_state": pa.array([s for s, _ in states], pa.string()),
        "label_detail": pa.array([d for _, d in states], pa.string()),
        "case_key": pa.array(case_keys, pa.string()),
        "stack_key": pa.array(case_keys, pa.string()),
        "label_status": pa.array([label_status(links) if spec.labels else None for links in found], pa.string()),
        "label_tier": pa.array([planned_tier(links, spec) for links in found], pa.string()),
        TRUE_DATE: date_column(stacks, TRUE_DATE),
        "accession_key": accession_column(stacks, key),
    }
    for name, values in extra.items():
        table = table.append_column(name, values)
    for place, field in enumerate(class_fields(spec.class_labels)):
        table = table.append_column(field, pa.array([row[place] if row else None for row in classes], field.type))
    asked = asked_values(asked_columns(spec), stacks, person_keys, annotations.table)
    table = with_asked(table, asked)
    by_stack = dict(zip(case_keys, found, strict=True))
    if spec.cohort.images:
        registrations = registrations_of(annotations, spec.sources, stacks, key=key, stack_keys=case_keys)
        cohort, links_of = select_sets(table, spec, by_stack, registrations, key=key)
    else:
        cohort, links_of = _single_images(table, spec, by_stack)
    included = [(case, link) for case, links in links_of.items() for link in links]
    everything = [(case, link) for case, links in zip(case_keys, found, strict=True) for link in links]
    linked = [LinkRow(row, case, link.label, link.how) for case, link in included for row in link.rows]
    passed = [LinkRow(row, case, link.label, link.how) for case, link in everything for row in link.passed]
    return cohort, _links_table(linked), _links_table(passed)


def _single_images(
    table: pa.Table, spec: DatasetSpec, by_stack: Mapping[str, list[Link]]
) -> tuple[pa.Table, dict[str, list[Link]]]:
    """Return the cohort of cases that are one stack each, and the links of the included ones, by case."""
    cohort = select_cohort(table, spec.cohort, labelled=bool(spec.labels))
    table, odd = _without_odd_channels(table, cohort)
    if odd:
        cohort = select_cohort(table, spec.cohort, labelled=bool(spec.labels))
    chosen = set(cohort.filter(cohort["included"]).column("case_key").to_pylist())
    return cohort, {case: links for case, links in by_stack.items() if case in chosen}


def _without_odd_channels(table: pa.Table, cohort: pa.Table) -> tuple[pa.Table, int]:
    """Mark stacks of another number of channels than most included ones as unusable, and return how many.

    All images of a dataset have one number of channels. Otherwise the first case of a shard would decide, and two
    shards that decide otherwise could not be published together.
    """
    numbers = Counter(n or 1 for n in cohort.filter(cohort["included"]).column("channels").to_pylist())
    if len(numbers) < 2:
        return table, 0
    usual = min(numbers, key=lambda n: (-numbers[n], n))
    reasons, details = (table.column(name).to_pylist() for name in ("usable_reason", "usable_detail"))
    odd = 0
    for index, own in enumerate(table.column("channels").to_pylist()):
        if reasons[index] is None and (own or 1) != usual:
            reasons[index] = Reason.INCONSISTENT_PIXELS.value
            details[index] = (
                f"found {own or 1} channels, expected {usual} as most images of the dataset have; build them apart: "
                f"cohort keep: channels == {own or 1}"
            )
            odd += 1
    for name, values in (("usable_reason", reasons), ("usable_detail", details)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table, odd


def _links_table(rows: Sequence[LinkRow]) -> pa.Table:
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=LINKS)


def _link(
    inputs: PlanInputs, stacks: pa.Table, *, person_keys: Sequence[str], annotations: Annotations
) -> tuple[list[list[Link]], list[list[Scalar]]]:
    """Return the links and the class labels of every stack, in their order; none for stacks that cannot be used."""
    spec = inputs.spec
    links: list[list[Link]] = [[] for _ in range(stacks.num_rows)]
    classes: list[list[Scalar]] = [[] for _ in range(stacks.num_rows)]
    if not spec.labels:
        return links, classes
    classes_of = read_classes(annotations, spec.class_labels, spec.sources)
    opened = open_files(annotations, spec.labels, spec.sources)
    longer = longer_ids(i or "" for i in stacks.column("patient_id").to_pylist())
    wanted: dict[int, list[tuple[int, Placed]]] = {}
    for row, stack in enumerate(rows_of(stacks, Placed)):
        if stack.usable_reason is None:
            wanted.setdefault(stack.chunk, []).append((row, stack))
    for chunk in inputs.progress.track(sorted(wanted), stage="link", total=len(wanted)):
        for row, instances in members(inputs.inventory, inputs.survey, chunk=chunk, wanted=wanted[chunk]):
            image = image_row(instances)
            site = spec.sources[image.source or 0].site
            near = {n for n, source in enumerate(spec.sources) if source.site in (site, None)}
            image = replace(image, site_sources=frozenset(near), longer_ids=longer.get(image.patient_id.strip(), ()))
            links[row] = link_stack(image, person_keys[row], annotations, spec.labels, opened)
            classes[row] = classes_of(image, links[row])
    check_files_serve_one_person(links, person_keys, annotations, spec.labels)
    return links, classes
