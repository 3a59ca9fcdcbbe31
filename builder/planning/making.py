"""Turn an inventory into a frozen plan: persons, clinical rows, cohort, links, splits, shards.

Nothing is decoded but heads, where faces must not leave.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.deid.anonymity import Assessment, protect
from builder.deid.columns import crossing
from builder.deid.gate import Gate
from builder.model.tables import INSTANCES
from builder.persons import Persons
from builder.plan import (
    DatasetPlan,
    ShardSummary,
    recipe,
)
from builder.planning.choosing import choose_cases
from builder.planning.clinical import read_clinical
from builder.planning.clinical_times import true_ages
from builder.planning.coverage import map_structures
from builder.planning.deal import alike_lock, cannot, deal, shared_keys
from builder.planning.inputs import PlanInputs
from builder.planning.layouts import (
    count_formats,
    label_name_lines,
    refused_lines,
    unread_lines,
    unread_object_lines,
)
from builder.planning.left_out import LeftOut, leave_out, left_out_line, read_left_out
from builder.planning.link import (
    gather_annotations,
)
from builder.planning.lock import environment_lock
from builder.planning.offsets import made_on
from builder.planning.origins import ask_origins, gather_origins, prove_usage
from builder.planning.people import find_persons
from builder.planning.playbook import map_procedures
from builder.planning.registry import known_again, registry_facts, registry_lines
from builder.planning.reviews import read_reviews
from builder.planning.roster import TRUE_AGE, Roster, clear_cohort
from builder.planning.shard_plans import write_shard_plans
from builder.planning.stated import check_stated
from builder.spec import DatasetSpec
from builder.split.withdrawn import Withdrawn
from builder.stages.gating import gate_of
from builder.stages.graph import Runner


def make_plan(inputs: PlanInputs, runner: Runner) -> DatasetPlan:
    """Decide everything, write the shard plans, and return what the later stages need.

    Raises
    ------
    SpecError
        When a column the spec names does not exist, a licence does not allow the use that must be proven, or nothing
        is left to build.
    """
    check_stated(inputs.spec)
    spec, key, private, inventory = inputs.spec, inputs.key, inputs.private, inputs.inventory
    stacks = inputs.survey.stacks()
    table = inventory.annotations()
    persons = find_persons(inputs, table, registry=inputs.registry)
    registry = known_again(spec.splits, inputs.registry, persons, key=key)
    owners = _annotation_persons(table, persons)
    annotations = gather_annotations(table, owners)
    clinical = read_clinical(inputs, stacks, persons=persons, made=made_on(table, owners))
    stated = ask_origins(spec)
    cohort, links, passed = choose_cases(
        inputs, stacks, persons=persons, clinical=clinical, annotations=annotations, stated=stated
    )
    gate, document = gate_of(spec), recipe(spec, key=key)
    roster = Roster(gate.words.spec, persons, table.select(INSTANCES.names), inventory)
    absent = read_left_out(spec.cohort.leave_out)
    cohort, links = leave_out(cohort, links, absent, withdrawn=inputs.withdrawn.table.num_rows)
    origins = gather_origins(spec, stated, cohort, links, annotations.table, key=key)
    makers = cohort.column("manufacturer")
    cohort, anonymity = _protected(spec, cohort, roster, gate, births=clinical.births)
    kinds = stacks.select(["modality", "instances"])
    del gate, roster, stacks  # what was judged of every text, and all of the survey
    prove_usage(spec, origins)
    together = [g for found in shared_keys(cohort) for g in found.groups] if spec.leaks.on_match == "merge" else ()
    splits = deal(spec, cohort, persons, together=together, registry=registry)
    made = _with_makers(cohort, makers)
    faces = _looked_for(inputs, made)
    store, shards = write_shard_plans(inputs, made, document, runner, links=links, annotations=annotations, faces=faces)
    plan = DatasetPlan(
        url=store.url,
        spec=spec,
        published_spec=inputs.published_spec,
        key=key,
        persons=persons,
        cohort=cohort,
        splits=splits,
        links=links,
        annotations=table.select(INSTANCES.names),
        clinical=clinical.reports,
        shards=shards,
        lock={**environment_lock(document), **absent.lock, **alike_lock(spec.splits), **clinical.lock, **faces.lock},
        origins=origins,
        procedures=map_procedures(spec.catalog.playbook, cohort, inventory, private),
        structures=map_structures(spec.labels, pa.concat_tables([links, passed]), table, private),
        reviews=read_reviews(spec.labels),
        registry=registry,
        withdrawn=_with_types(inputs.withdrawn, shards),
        anonymity=anonymity,
        shared_dates=clinical.shared,
        faces=faces,
    )
    _tell(inputs, _told(inputs, plan, table, kinds, passed=passed, absent=absent))
    return plan


def _with_makers(cohort: pa.Table, makers: pa.ChunkedArray) -> pa.Table:
    """Return the cohort with the makers of its scanners.

    Pixels of some makers are read in their own way, whether or not the makers' names may leave.
    """
    return cohort.set_column(cohort.schema.get_field_index("manufacturer"), "manufacturer", makers)


def _tell(inputs: PlanInputs, lines: Iterable[str]) -> None:
    for line in lines:
        inputs.progress.say(line)


def _looked_for(inputs: PlanInputs, cohort: pa.Table) -> FoundFaces:
    """Return the faces in the images of the cohort."""
    faces = inputs.faces(cohort)
    assert faces.faces == inputs.spec.deid.faces  # otherwise faces would stay that nobody looked for
    return faces


def _told(
    inputs: PlanInputs, plan: DatasetPlan, annotations: pa.Table, kinds: pa.Table, *, passed: pa.Table, absent: LeftOut
) -> Iterator[str]:
    """Yield what a person should know of files, labels and splits, and who was left out. ``kinds`` are of stacks."""
    spec = plan.spec
    used = {n for links in (plan.links, passed) for n in links.column("annotation").to_pylist()}
    left = inputs.inventory.leftovers(columns=["status", "reason", "format", "detail"])
    formats = count_formats(annotations, used) + count_formats(left)
    instances = zip(kinds["modality"].to_pylist(), kinds["instances"].to_pylist(), strict=True)
    for line in (*unread_lines(formats), *refused_lines(left), *unread_object_lines(instances)):
        yield f"files: {line}"
    for line in label_name_lines(spec.labels, spec.sources, annotations):
        yield f"labels: {line}"
    for line in (*registry_lines(registry_facts(plan)), *cannot(spec, plan.cohort, plan.splits)):
        yield f"splits: {line.strip()}"
    if absent.names:
        yield f"cohort: {left_out_line(plan.cohort, absent, withdrawn=plan.withdrawn.table.num_rows)}"


def _with_types(withdrawn: Withdrawn, shards: Sequence[ShardSummary]) -> Withdrawn:
    """Note the types that something decided: without a later person's image nothing might decide them any more."""
    first = next((case for shard in shards for case in shard.cases), None)
    if not withdrawn.table.num_rows or first is None:
        return withdrawn
    pairs = [(first.image, first.number_type), *((p.name, p.number_type) for p in first.partners)]
    return replace(withdrawn, number_types={**withdrawn.number_types, **{n: t for n, t in pairs if t}})


