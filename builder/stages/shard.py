"""Build one whole shard in one task: fetch, prepare, cut and write its cases, then write the receipt."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import environ
from pathlib import Path

import pyarrow as pa

from builder.copies import PRINTS_VERSION, Print, prints_table
from builder.deid import resolve_key
from builder.deid.gate import Gate
from builder.errors import CaseError, Reason
from builder.model.case import Case, Slabs
from builder.model.keyed import Key
from builder.model.layout import RECEIPT, Receipt, parse_receipt, picture_path, shard_path
from builder.model.parquet import parquet_bytes
from builder.patches import FieldFacts, cut, describe_fields, shard_chunk
from builder.plan import MOST_AHEAD_BYTES, ShardPlan
from builder.shards import CODECS, ShardWriter, open_shard
from builder.spec import DatasetSpec, keeping
from builder.stages.again import discard, is_provisional, next_name, same_content
from builder.stages.ahead import one_ahead
from builder.stages.annotate import case_facts
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.coming import coming
from builder.stages.fetch import fetch, pixels_of
from builder.stages.gating import WITHHELD_TEXTS, cleared, gates_of, list_withheld
from builder.stages.image_sets import load_each
from builder.stages.loading import (
    NOBODY,
    finished_case,
    image_field,
    load_case,
    load_image,
    print_of,
    recipe_of,
    rows_of_case,
    rows_of_image,
)
from builder.stages.opening import opened
from builder.stages.planned import SPEC, load_plan
from builder.stages.prepare import read_volume
from builder.storage import Store, open_store

VERDICTS = "verdicts"
CASES = "cases"
"""Folder of the private workspace for what is kept of each case of a shard."""

HEADERS = ".headers.parquet"
"""Ending of the files there that keep what the headers of a shard name."""


@dataclass(frozen=True)
class ShardArgument:
    """Which shard to build, where its plan is and where the dataset goes. The key stays in the environment."""

    plan: str
    dataset: str
    shard: str
    prints: str = ""
    """Store for the prints of the volumes; empty when no prints are taken."""
    on_internal_error: OnInternalError = "exclude"
    content: str = ""
    """Store for objects that come from servers; empty when this process keeps them for itself."""
    cases: str = ""
    """Store for what a copy of the shard's samples must know of each case; empty when nothing is kept."""
    before: str = ""
    """Store of the published version's plan, where samples are copied from its shards instead of being made."""
    deferred: bool = False
    """Whether series of the shard were planned from tables, so that the names in their headers are kept for the end."""


@dataclass(frozen=True)
class ShardOutcome:
    """What a task tells the runner about a finished shard.

    ``shard`` is the shard's name in the dataset. It differs from the planned name when the shard was built again and
    its content changed (``builder.stages.again``).
    """

    shard: str
    rows: int
    cases: int
    excluded: int
    resumed: bool
    internal_errors: tuple[InternalError, ...] = ()
    incomplete: int = 0
    """Cases that are left out, until the next run, because their source did not give them whole."""


def build_shard(argument: ShardArgument) -> ShardOutcome:
    """Build one shard unless its receipt exists. It is safe to run this again, also concurrently."""
    dataset = open_store(argument.dataset)
    before, name, receipt = _finished(dataset, argument.shard)
    prints = open_store(argument.prints, directory_mode=0o700) if argument.prints else None
    cases = open_store(argument.cases, directory_mode=0o700) if argument.cases else None
    store = open_store(argument.plan, directory_mode=0o700)
    if receipt is not None and _left_beside(name, prints, cases if argument.deferred else None):
        return ShardOutcome(name, receipt.rows, receipt.cases, len(receipt.excluded), True)
    spec = planned_spec(store, argument)
    errors: list[InternalError] = []
    faults = Faults(argument.on_internal_error, errors.append)
    found = opened(replace(load_plan(store, argument.shard), fingerprint=name), spec, faults)
    plan = found.plan
    if argument.deferred and cases is not None:
        cases.put(headers_path(name), parquet_bytes(found.named))
    key = resolve_key(spec.deid.patient_key, environ, read=read_file)
    if receipt is not None:
        if prints is not None and not prints.exists(prints_path(name)):
            prints.put(prints_path(name), parquet_bytes(prints_table(retake(plan, receipt, spec, key=key))))
        return ShardOutcome(name, receipt.rows, receipt.cases, len(receipt.excluded), True)
    convicted = {**convicted_in(store, argument.shard), **found.refused}
    beside = Beside(prints, store, cases)
    receipt = write(plan, spec, dataset, key=key, convicted=convicted, beside=beside, faults=faults)
    if before is not None and same_content(before, receipt):
        discard(dataset, receipt)
        if prints is not None:
            prints.put(prints_path(before.fingerprint), prints.read(prints_path(name)))
        if argument.deferred and cases is not None:
            cases.put(headers_path(before.fingerprint), cases.read(headers_path(name)))
        name = before.fingerprint
    incomplete = sum(case.reason == Reason.SOURCE_INCOMPLETE for case in receipt.excluded)
    return ShardOutcome(name, receipt.rows, receipt.cases, len(receipt.excluded), False, tuple(errors), incomplete)


