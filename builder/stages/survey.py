"""Turn chunks of INSTANCES into one row per stack with its verdict, for choosing the cohort. No pixels are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.errors import CaseError, Reason
from builder.imaging.filed import filed_parts, filed_rows, filed_stack, is_filed
from builder.imaging.series_types import Rule, work_out
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.sorting import distinct
from builder.model.tables import TEXT
from builder.sources import AnySource
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.inner import Candidate, admitted, opened
from builder.stages.row_digests import row_digests
from builder.stages.stack_rows import STACKS, Holding, Origin, left_out_row, stack_row
from builder.stages.stated_stacks import is_stated, stated_row
from builder.stages.surveyed import Earlier, find_kept, series_of
from builder.storage import Store, open_store

MEMBERSHIP = pa.schema([pa.field("series", TEXT), pa.field("stack", pa.int32())])
"""Parallel to a chunk's rows: the stack of its series that each instance is in (-1: none, because it is no image).

Instances whose frames belong to several stacks have their own number, which these stacks name as a holder.
"""

IDENTITIES = pa.schema(
    [
        *((name, TEXT) for name in ("patient_id", "issuer_of_patient_id", "study_uid")),
        *((name, TEXT) for name in ("patient_sex", "patient_birth_date")),
        ("source", pa.int32()),
    ]
)
"""Distinct combinations in a chunk, from which persons are derived."""


@dataclass(frozen=True)
class SurveyArgument:
    """Which chunk to survey and with which options. All output goes below ``folder`` in one store.

    A chunk is named after what it holds, and what is found of it after the chunk.
    """

    store: str
    chunk: str
    folder: str
    sources: tuple[AnySource, ...]
    options: VolumeOptions
    on_internal_error: OnInternalError = "exclude"
    rules: tuple[Rule, ...] = ()
    earlier: tuple[Earlier, ...] = ()
    """Chunks of an earlier inventory, surveyed in the same way, that may hold series of this one."""

    @property
    def stacks(self) -> str:
        """Path of the stack rows."""
        return f"{self.folder}/stacks-{self._name}.parquet"

    @property
    def identities(self) -> str:
        """Path of the chunk's distinct identities."""
        return f"{self.folder}/identities-{self._name}.parquet"

    @property
    def membership(self) -> str:
        """Path of the membership of the chunk's instances, which is written last."""
        return f"{self.folder}/membership-{self._name}.parquet"

    @property
    def earlier_chunk(self) -> Earlier:
        """What a later survey needs to know of this one."""
        return Earlier(self.store, self.chunk, self.stacks, self.identities, self.membership, self.unfinished)

    @property
    def unfinished(self) -> str:
        """Path of a mark which says that a series of the chunk met an internal error, so that it is surveyed again."""
        return f"{self.folder}/internal-errors-{self._name}"

    @property
    def _name(self) -> str:
        return self.chunk.rpartition("/")[2].removesuffix(".parquet")


def survey_chunks(arguments: Sequence[SurveyArgument]) -> tuple[InternalError, ...]:
    """Survey those chunks that are not finished. Raises SourceError when a source does not answer.

    The chunks have the same options and rules. What their series are is worked out for all at once.
    """
    pending = [argument for argument in arguments if not _is_there(argument)]
    found: list[tuple[SurveyArgument, _Draft, pa.Table, list[InternalError]]] = []
    for argument in pending:
        chunk = read_parquet(open_store(argument.store, directory_mode=0o700).read(argument.chunk))
        errors: list[InternalError] = []
        draft = _drafted(
            chunk, sources=argument.sources, options=argument.options,
            faults=Faults(argument.on_internal_error, errors.append), earlier=argument.earlier,
        )  # fmt: skip
        found.append((argument, draft, identities(chunk), errors))
    finished = _finished([draft for _, draft, _, _ in found], pending[0].rules if pending else ())
    for (argument, draft, people, errors), stacks in zip(found, finished, strict=True):
        store = open_store(argument.store, directory_mode=0o700)
        if errors:
            store.put(argument.unfinished, b"")
        store.put(argument.stacks, parquet_bytes(stacks, compression="lz4"))
        store.put(argument.identities, parquet_bytes(people, compression="lz4"))
        store.put(argument.membership, parquet_bytes(draft.membership, compression="lz4"))
        if not errors:
            store.delete(argument.unfinished)
    return tuple(error for _, _, _, errors in found for error in errors)


def _is_there(argument: SurveyArgument) -> bool:
    """Return whether a chunk is surveyed, after what an earlier survey found of the same chunk was copied."""
    store = open_store(argument.store, directory_mode=0o700)
    if store.exists(argument.membership) and not store.exists(argument.unfinished):
        return True
    return any(before.chunk == argument.chunk and _copied(before, argument, store) for before in argument.earlier)