def _protected(
    spec: DatasetSpec, cohort: pa.Table, roster: Roster, gate: Gate, *, births: Mapping[str, date]
) -> tuple[pa.Table, Assessment]:
    """Return the cohort with what ``deid.anonymity`` withholds or makes coarser, and how anonymous it is then.

    The text gate drops values when the version is published, which can make a person's combination rarer, and the
    smallest groups are shown in the plan and the certificate. Therefore the text is judged before anything is counted.
    """
    judged = clear_cohort(cohort, gate, roster)
    safe, anonymity = protect(judged, spec.deid.anonymity, released=_released(spec, cohort))
    cohort = cohort.append_column(TRUE_AGE, true_ages(cohort, births, spec=spec))
    for name in safe.column_names:
        if name not in cohort.column_names:
            cohort = cohort.append_column(name, safe.column(name))
        elif not safe.column(name).equals(judged.column(name)):
            columns = [table.column(name).to_pylist() for table in (cohort, judged, safe)]
            cells = [raw if before == after else after for raw, before, after in zip(*columns, strict=True)]
            field = cohort.schema.field(name)
            cohort = cohort.set_column(cohort.schema.get_field_index(name), field, pa.array(cells, field.type))
    return cohort, anonymity


def _released(spec: DatasetSpec, cohort: pa.Table) -> tuple[str, ...]:
    """Return the columns that go into the dataset."""
    clinical = [name for table in spec.clinical for name in table.names]
    return crossing(cohort.column_names, retain=spec.deid.retain, clinical=clinical)


def _annotation_persons(table: pa.Table, persons: Persons) -> list[str | None]:
    """Return the person of each annotation object, or None for label files, which name nobody."""
    statuses = table.column("status").to_pylist()
    return [p if s == "instance" else None for p, s in zip(persons.keys_of(table), statuses, strict=True)]
