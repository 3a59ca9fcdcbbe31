"""From an inventory to a frozen plan: persons, clinical rows, cohort, links, splits, shards. Nothing is decoded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.cohort import select_cohort
from builder.errors import LayoutError, SpecError
from builder.imaging.pixels.stored import NATIVE
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.model.parquet import parquet_bytes
from builder.model.tables import INSTANCES
from builder.patches import estimate
from builder.persons import Persons, group_persons, identity
from builder.plan import (
    IMAGE_ROLE,
    LINKS,
    PLANNED,
    CasePlan,
    DatasetPlan,
    ShardPlan,
    ShardSummary,
    assign_buckets,
    recipe,
    shard_fingerprint,
)
from builder.run.clinical import Clinical, read_clinical
from builder.run.memory import mask_channels, project_memory
from builder.run.progress import Progress
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE
from builder.stages.candidates import accession_column, clinical_counts, person_column, series_table
from builder.stages.coverage import map_structures
from builder.stages.deal import deal, shared_keys
from builder.stages.inventory import Inventory, Survey
from builder.stages.link import (
    Annotations,
    Link,
    gather_annotations,
    image_row,
    label_state,
    label_status,
    link_stack,
    open_files,
    planned_tier,
)
from builder.stages.lock import environment_lock
from builder.stages.origins import Stated, ask_origins, gather_origins, prove_usage
from builder.stages.playbook import map_procedures
from builder.stages.reviews import read_reviews
from builder.stages.shard import SPEC, plan_path
from builder.stages.survey import IDENTITIES, dicom_date
from builder.storage import Store, open_store

PLAN = "plan"
MASK_BYTES = 1


def make_plan(
    spec: DatasetSpec,
    private: Store,
    *,
    published_spec: Mapping[str, Any],
    key: Key,
    inventory: Inventory,
    survey: Survey,
    progress: Progress,
) -> DatasetPlan:
    """Decide everything, write the shard plans, and return what the later stages need.

    Raises
    ------
    SpecError
        When a column the spec names does not exist, a licence does not allow the use that must be proven, or nothing
        is left to build.
    """
    stacks = survey.stacks()
    table = inventory.annotations()
    persons = _persons(spec, survey, table, inventory.leftovers(), key)
    annotations = gather_annotations(table, _annotation_persons(table, persons))
    clinical = read_clinical(spec, persons, stacks, key=key)
    stated = ask_origins(spec)
    cohort, links, passed = _cohort(
        spec, inventory, survey, stacks, persons, clinical, annotations, stated, key, progress
    )
    origins = gather_origins(spec, stated, cohort, links, annotations.table, key=key)
    prove_usage(spec, origins)
    shared = [group for found in shared_keys(cohort) for group in found.groups]
    splits = deal(spec, cohort, persons, together=shared if spec.leaks.on_match == "merge" else ())
    store, shards = _shards(spec, private, inventory, survey, cohort, links, annotations, key, progress)
    return DatasetPlan(
        url=store.url,
        spec=spec,
        published_spec=published_spec,
        key=key,
        persons=persons,
        cohort=cohort,
        splits=splits,
        links=links,
        annotations=table.select(INSTANCES.names),
        clinical=clinical.reports,
        shards=shards,
        lock=environment_lock(spec, key=key),
        origins=origins,
        procedures=map_procedures(spec.catalog.playbook, cohort, inventory, private),
        structures=map_structures(spec.labels, pa.concat_tables([links, passed]), table, private),
        reviews=read_reviews(spec),
    )


def _persons(spec: DatasetSpec, survey: Survey, annotations: pa.Table, leftovers: pa.Table, key: Key) -> Persons:
    names = IDENTITIES.names
    found = [t.select(names) for t in (survey.identities(), annotations, leftovers)]
    everybody = pa.concat_tables(found)
    everybody = everybody.filter(pc.is_valid(pc.coalesce(everybody["study_uid"], everybody["patient_id"])))
    persons = group_persons(everybody, aliases=_aliases(spec.persons.aliases), key=key)
    doubtful = [c for c in persons.conflicts if c.kind in ("sex", "birth_date")]
    if doubtful and spec.persons.on_conflict == "stop":
        raise LayoutError(
            f"persons: found {len(doubtful)} PatientIDs with contradicting {doubtful[0].kind}, "
            "expected one person each; correct the archive, or set persons.on_conflict: report"
        )
    return persons


def _aliases(url: str | None) -> list[tuple[str, str]]:
    if url is None:
        return []
    folder, _, name = url.rpartition("/")
    lines = open_store(folder or ".").read(name).decode("utf-8-sig").splitlines()[1:]
    pairs = [tuple(cell.strip().strip('"') for cell in line.split(",")) for line in lines if line.strip()]
    wrong = next((i for i, pair in enumerate(pairs) if len(pair) < 2), None)
    if wrong is not None:
        raise SpecError(f"persons.aliases: line {wrong + 2}: found one column, expected two PatientIDs")
    return [(pair[0], pair[1]) for pair in pairs]


def _annotation_persons(table: pa.Table, persons: Persons) -> list[str | None]:
    rows = zip(
        *(table.column(c).to_pylist() for c in ("status", "patient_id", "issuer_of_patient_id", "study_uid")),
        strict=True,
    )
    return [persons.keys[identity(p, i, s)] if status == "instance" else None for status, p, i, s in rows]


def _cohort(
    spec: DatasetSpec,
    inventory: Inventory,
    survey: Survey,
    stacks: pa.Table,
    persons: Persons,
    clinical: Clinical,
    annotations: Annotations,
    stated: Stated,
    key: Key,
    progress: Progress,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Every stack with its decision, the links of the included ones, and what was passed over of all."""
    person_keys = person_column(stacks, persons)
    found = _link(spec, inventory, survey, stacks, person_keys, annotations, progress)
    kinds = [sorted({link.label for link in links if link.rows}) for links in found]
    terms = stated.licenses(stacks)
    table = series_table(stacks, person_keys, key=key, annotations=kinds, licenses=terms, clinical=clinical.table)
    case_keys = [
        key.name("case", uid, str(number))
        for uid, number in zip(stacks.column("series_uid").to_pylist(), stacks.column("stack").to_pylist(), strict=True)
    ]
    states = [label_state(links) for links in found]
    extra = {
        "usable_reason": stacks.column("usable_reason"),
        "usable_detail": stacks.column("usable_detail"),
        "peak_bytes": stacks.column("peak_bytes"),
        "voxel_bytes": stacks.column("voxel_bytes"),
        "series_uid": stacks.column("series_uid"),
        "chunk": stacks.column("chunk"),
        "holders": stacks.column("holders"),
        "holder_instances": stacks.column("holder_instances"),
        "holder_bytes": stacks.column("holder_bytes"),
        "frame_lists": stacks.column("frame_lists"),
        "clinical_rows": pa.array(clinical_counts(clinical.table, person_keys), pa.int64()),
        "label_state": pa.array([s for s, _ in states], pa.string()),
        "label_detail": pa.array([d for _, d in states], pa.string()),
        "case_key": pa.array(case_keys, pa.string()),
        "label_status": pa.array([label_status(links) if spec.labels else None for links in found], pa.string()),
        "label_tier": pa.array([planned_tier(links, spec) for links in found], pa.string()),
        TRUE_DATE: pa.array([dicom_date(d) for d in stacks.column(TRUE_DATE).to_pylist()], pa.date32()),
        "accession_key": accession_column(stacks, key),
    }
    for name, values in extra.items():
        table = table.append_column(name, values)
    cohort = select_cohort(table, spec.cohort, labelled=bool(spec.labels))
    chosen = set(cohort.filter(cohort["included"]).column("case_key").to_pylist())
    included = [(case, link) for case, links in zip(case_keys, found, strict=True) if case in chosen for link in links]
    everything = [(case, link) for case, links in zip(case_keys, found, strict=True) for link in links]
    linked = [_link_row(case, link, row) for case, link in included for row in link.rows]
    passed = [_link_row(case, link, row) for case, link in everything for row in link.passed]
    return cohort, pa.Table.from_pylist(linked, schema=LINKS), pa.Table.from_pylist(passed, schema=LINKS)