def read_receipt(dataset: Store, shard: str) -> Receipt | None:
    """Read the receipt of a shard; return None when the shard is not finished."""
    try:
        return parse_receipt(dataset.read(shard_path(shard, RECEIPT)))
    except FileNotFoundError:
        return None


def found_receipt(dataset: Store, shard: str) -> Receipt | None:
    """Read the receipt of a shard that another run may have written, and make it durable.

    Return None when the shard is not finished or lacks an object that its receipt names; it must then be built again.
    """
    receipt = read_receipt(dataset, shard)
    if receipt is None:
        return None
    there = set(dataset.list(shard_path(shard)))
    if not there.issuperset(shard_path(shard, stored.path) for stored in receipt.objects):
        return None
    dataset.settle(shard_path(shard, RECEIPT))
    return receipt


def _finished(dataset: Store, planned: str) -> tuple[Receipt | None, str, Receipt | None]:
    """Return the last build's receipt, the name to build a planned shard under, and that name's receipt if it exists.

    A shard with an internal error, or a case that its source did not give whole, counts as unfinished, because the
    fault may have been fixed since. It is built under its next name, because readers of the published version may be
    using the old one.
    """
    before, name = None, planned
    while (receipt := found_receipt(dataset, name)) is not None and is_provisional(receipt):
        before, name = receipt, next_name(name)
    return before, name, receipt


def prints_path(shard: str) -> str:
    """Return the path of a shard's prints in their store."""
    return f"{shard}.{PRINTS_VERSION}.parquet"


def headers_path(shard: str) -> str:
    """Return the path of what the headers of a shard name, where its series were planned from tables."""
    return f"{shard}{HEADERS}"


def _left_beside(shard: str, prints: Store | None, cases: Store | None) -> bool:
    """Return whether a finished shard left what the end of a build needs."""
    return (prints is None or prints.exists(prints_path(shard))) and (
        cases is None or cases.exists(headers_path(shard))
    )


@dataclass(frozen=True)
class Beside:
    """Private stores for what a shard leaves beside the dataset.

    Parameters
    ----------
    prints
        Takes the prints of the volumes; None when no prints are taken.
    withheld
        Takes the list of what the privacy gate withheld.
    cases
        Takes what each case says about its fields, and the columns of which its text was withheld.
    """

    prints: Store | None = None
    withheld: Store | None = None
    cases: Store | None = None


def write(
    plan: ShardPlan,
    spec: DatasetSpec,
    dataset: Store,
    *,
    key: Key,
    convicted: Mapping[str, CaseError] = NOBODY,
    beside: Beside | None = None,
    faults: Faults | None = None,
) -> Receipt:
    """Prepare every case of a plan and write the shard. A case that cannot be used is excluded; the others are kept.

    Parameters
    ----------
    convicted
        Cases known to kill the process that prepares them, with the reason for excluding them. They are not opened.
    beside
        Where to leave prints and what was withheld; None leaves neither.
    faults
        What to do about an exception that is neither a fault of the case nor of the machine. It counts the cases that
        are excluded because of one.
    """
    beside = beside or Beside()
    prints, withheld = beside.prints, beside.withheld
    faults = faults or Faults()
    recipe = recipe_of(spec, key)
    gates = gates_of(spec, len(plan.cases))
    taken: list[Print] = []
    fresh: list[list[Print]] = [[] for _ in plan.cases]
    described: list[Mapping[str, FieldFacts]] = [{} for _ in plan.cases]
    loads = [
        partial(load_case, plan, n, spec, recipe, gate, convicted, keep=found.append if prints is not None else None)
        for n, (found, gate) in enumerate(zip(fresh, gates, strict=True))
    ]
    sizes = [case.load_bytes for case in plan.cases]
    with (
        coming(plan.objects, spec.sources) as wait,
        shard_writer(plan, spec, dataset) as writer,
        one_ahead(_after(wait, loads), sizes=sizes, most=MOST_AHEAD_BYTES) as loaded,
    ):
        for number, (case_plan, pending, found, gate) in enumerate(zip(plan.cases, loaded, fresh, gates, strict=True)):
            other = partial(load_image, plan, number, spec, recipe, gate, found.append if prints is not None else None)
            try:
                case = finished_case(pending.take, case_plan, spec, recipe, other)
                described[number] = _add(writer, case, spec, key, gate)
            except Exception as error:  # noqa: BLE001 - the case boundary
                fault = fault_of_case(error, on_internal_error=faults.action)
                writer.exclude(case_plan.case_key, fault.reason, gate.message(fault.detail))
                if fault.picture is not None:
                    writer.attach(picture_path(case_plan.case_key), fault.picture)
                if fault.reason == Reason.INTERNAL_ERROR:
                    faults.add([describe(error, case_plan.case_key)])
            else:
                taken += found
        if prints is not None:
            prints.put(prints_path(plan.fingerprint), parquet_bytes(prints_table(taken)))
        if beside.cases is not None:
            beside.cases.put(f"{plan.fingerprint}.json", _notes(plan, described, gates))
        kept = list_withheld(withheld, plan.fingerprint, gates) if withheld is not None else {}
        return writer.finish(tallies={WITHHELD_TEXTS: kept} if kept else None)


