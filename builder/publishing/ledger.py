"""Account for every file exactly once, and check that the totals add up before anything is published."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from builder.errors import LayoutError, Reason
from builder.model.keyed import Key
from builder.model.sorting import runs
from builder.model.tables import LEDGER, files_in
from builder.persons import Persons

USED, LABEL, EXCLUDED, QUARANTINED, DUPLICATE = "used", "label", "excluded", "quarantined", "duplicate"
STATUSES = (USED, LABEL, QUARANTINED, EXCLUDED, DUPLICATE)
"""Statuses, strongest first; a series, study or person has the strongest status of its objects."""

OF_FILES = (
    *("source", "path", "member", "sop_instance_uid", "series_uid", "study_uid"),
    *("patient_id", "issuer_of_patient_id"),
)
"""Columns of INSTANCES from which a ledger is made."""

OF_IMAGES = (*OF_FILES, "format", "number_of_frames")
"""The same for images."""

FILES = "files"
"""Column of a ledger in which rows stand for series that were planned from tables: how many files each has."""

PERSONS = "persons"
"""Stage at which persons are left out who withdrew."""

LEVELS = ("files", "instances", "series", "studies", "persons")


@dataclass(frozen=True)
class Fate:
    """What happened to a stack or annotation: its status and, if it was left out, the stage and the reason."""

    status: str
    stage: str = ""
    reason: str = ""
    shard: str | None = None


@dataclass(frozen=True)
class Fates:
    """Fates by private name: (series_uid, stack) for images, (source, path, member) for annotations."""

    stacks: Mapping[tuple[str, int], Fate]
    annotations: Mapping[tuple[int, str, str], Fate]


@dataclass
class Totals:
    """Counts by level and status, gathered while the ledger is written."""

    files: Counter[str] = field(default_factory=Counter)
    instances: Counter[str] = field(default_factory=Counter)
    _best: dict[str, dict[str, int]] = field(default_factory=lambda: {"series": {}, "studies": {}, "persons": {}})

    def add(self, table: pa.Table, *, instances: bool) -> None:
        """Count the files of a ledger part: one a row, unless the part says how many (``FILES``)."""
        if FILES in table.column_names:
            counted = list(zip(table["status"].to_pylist(), table[FILES].to_pylist(), strict=True))
        else:
            counted = [tuple(one.values()) for one in table["status"].value_counts().to_pylist()]
        for status, count in counted:
            self.files[status] += count
            self.instances[status] += count if instances else 0
        for level, column in (("series", "series_key"), ("studies", "study_key"), ("persons", "person_key")):
            best = self._best[level]
            names, _ = runs(table.select([column, "status"]))
            for name, status in zip(names[column].to_pylist(), names["status"].to_pylist(), strict=True):
                if name is not None:
                    rank = STATUSES.index(status)
                    best[name] = min(rank, best.get(name, rank))

    def by_level(self) -> dict[str, dict[str, int]]:
        """Return the counts by level and status, without statuses that have no count."""
        counts = {"files": dict(self.files), "instances": dict(self.instances)}
        for level, best in self._best.items():
            counts[level] = dict(Counter(STATUSES[rank] for rank in best.values()))
        return {level: {s: counts[level][s] for s in STATUSES if counts[level].get(s)} for level in LEVELS}


def image_ledger(chunk: pa.Table, membership: pa.Table, fates: Fates, *, persons: Persons, key: Key) -> pa.Table:
    """Return the ledger rows of a chunk of image instances, in schema LEDGER."""
    first, numbers = runs(membership.select(["series", "stack"]))
    stacks = zip(*(column.to_pylist() for column in first.columns), strict=True)
    found = _fate_rows(fates.stacks.get(stack, _NO_IMAGE) for stack in stacks)
    table = _ledger(chunk, found.take(pa.array(numbers)), persons=persons, key=key)
    files = files_in(chunk)
    return table if max(files, default=1) == 1 else table.append_column(FILES, pa.array(files, pa.int64()))


def annotation_ledger(table: pa.Table, fates: Fates, *, persons: Persons, key: Key) -> pa.Table:
    """Return the ledger rows of annotation objects and files."""
    found = _fate_rows(fates.annotations.get(name, _UNLINKED) for name in file_names(table))
    return _ledger(table, found, persons=persons, key=key)


def leftover_ledger(table: pa.Table, *, persons: Persons, key: Key) -> pa.Table:
    """Return the ledger rows of duplicates and quarantined files, with the reasons from the index."""
    rows = zip(table.column("status").to_pylist(), table.column("reason").to_pylist(), strict=True)
    found = _fate_rows(Fate(DUPLICATE if s == "duplicate" else QUARANTINED, "index", r or "") for s, r in rows)
    return _ledger(table, found, persons=persons, key=key)


def withdrawn_ledger(tombstone: str, files: int) -> pa.Table:
    """Return a row without any key of its own for each file of a person who withdrew."""
    row = {"person_key": tombstone, "status": EXCLUDED, "stage": PERSONS, "reason": Reason.WITHDRAWN.value}
    return pa.Table.from_pylist([row] * files, schema=LEDGER)


def file_names(table: pa.Table) -> Iterator[tuple[int, str, str]]:
    """Yield the private name of each file: source, path and member."""
    yield from zip(*(table.column(name).to_pylist() for name in ("source", "path", "member")), strict=True)


def file_keys(table: pa.Table, key: Key) -> Iterator[str]:
    """Yield the keyed name of each file."""
    return key.names_of("file", (tuple(map(str, name)) for name in file_names(table)))


def check_totals(totals: Totals, *, files: int, published: Mapping[str, int]) -> None:
    """Refuse totals that do not add up.

    Parameters
    ----------
    files
        Number of files that the sources listed.
    published
        Counts from the shards: ``instances`` used in cases that gave samples.

    Raises
    ------
    LayoutError
        If they do not add up; the message names both numbers.
    """
    counted = sum(totals.files.values())
    if counted != files:
        raise LayoutError(f"ledger: found {counted} rows, expected {files}, one a file listed; nothing is published")
    used = totals.instances[USED]
    if used != published["instances"]:
        raise LayoutError(
            f"ledger: found {used} used instances, expected {published['instances']} as in the shards; "
            "nothing is published"
        )


def chained(parts: Iterable[tuple[pa.Table, bool]], totals: Totals) -> Iterator[pa.Table]:
    """Yield ledger parts while counting them; the flag says whether the rows are DICOM instances."""
    for table, instances in parts:
        totals.add(table, instances=instances)
        yield table


_NO_IMAGE = Fate(EXCLUDED, "survey", Reason.NOT_AN_IMAGE.value)
_UNLINKED = Fate(EXCLUDED, "labels", Reason.NOT_SELECTED.value)
_OF_FATES = ["status", "stage", "reason", "shard"]


def _fate_rows(fates: Iterable[Fate]) -> pa.Table:
    """Return the columns of LEDGER that tell fates."""
    rows = ((fate.status, fate.stage or None, fate.reason or None, fate.shard) for fate in fates)
    columns = list(zip(*rows, strict=True)) or [()] * len(_OF_FATES)
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names=_OF_FATES)


def _ledger(table: pa.Table, fates: pa.Table, *, persons: Persons, key: Key) -> pa.Table:
    columns = {
        "object_key": pa.array(_object_keys(table, key), pa.string()),
        "series_key": _keyed(table.column("series_uid"), "series", key),
        "study_key": _keyed(table.column("study_uid"), "study", key),
        "person_key": pa.array(persons.keys_of(table), pa.string()),
        **{name: fates[name] for name in _OF_FATES},
    }
    return pa.table(columns, schema=LEDGER)


def _object_keys(table: pa.Table, key: Key) -> list[str]:
    """Return the keyed SOPInstanceUIDs, or keyed source, path and member for files without one."""
    uids = table.column("sop_instance_uid").to_pylist()
    of_objects = key.names("object", filter(None, uids))
    without = [place for place, uid in enumerate(uids) if not uid]
    if not without:
        return list(of_objects)
    of_files = file_keys(table.take(pa.array(without)), key)
    return [next(of_objects) if uid else next(of_files) for uid in uids]


def _keyed(column: pa.ChunkedArray, kind: str, key: Key) -> pa.Array:
    """Return the keyed names of values; null and empty values become null. Each distinct value is keyed once."""
    found = column.combine_chunks().dictionary_encode()
    values = found.dictionary.to_pylist()
    names = key.names(kind, filter(None, values))
    return pa.array([next(names) if value else None for value in values], pa.string()).take(found.indices)