def _link_row(case_key: str, link: Link, annotation: int) -> dict[str, Any]:
    return {"annotation": annotation, "case_key": case_key, "label": link.label, "how": link.how}


def _link(
    spec: DatasetSpec,
    inventory: Inventory,
    survey: Survey,
    stacks: pa.Table,
    person_keys: Sequence[str],
    annotations: Annotations,
    progress: Progress,
) -> list[list[Link]]:
    """Links of every stack, in the order of the stacks; none for stacks that cannot be used."""
    links: list[list[Link]] = [[] for _ in range(stacks.num_rows)]
    if not spec.labels:
        return links
    opened = open_files(annotations, spec.labels, spec.sources)
    wanted: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    for row, stack in enumerate(stacks.select(["chunk", "series_uid", "holders", "usable_reason"]).to_pylist()):
        if stack["usable_reason"] is None:
            wanted.setdefault(stack["chunk"], []).append((row, stack))
    for chunk in progress.track(sorted(wanted), stage="link", total=len(wanted)):
        for row, members in _members(inventory, survey, chunk, wanted[chunk]):
            links[row] = link_stack(image_row(members), person_keys[row], annotations, spec.labels, opened)
    return links


def _members(
    inventory: Inventory, survey: Survey, chunk: int, wanted: Sequence[tuple[int, Mapping[str, Any]]]
) -> list[tuple[int, pa.Table]]:
    """The instances of the wanted stacks of a chunk, with the number each is wanted under."""
    membership = survey.membership(chunk)
    wanting: dict[tuple[str, int], list[int]] = {}
    for number, stack in wanted:
        for holder in stack["holders"]:
            wanting.setdefault((stack["series_uid"], holder), []).append(number)
    places: dict[int, list[int]] = {}
    names = zip(membership.column("series").to_pylist(), membership.column("stack").to_pylist(), strict=True)
    for position, name in enumerate(names):
        for number in wanting.get(name, ()):
            places.setdefault(number, []).append(position)
    instances = inventory.chunk(chunk) if places else None
    return [] if instances is None else [(row, instances.take(pa.array(p))) for row, p in sorted(places.items())]