def _after(wait: Callable[[int], None], loads: Sequence[Callable[[], Case]]) -> list[Callable[[], Case]]:
    """Return functions that load each case once its objects have come."""

    def load(number: int) -> Case:
        wait(number)
        return loads[number]()

    return [partial(load, number) for number in range(len(loads))]


def retake(plan: ShardPlan, receipt: Receipt, spec: DatasetSpec, *, key: Key) -> list[Print]:
    """Take the prints of a finished shard's volumes again from the archive, when their store lacks them."""
    recipe = recipe_of(spec, key)
    excluded = {e.case_key for e in receipt.excluded}
    taken = []
    for number, case_plan in enumerate(plan.cases):
        if case_plan.case_key not in excluded:
            for image in load_each(case_plan):
                own = recipe.of(image)
                objects = fetch(rows_of_image(plan, number, image, own), spec.sources, own.volumes)
                volume = read_volume(image, objects, own, fill=pixels_of(objects.rows, spec.sources, own.uids))
                taken.append(print_of(volume, image, objects.rows))
    return taken


def rehearse(argument: ShardArgument, number: int) -> None:
    """Do all the work of one case of a shard and discard the result."""
    store = open_store(argument.plan, directory_mode=0o700)
    spec = planned_spec(store, argument)
    plan = load_plan(store, argument.shard)
    key = resolve_key(spec.deid.patient_key, environ, read=read_file)
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        one = ShardPlan(plan.fingerprint, (plan.cases[number],), _alone(rows_of_case(plan, number)), plan.faces)
        found = opened(one, spec, Faults())
        write(found.plan, spec, open_store(folder), key=key, convicted=found.refused)


def shard_writer(plan: ShardPlan, spec: DatasetSpec, dataset: Store) -> AbstractContextManager[ShardWriter]:
    """Open the writer of a shard with the storage options of the spec."""
    return open_shard(
        dataset,
        plan.fingerprint,
        codec=CODECS[spec.shards.codec],
        facts=case_facts(spec),
        chunk=shard_chunk(spec.samples, spec.shards.codec),
        storage=spec.shards.fields,
    )


def planned_spec(store: Store, argument: ShardArgument) -> DatasetSpec:
    """Read the spec that a plan was made of."""
    spec = DatasetSpec.model_validate_json(store.read(SPEC))
    return keeping(spec, argument.content) if argument.content else spec


def convicted_in(store: Store, shard: str) -> dict[str, CaseError]:
    """Read which cases of a shard were found to kill their process."""
    try:
        verdicts = json.loads(store.read(f"{VERDICTS}/{shard}.json"))
    except FileNotFoundError:
        return {}
    return {case: CaseError(Reason(reason), detail) for case, (reason, detail) in verdicts.items()}


def _notes(plan: ShardPlan, described: Sequence[Mapping[str, FieldFacts]], gates: Sequence[Gate]) -> bytes:
    """Return what is kept of each case: what it says about its fields, and of which columns text was withheld."""
    notes = {
        case.case_key: {
            "fields": {name: asdict(facts) for name, facts in said.items()},
            "withheld": sorted({column for column, _ in gate.dropped}),
        }
        for case, said, gate in zip(plan.cases, described, gates, strict=True)
    }
    return json.dumps(notes, sort_keys=True).encode()


def _add(
    writer: ShardWriter, finished: tuple[Case, Slabs | None], spec: DatasetSpec, key: Key, gate: Gate
) -> Mapping[str, FieldFacts]:
    case, image = finished
    name = image_field(spec)
    samples = cleared(cut(case, spec.samples, key=key, seed=spec.seed, image=name), case, gate)
    if image is not None:
        samples = (replace(sample, arrays={**sample.arrays, "image": image}) for sample in samples)
    described = describe_fields(case, image=name)
    writer.add_case(samples, described=described)
    return described


def _alone(rows: pa.Table) -> pa.Table:
    """Return a case's rows, numbered as those of a shard's only case."""
    place = rows.schema.get_field_index("case")
    return rows.set_column(place, rows.schema.field(place), pa.array([0] * rows.num_rows, pa.int32()))


def read_file(path: str) -> bytes:
    """Read a local file, such as the one that holds the key."""
    return Path(path).read_bytes()
