"""One task writes one whole shard: fetch its cases' objects, prepare, cut, write, receipt."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import environ
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid import resolve_key
from builder.deid.profile import Option, Profile
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.imaging.values import PixelFill
from builder.model.case import Case, Sample
from builder.model.keyed import Key
from builder.model.layout import RECEIPT, Receipt, parse_receipt, picture_path, shard_path
from builder.patches import cut, describe_fields, shard_chunk
from builder.plan import CasePlan, ShardPlan, parse_shard_plan
from builder.shards import CODECS, ShardWriter, open_shard
from builder.sources import AnySource
from builder.spec import DatasetSpec
from builder.stages.annotate import CASE_FACTS, Reads, facts_of
from builder.stages.fetch import fetch, read_object
from builder.stages.prepare import Recipe, prepare
from builder.storage import Store, open_store

SPEC = "spec.json"
VERDICTS = "verdicts"
NOBODY: Mapping[str, CaseError] = {}

@dataclass(frozen=True)
class ShardArgument:
    """Which shard to build: where the plan lies, and where the dataset grows. The key stays in the environment."""

    plan: str
    dataset: str
    shard: str


@dataclass(frozen=True)
class ShardOutcome:
    """What the runner hears of a finished shard."""

    shard: str
    rows: int
    cases: int
    excluded: int
    resumed: bool


def plan_path(shard: str) -> str:
    """Where a shard's plan lies in the plan's store."""
    return f"shards/{shard}.parquet"


def build_shard(argument: ShardArgument) -> ShardOutcome:
    """Build one shard, or find that its receipt is there. Safe to run again, and twice at once."""
    dataset = open_store(argument.dataset)
    receipt = read_receipt(dataset, argument.shard)
    if receipt is not None:
        return ShardOutcome(argument.shard, receipt.rows, receipt.cases, len(receipt.excluded), True)
    store = open_store(argument.plan, directory_mode=0o700)
    spec = _load_spec(store)
    plan = load_plan(store, argument.shard)
    key = resolve_key(spec.deid.patient_key, environ, read=_file)
    receipt = write(plan, spec, dataset, key=key, convicted=_convicted(store, argument.shard))
    return ShardOutcome(argument.shard, receipt.rows, receipt.cases, len(receipt.excluded), False)


def read_receipt(dataset: Store, shard: str) -> Receipt | None:
    """The receipt of a shard, None where the shard is not finished."""
    try:
        return parse_receipt(dataset.read(shard_path(shard, RECEIPT)))
    except FileNotFoundError:
        return None


def load_plan(store: Store, shard: str) -> ShardPlan:
    """A shard's plan from the plan's store."""
    return parse_shard_plan(store.read(plan_path(shard)))


def write(
    plan: ShardPlan, spec: DatasetSpec, dataset: Store, *, key: Key, convicted: Mapping[str, CaseError] = NOBODY
) -> Receipt:
    """Prepare every case of a plan and write the shard; a case that cannot be used loses only itself.

    Parameters
    ----------
    convicted
        Cases that kill the process that prepares them, with the reason to exclude them: they are not touched.
    """
    recipe = _recipe(spec, key)
    chunk = shard_chunk(spec.samples)
    with open_shard(
        dataset,
        plan.fingerprint,
        codec=CODECS[spec.shards.codec],
        facts=CASE_FACTS,
        chunk=chunk,
        storage=spec.shards.fields,
    ) as writer:
        for number, case_plan in enumerate(plan.cases):
            try:
                if case_plan.case_key in convicted:
                    raise convicted[case_plan.case_key]
                _add(writer, case_plan, _rows(plan, number), spec, recipe, key)
            except CaseError as error:
                writer.exclude(case_plan.case_key, error)
                if error.picture is not None:
                    writer.attach(picture_path(case_plan.case_key), error.picture)
        return writer.finish()


def rehearse(argument: ShardArgument, number: int) -> None:
    """Do all the work of one case of a shard, and keep nothing."""
    store = open_store(argument.plan, directory_mode=0o700)
    spec = _load_spec(store)
    plan = load_plan(store, argument.shard)
    key = resolve_key(spec.deid.patient_key, environ, read=_file)
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        one = ShardPlan(plan.fingerprint, plan.bucket, (plan.cases[number],), _alone(_rows(plan, number)))
        write(one, spec, open_store(folder), key=key)


def _load_spec(store: Store) -> DatasetSpec:
    return DatasetSpec.model_validate_json(store.read(SPEC))


def _convicted(store: Store, shard: str) -> dict[str, CaseError]:
    """Cases of a shard that were found to kill their process."""
    try:
        verdicts = json.loads(store.read(f"{VERDICTS}/{shard}.json"))
    except FileNotFoundError:
        return {}
    return {case: CaseError(Reason(reason), detail) for case, (reason, detail) in verdicts.items()}


def _recipe(spec: DatasetSpec, key: Key) -> Recipe:
    return Recipe(
        deid=spec.deid,
        profile=Profile(frozenset(Option(name) for name in spec.deid.options)),
        uids=UidMap(key),
        volumes=spec.volumes,
        reads=Reads(spec.labels, spec.consensus, spec.cohort.labels, UidMap(key)),
        transforms=spec.transforms,
    )


def _add(writer: ShardWriter, plan: CasePlan, rows: pa.Table, spec: DatasetSpec, recipe: Recipe, key: Key) -> None:
    objects = fetch(rows, spec.sources, spec.volumes)
    case = prepare(plan, objects, recipe, fill=_pixels_of(objects.rows, spec.sources, recipe.uids))
    samples = _with_facts(cut(case, spec.samples, key=key, seed=spec.seed), case)
    writer.add_case(samples, described=describe_fields(case))


def _pixels_of(rows: pa.Table, sources: Sequence[AnySource], uids: UidMap) -> PixelFill:
    """Reads an instance's native pixels straight from where the index found them."""
    by_uid = {uids(row["sop_instance_uid"]): row for row in rows.to_pylist()}

    def fill(uid: str, memory: memoryview) -> None:
        row = by_uid[uid]
        if row["pixel_length"] < len(memory):
            found = row["pixel_length"]
            raise CaseError(Reason.UNDECODABLE_PIXELS, f"found {found} bytes of pixels, expected {len(memory)}")
        memory[:] = read_object(row, sources, start=row["pixel_offset"], length=len(memory))

    return fill


def _with_facts(samples: Iterator[Sample], case: Case) -> Iterator[Sample]:
    facts = facts_of(case)
    for sample in samples:
        yield replace(sample, ragged={**sample.ragged, **facts})


def _rows(plan: ShardPlan, number: int) -> pa.Table:
    return plan.objects.filter(pc.equal(plan.objects.column("case"), number))


def _alone(rows: pa.Table) -> pa.Table:
    """A case's rows as those of a shard's only case."""
    place = rows.schema.get_field_index("case")
    return rows.set_column(place, rows.schema.field(place), pa.array([0] * rows.num_rows, pa.int32()))


def _file(path: str) -> bytes:
    return Path(path).read_bytes()