def _copied(before: Earlier, argument: SurveyArgument, store: Store) -> bool:
    """Copy what an earlier survey found of the same chunk, and return whether it is there and finished."""
    earlier = open_store(before.store, directory_mode=0o700)
    if not earlier.exists(before.membership) or earlier.exists(before.unfinished):
        return False
    store.put(argument.stacks, earlier.read(before.stacks))
    store.put(argument.identities, earlier.read(before.identities))
    store.put(argument.membership, earlier.read(before.membership))
    store.delete(argument.unfinished)
    return True


def survey(
    chunk: pa.Table,
    *,
    sources: Sequence[AnySource],
    options: VolumeOptions,
    faults: Faults | None = None,
    rules: Sequence[Rule] = (),
    earlier: Sequence[Earlier] = (),
) -> tuple[pa.Table, pa.Table]:
    """Find the stacks of every series of a chunk, split into parts where the options say so.

    The headers of multi-frame objects are read from ``sources``. ``faults`` counts the series that are left
    out because of an unforeseen exception. ``rules`` come before the shipped ones that work out what a series is.
    ``earlier`` are chunks surveyed by the same options: series that are unchanged are not split and judged again.

    Returns
    -------
    tuple
        A table with schema STACKS, in which the number of the chunk is not filled, and one with schema MEMBERSHIP that
        has a row for each row of ``chunk``.
    """
    draft = _drafted(chunk, sources=sources, options=options, faults=faults or Faults(), earlier=earlier)
    (stacks,) = _finished([draft], rules)
    return stacks, draft.membership


@dataclass(frozen=True, eq=False)
class _Draft:
    """A chunk whose series are split into stacks, before what these are is worked out.

    Parameters
    ----------
    kept
        Stacks that an earlier survey found, some of them of other series.
    rows
        Rows of STACKS of all other series.
    order
        Where each stack of the chunk is among ``kept`` and ``rows``.
    membership
        Table with schema MEMBERSHIP.
    """

    kept: pa.Table
    rows: list[dict[str, Any]]
    order: list[int]
    membership: pa.Table


def _drafted(
    chunk: pa.Table,
    *,
    sources: Sequence[AnySource],
    options: VolumeOptions,
    faults: Faults,
    earlier: Sequence[Earlier],
) -> _Draft:
    uids = chunk["series_uid"].to_pylist()
    series = series_of(uids)
    kept = find_kept(earlier, chunk, series)
    rows: list[dict[str, Any]] = []
    surveyed: list[range] = []
    groups: list[list[int]] = []
    new = 0
    order: list[int] = []
    names: list[str] = []
    numbers: list[int] = []
    for held in series:
        name = uids[held.start] or _nameless(chunk, held.start)
        if held.start in kept.series:
            of, places = kept.series[held.start]
        else:
            instances = chunk.slice(held.start, len(held))
            try:
                found, places = _surveyed(instances, name, sources, options)
            except Exception as error:  # noqa: BLE001 - the case boundary
                fault = fault_of_case(error, on_internal_error=faults.action)
                if fault.reason == Reason.INTERNAL_ERROR:
                    faults.add([describe(error, "a series")])
                found, places = _left_out(instances, name, sources, fault)
            rows.extend(found)
            groups += _members(found, places, first=new)
            surveyed.append(held)
            new += len(held)
            end = kept.stacks.num_rows + len(rows)
            of = range(end - len(found), end)
        order.extend(of)
        names.extend([name] * len(held))
        numbers.extend(places)
    if new < chunk.num_rows:
        chunk = chunk.take(pa.array([row for held in surveyed for row in held], pa.int64()))
    for stack, digest in zip(rows, row_digests(chunk, groups), strict=True):
        stack["rows_digest"] = digest
    membership = pa.table([pa.array(names, TEXT), pa.array(numbers, pa.int32())], schema=MEMBERSHIP)
    return _Draft(kept.stacks, rows, order, membership)


def _finished(drafts: Sequence[_Draft], rules: Sequence[Rule]) -> Iterator[pa.Table]:
    """Yield the stacks of each draft."""
    made = _with_types(pa.Table.from_pylist([row for draft in drafts for row in draft.rows], schema=STACKS), rules)
    first = 0
    for draft in drafts:
        stacks = pa.concat_tables([draft.kept, made.slice(first, len(draft.rows))])
        yield stacks.take(pa.array(draft.order, pa.int64())).combine_chunks()
        first += len(draft.rows)


def _nameless(chunk: pa.Table, row: int) -> str:
    """Return the name of a series without a UID, which is one row."""
    return f"\0{chunk['sop_instance_uid'][row].as_py() or chunk['path'][row].as_py()}"


def _with_types(stacks: pa.Table, rules: Sequence[Rule]) -> pa.Table:
    """Fill the columns of TYPE_COLUMNS."""
    found = work_out(stacks, rules)
    for name in found.column_names:
        place = stacks.schema.get_field_index(name)
        stacks = stacks.set_column(place, stacks.schema.field(place), found.column(name))
    return stacks