def _shards(
    spec: DatasetSpec,
    private: Store,
    inventory: Inventory,
    survey: Survey,
    cohort: pa.Table,
    links: pa.Table,
    annotations: Annotations,
    key: Key,
    progress: Progress,
) -> tuple[Store, tuple[ShardSummary, ...]]:
    included = cohort.filter(cohort["included"]).to_pylist()
    objects = _objects(inventory, survey, included, links, annotations)
    cases = [_case_plan(spec, row, objects[row["case_key"]]) for row in included]
    most_bytes = int(spec.shards.target_mib * 2**20)
    buckets = assign_buckets(cases, key=key, most_cases=spec.shards.cases, most_bytes=most_bytes)
    document = recipe(spec, key=key)
    plans = []
    for bucket, held in buckets.items():
        table = pa.concat_tables([_numbered(objects[c.case_key], i) for i, c in enumerate(held)])
        plans.append(ShardPlan(shard_fingerprint(document, held, table), bucket, tuple(held), table))
    # in the spec's own order, which sorted keys would lose
    text = spec.model_dump_json(by_alias=True).encode()
    store = private.join(PLAN, fingerprint([p.fingerprint for p in plans], text))
    store.put(SPEC, text)
    for plan in progress.track(plans, stage="plan", total=len(plans)):
        if not store.exists(plan_path(plan.fingerprint)):
            store.put(plan_path(plan.fingerprint), plan.to_parquet())
    store.put("shards.json", json.dumps([[p.fingerprint, p.bucket, len(p.cases)] for p in plans]).encode())
    store.put("cohort.parquet", parquet_bytes(cohort))
    return store, tuple(ShardSummary(p.fingerprint, p.bucket, p.cases, _encoded(p)) for p in plans)


def _encoded(plan: ShardPlan) -> bool:
    """Whether any object of a shard has compressed pixels, or does not say."""
    rows = zip(*(plan.objects.column(c).to_pylist() for c in ("format", "transfer_syntax_uid")), strict=True)
    return any(form == "dicom" and syntax not in NATIVE for form, syntax in rows)


def _objects(
    inventory: Inventory,
    survey: Survey,
    included: Sequence[Mapping[str, Any]],
    links: pa.Table,
    annotations: Annotations,
) -> dict[str, pa.Table]:
    """INSTANCES rows of every included case: its images, then its labels, with the role in front."""
    wanted: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    for position, row in enumerate(included):
        wanted.setdefault(row["chunk"], []).append((position, row))
    tables: dict[str, list[pa.Table]] = {row["case_key"]: [] for row in included}
    for chunk, names in sorted(wanted.items()):
        for position, members in _members(inventory, survey, chunk, names):
            tables[included[position]["case_key"]].append(_with_role(members, [IMAGE_ROLE] * members.num_rows))
    grouped: dict[str, list[tuple[int, str]]] = {}
    for row in links.to_pylist():
        grouped.setdefault(row["case_key"], []).append((row["annotation"], row["label"]))
    for case, rows in grouped.items():
        taken = annotations.table.take(pa.array([row for row, _ in rows], pa.int64()))
        tables[case].append(_with_role(taken, [label for _, label in rows]))
    return {case: pa.concat_tables(parts) for case, parts in tables.items()}


def _with_role(instances: pa.Table, roles: Sequence[str]) -> pa.Table:
    return instances.select(INSTANCES.names).add_column(0, "role", pa.array(roles, pa.string()))


def _numbered(objects: pa.Table, number: int) -> pa.Table:
    numbers = pa.array([number] * objects.num_rows, pa.int32())
    return objects.add_column(0, "case", numbers).cast(PLANNED)


def _case_plan(spec: DatasetSpec, row: Mapping[str, Any], objects: pa.Table) -> CasePlan:
    shape = (row["slices"], row["rows"], row["columns"])
    spacing = (row["spacing_slice_mm"], row["spacing_row_mm"], row["spacing_column_mm"])
    for transform in spec.transforms:
        if None not in spacing:
            shape, spacing = transform.projected(shape, spacing)
    masks = 1 + sum(mask_channels(label) for label in spec.labels.values()) + len(spec.consensus)
    per_voxel = 4 * max(1, row["channels"] or 1) + MASK_BYTES * masks
    samples = estimate(spec.samples, shape, bytes_per_voxel=per_voxel)
    needed = project_memory(spec, row, objects)
    return CasePlan(
        case_key=row["case_key"],
        person_key=row["person_key"],
        series_key=row["series_key"],
        stack=row["stack"],
        input_bytes=sum(objects.column("size").to_pylist()),
        sample_bytes=samples.bytes,
        peak_bytes=needed.peak,
        load_bytes=needed.load,
        frames=tuple(tuple(frames) for frames in row["frame_lists"] or ()),
    )
