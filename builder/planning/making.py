"""From an inventory to a frozen plan: persons, clinical rows, cohort, links, splits, shards. Nothing is decoded."""

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import LayoutError, SpecError
from builder.model.tables import INSTANCES
from builder.persons import Persons, group_persons, identity
from builder.plan import (
    DatasetPlan,
)
from builder.planning.choosing import choose_cases
from builder.planning.clinical import read_clinical
from builder.planning.coverage import map_structures
from builder.planning.deal import deal, shared_keys
from builder.planning.inputs import PlanInputs
from builder.planning.link import (
    gather_annotations,
)
from builder.planning.lock import environment_lock
from builder.planning.origins import ask_origins, gather_origins, prove_usage
from builder.planning.playbook import map_procedures
from builder.planning.reviews import read_reviews
from builder.planning.shard_plans import write_shard_plans
from builder.stages.survey import IDENTITIES
from builder.storage import open_store


def make_plan(inputs: PlanInputs) -> DatasetPlan:
    """Decide everything, write the shard plans, and return what the later stages need.

    Raises
    ------
    SpecError
        When a column the spec names does not exist, a licence does not allow the use that must be proven, or nothing
        is left to build.
    """
    spec, key, private, inventory = inputs.spec, inputs.key, inputs.private, inputs.inventory
    stacks = inputs.survey.stacks()
    table = inventory.annotations()
    persons = _persons(inputs, table)
    annotations = gather_annotations(table, _annotation_persons(table, persons))
    clinical = read_clinical(inputs, stacks, persons=persons)
    stated = ask_origins(spec)
    cohort, links, passed = choose_cases(
        inputs, stacks, persons=persons, clinical=clinical, annotations=annotations, stated=stated
    )
    origins = gather_origins(spec, stated, cohort, links, annotations.table, key=key)
    prove_usage(spec, origins)
    shared = [group for found in shared_keys(cohort) for group in found.groups]
    splits = deal(spec, cohort, persons, together=shared if spec.leaks.on_match == "merge" else ())
    store, shards = write_shard_plans(inputs, cohort, links=links, annotations=annotations)
    return DatasetPlan(
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
        lock=environment_lock(spec, key=key),
        origins=origins,
        procedures=map_procedures(spec.catalog.playbook, cohort, inventory, private),
        structures=map_structures(spec.labels, pa.concat_tables([links, passed]), table, private),
        reviews=read_reviews(spec),
    )


def _persons(inputs: PlanInputs, annotations: pa.Table) -> Persons:
    spec = inputs.spec
    names = IDENTITIES.names
    found = [t.select(names) for t in (inputs.survey.identities(), annotations, inputs.inventory.leftovers())]
    everybody = pa.concat_tables(found)
    everybody = everybody.filter(pc.is_valid(pc.coalesce(everybody["study_uid"], everybody["patient_id"])))
    persons = group_persons(everybody, aliases=_aliases(spec.persons.aliases), key=inputs.key)
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