def _members(rows: Sequence[Mapping[str, Any]], places: Sequence[int], *, first: int) -> list[list[int]]:
    """Return the instances of each stack of a series, counted from ``first``; ``places`` are the series' own."""
    return [[first + n for n, place in enumerate(places) if place in row["holders"]] for row in rows]


def _surveyed(
    instances: pa.Table, name: str, sources: Sequence[AnySource], options: VolumeOptions
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows of one series' stacks, and the number in MEMBERSHIP of each instance."""
    if is_stated(instances):
        origin = Origin(name, **stated(sources[instances["source"][0].as_py()]))
        return [stated_row(instances, origin=origin)], [0]
    if is_filed(instances["format"][0].as_py()):
        return _surveyed_file(instances, name, sources, options)
    stacks = [part for stack in stacks_for(instances, options) for part in admitted(stack, options)]
    return _rows_of(opened(stacks, instances, sources, options), instances, name, sources, options)


def _surveyed_file(
    instances: pa.Table, name: str, sources: Sequence[AnySource], options: VolumeOptions
) -> tuple[list[dict[str, Any]], list[int]]:
    """Do what ``_surveyed`` does for one image file that is not DICOM."""
    stack = filed_stack(filed_rows(instances))
    uids = instances.column("sop_instance_uid").to_pylist()
    candidates = [
        Candidate(part, None if number is None else dict.fromkeys(uids, (number,)))
        for part, number in filed_parts(stack, options)
    ]
    return _rows_of(candidates, instances, name, sources, options)


def _rows_of(
    candidates: Sequence[Candidate],
    instances: pa.Table,
    name: str,
    sources: Sequence[AnySource],
    options: VolumeOptions,
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return a row for each candidate, and the number in MEMBERSHIP of each instance."""
    uids = instances.column("sop_instance_uid").to_pylist()
    place = _places(candidates)
    rows = []
    for candidate in candidates:
        holders = _holders(candidate, place)
        held = [place.get(uid) in holders for uid in uids]
        members = instances if all(held) else instances.filter(pa.array(held))
        origin = Origin(name, **stated(sources[members["source"][0].as_py()]))
        holding = _holding(candidate, members, holders, place)
        rows.append(stack_row(candidate, members, origin=origin, holding=holding, options=options))
    return rows, [place.get(uid, -1) for uid in uids]


def _left_out(
    instances: pa.Table, name: str, sources: Sequence[AnySource], fault: CaseError
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return what ``_surveyed`` returns, for a series that failed: one unusable stack of all its instances."""
    origin = Origin(name, **stated(sources[instances["source"][0].as_py()]))
    return [left_out_row(instances, fault, origin=origin)], [0] * instances.num_rows


def stated(source: AnySource) -> dict[str, str | None]:
    """Return by column what a source states about all its objects."""
    return {"site": source.site, "country": source.country, "collection": source.collection}


def identities(instances: pa.Table) -> pa.Table:
    """Return the distinct identities of INSTANCES rows, sorted, with schema IDENTITIES."""
    return distinct(instances.select(IDENTITIES.names))


def _places(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Map each SOPInstanceUID to the number of its instance in MEMBERSHIP."""
    place = {uid: c.stack.number for c in candidates if c.frames is None for uid in c.uids}
    sharing: dict[str, tuple[int, ...]] = {}
    for candidate in candidates:
        for uid in candidate.frames or ():
            sharing[uid] = (*sharing.get(uid, ()), candidate.stack.number)
    shared = sorted({group for group in sharing.values() if len(group) > 1})
    numbers = {group: len(candidates) + i for i, group in enumerate(shared)}
    return place | {uid: numbers.get(group, group[0]) for uid, group in sharing.items()}


def _holders(candidate: Candidate, place: Mapping[str, int]) -> tuple[int, ...]:
    """Return the numbers in MEMBERSHIP of a candidate's instances."""
    if candidate.frames is None:
        return (candidate.stack.number,)
    return tuple(sorted({place[uid] for uid in candidate.frames}))


def _holding(candidate: Candidate, members: pa.Table, holders: Sequence[int], place: Mapping[str, int]) -> Holding:
    """Return which instances and frames make up a candidate."""
    uids = members.column("sop_instance_uid").to_pylist()
    sizes = members.column("size").to_pylist()
    held = [[size for uid, size in zip(uids, sizes, strict=True) if place[uid] == holder] for holder in holders]
    frames = candidate.frames
    return Holding(
        holders=list(holders),
        holder_instances=[len(found) for found in held],
        holder_bytes=[sum(found) for found in held],
        frame_lists=None if frames is None else [list(frames[uid]) for uid in uids],
    )
