"""One task writes one whole shard: fetch its cases' objects, prepare, cut, write, receipt."""

import io
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import environ
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pydicom

from builder.deid import resolve_key
from builder.deid.profile import Option, Profile
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.headers.attributes import PARSER_ERRORS
from builder.model.case import Case, Sample
from builder.model.keyed import Key
from builder.model.layout import RECEIPT, Receipt, parse_receipt, shard_path
from builder.patches import cut, describe_fields, shard_chunk
from builder.plan import IMAGE_ROLE, CasePlan, ShardPlan, parse_shard_plan
from builder.protocols import Entry, LabelObject
from builder.shards import CODECS, ShardWriter, open_shard
from builder.sources import AnySource
from builder.spec import DatasetSpec
from builder.stages.prepare import Objects, Recipe, measures_of, prepare
from builder.storage import Store, open_store

SPEC = "spec.json"

CASE_FACTS = pa.schema(
    [
        ("measure_names", pa.list_(pa.string())),
        ("measure_values", pa.list_(pa.float64())),
        ("notes", pa.list_(pa.string())),
    ]
)
"""Columns every sample repeats of its case: measures of its labels, and codes about its volume."""


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
    spec = DatasetSpec.model_validate_json(store.read(SPEC))
    plan = parse_shard_plan(store.read(plan_path(argument.shard)))
    key = resolve_key(spec.deid.patient_key, environ, read=_file)
    receipt = write(plan, spec, dataset, key=key)
    return ShardOutcome(argument.shard, receipt.rows, receipt.cases, len(receipt.excluded), False)


def read_receipt(dataset: Store, shard: str) -> Receipt | None:
    """The receipt of a shard, None where the shard is not finished."""
    try:
        return parse_receipt(dataset.read(shard_path(shard, RECEIPT)))
    except FileNotFoundError:
        return None


def write(plan: ShardPlan, spec: DatasetSpec, dataset: Store, *, key: Key) -> Receipt:
    """Prepare every case of a plan and write the shard; a case that cannot be used loses only itself."""
    recipe = Recipe(
        deid=spec.deid,
        profile=Profile(frozenset(Option(name) for name in spec.deid.options)),
        uids=UidMap(key),
        volumes=spec.volumes,
        labels=spec.labels,
        transforms=spec.transforms,
    )
    chunk = shard_chunk(spec.samples)
    with open_shard(
        dataset, plan.fingerprint, codec=CODECS[spec.shards.codec], facts=CASE_FACTS, chunk=chunk
    ) as writer:
        for number, case_plan in enumerate(plan.cases):
            try:
                _add(writer, case_plan, _rows(plan, number), spec, recipe, key)
            except CaseError as error:
                writer.exclude(case_plan.case_key, error)
        return writer.finish()


def _add(writer: ShardWriter, plan: CasePlan, rows: pa.Table, spec: DatasetSpec, recipe: Recipe, key: Key) -> None:
    case = prepare(plan, fetch(rows, spec.sources), recipe)
    writer.add_case(_with_facts(cut(case, spec.samples, key=key, seed=spec.seed), case))
    for name, facts in describe_fields(case).items():
        writer.describe(name, unit=facts.unit, segments=facts.segments)


def _with_facts(samples: Iterator[Sample], case: Case) -> Iterator[Sample]:
    measures = measures_of(case)
    facts: dict[str, list[Any]] = {
        "measure_names": list(measures),
        "measure_values": list(measures.values()),
        "notes": sorted(case.volume.notes),
    }
    for sample in samples:
        yield replace(sample, ragged={**sample.ragged, **facts})


def _rows(plan: ShardPlan, number: int) -> pa.Table:
    return plan.objects.filter(pc.equal(plan.objects.column("case"), number))


def fetch(rows: pa.Table, sources: tuple[AnySource, ...]) -> Objects:
    """Read the objects of one case.

    Raises
    ------
    CaseError
        When an object is gone, changed since the index, or cannot be parsed.
    SourceError
        When a source does not answer.
    """
    images = []
    labels: dict[str, list[LabelObject]] = {}
    for row in rows.to_pylist():
        data = sources[row["source"]].read(Entry(row["path"], row["size"], row["stamp"], row["member"]))
        content = _parsed(data) if row["format"] == "dicom" else data
        if row["role"] == IMAGE_ROLE:
            images.append(content)
        else:
            name = posixpath.basename(row["member"] or row["path"])
            labels.setdefault(row["role"], []).append(LabelObject(content, name))
    return Objects(tuple(images), _frozen(labels))


def _frozen(labels: Mapping[str, list[LabelObject]]) -> Mapping[str, tuple[LabelObject, ...]]:
    return {name: tuple(found) for name, found in labels.items()}


def _file(path: str) -> bytes:
    return Path(path).read_bytes()


def _parsed(data: bytes) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(data), force=True)
    except PARSER_ERRORS as error:
        raise CaseError(Reason.UNREADABLE, f"pydicom cannot parse an object ({type(error).__name__})") from error
