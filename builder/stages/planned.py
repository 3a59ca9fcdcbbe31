"""Plans of shards on disk: a line of JSON for each shard, many lines in a file, and an index that says where each is.

A line needs none of the others. So a worker reads only its own, and a later plan takes over the lines of shards in
which nothing changed.
"""

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice
from math import isqrt
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.errors import LayoutError
from builder.model.parquet import read_parquet
from builder.model.sorting import changes
from builder.model.tables import INSTANCES
from builder.model.zarr_format import checksum
from builder.plan import PLANNED, CasePlan, ImagePlan, ShardPlan
from builder.stages.checked import READS
from builder.storage import Store

SPEC: Final = "spec.json"
"""File of a plan's private folder with the spec that it was made from."""

INDEX: Final = "shards/places"
"""Written last. Records in order: the 16 bytes of a shard's fingerprint, and the place of its line."""

FILE_BYTES: Final = 4 << 20
"""Most bytes of a file of lines, unless one line is longer: what is copied from an earlier plan is read by the file."""

OWN: Final = (
    *("path", "member", "size", "stamp", "header_sha256", "content_sha256", "pixel_offset", "pixel_length"),
    *("sop_instance_uid", "acquisition_date", "content_date", "acquisition_time", "content_time"),
    *("acquisition_datetime", "acquisition_number", "instance_number", "temporal_position", "trigger_time"),
    *("exposure_mas", "image_position_patient", "rescale_slope", "rescale_intercept", "frame_reference_time"),
)
"""Columns of INSTANCES that differ between the objects of a series, or may. The others can differ, too."""

SHARED: Final = tuple(name for name in INSTANCES.names if name not in OWN)

_RECORD = struct.Struct(">16sIQI4s")
_PLACES = {name: place for place, name in enumerate(SHARED)}
_STAMPED = ("path", "member", "stamp")
_SHARED = pa.schema([INSTANCES.field(name) for name in SHARED])


@dataclass(frozen=True, eq=False)
class Rows:
    """The objects of a shard, in the order of their parts: a part is an image or a label of a case.

    Parameters
    ----------
    parts
        Case (its place in the shard), role and number of objects of each part.
    own
        Values of each column of OWN.
    shared
        Of objects that follow each other and have the same values in SHARED, their number and these values.
    """

    parts: Sequence[tuple[int, str, int]]
    own: Mapping[str, Sequence[Any]]
    shared: Sequence[tuple[int, Sequence[Any]]]

    @classmethod
    def of(cls, objects: pa.Table) -> "Rows":
        """Return the rows of a table with schema PLANNED."""
        names = zip(objects["case"].to_pylist(), objects["role"].to_pylist(), strict=True)
        shared = objects.select(SHARED)
        starts = np.flatnonzero(changes(shared))
        cells = zip(*(column.to_pylist() for column in shared.take(pa.array(starts)).columns), strict=True)
        counts = np.diff([*starts, objects.num_rows]).tolist()
        return cls(
            [(case, role, len(list(own))) for (case, role), own in groupby(names)],
            {name: objects[name].to_pylist() for name in OWN},
            list(zip(counts, cells, strict=True)),
        )

    def column(self, name: str) -> Sequence[Any]:
        """Return a column of PLANNED."""
        if name in self.own:
            return self.own[name]
        if name in _PLACES:
            return [cells[_PLACES[name]] for count, cells in self.shared for _ in range(count)]
        place = ("case", "role").index(name)
        return [part[place] for part in self.parts for _ in range(part[2])]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the line of a shard lies: the number of the file, the first byte, how many, and their crc32c."""

    file: int
    start: int
    length: int
    checksum: bytes


def plan_line(fingerprint: str, cases: Sequence[CasePlan], rows: Rows, removals: Mapping[str, bytes]) -> bytes:
    """Return the plan of a shard as a line; ``removals`` are what goes out of heads by digest, of other shards too."""
    faces = {face for case in cases for face in case.faces if face in removals}
    document = {
        "fingerprint": fingerprint,
        "cases": [{**_fields(case), "partners": list(map(_fields, case.partners))} for case in cases],
        "faces": {face: base64.b64encode(removals[face]).decode() for face in sorted(faces)},
        "parts": rows.parts,
        "own": {name: _folded(values) for name, values in rows.own.items()},
        "shared": [[count, _stated(cells)] for count, cells in rows.shared],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _fields(of: CasePlan | ImagePlan) -> dict[str, Any]:
    """Return what ``asdict`` does, which would copy every value."""
    return {one.name: getattr(of, one.name) for one in fields(of)}


def _folded(values: Sequence[Any]) -> Any:
    """Return a column, or its only value. -0.0 equals 0.0, alone and in lists, so columns with these stay."""
    first = values[0] if values else None
    if isinstance(first, list) or (first == 0.0 and isinstance(first, float)) or values.count(first) < len(values):
        return values
    return first


def _stated(cells: Sequence[Any]) -> dict[str, Any]:
    return {name: cell for name, cell in zip(SHARED, cells, strict=True) if cell is not None}


def laid_out(lines: Iterable[Place]) -> Iterator[Place]:
    """Yield where lines come to lie in files of their own, one after the other, given where they are now."""
    number = start = 0
    for line in lines:
        if start and start + line.length > FILE_BYTES:
            number, start = number + 1, 0
        yield Place(number, start, line.length, line.checksum)
        start += line.length


def write_plans(store: Store, places: Sequence[Place], lines: Iterable[bytes]) -> None:
    """Write files of plans, given where each line comes to lie."""
    left = iter(lines)
    for number, own in groupby(place.file for place in places):
        store.put(plans_path(number), b"".join(islice(left, len(list(own)))))


def index_of(places: Iterable[tuple[str, Place]]) -> bytes:
    """Return the index that says where the line of each shard is, given by its fingerprint. It is written last."""
    records = (_RECORD.pack(bytes.fromhex(shard), at.file, at.start, at.length, at.checksum) for shard, at in places)
    return b"".join(sorted(records))


def is_planned(store: Store) -> bool:
    """Return whether a folder holds a whole plan."""
    return store.exists(INDEX)


def plans_path(number: int) -> str:
    """Return the path of a file of plans."""
    return f"shards/{number:06d}.jsonl"


def load_plan(store: Store, shard: str) -> ShardPlan:
    """Read a shard's plan from the plan's store. Raises LayoutError when the plan does not have the shard."""
    try:
        place = _place_of(store, bytes.fromhex(shard))
    except FileNotFoundError:
        return _load_packed(store, shard)
    return parse_plan(read_line(store, place))


def read_line(store: Store, place: Place) -> bytes:
    """Read the plan of a shard. Raises LayoutError if it was damaged where it lies."""
    for _ in range(READS):
        line = store.read_range(plans_path(place.file), place.start, length=place.length)
        if checksum(line) == place.checksum:
            return line
    raise damaged_line(place)


def damaged_line(place: Place) -> LayoutError:
    """Return the error of a line that is not as it was written."""
    return LayoutError(
        f"{plans_path(place.file)} of the plan: found other bytes than were planned, {READS} times, expected those of "
        "their checksum: remove the plan's folder and plan again"
    )


class LineReader:
    """Reads lines in the order of their places: each file once, whole, as a plan takes most lines of the one before."""

    def __init__(self, store: Store) -> None:
        self._store, self._number, self._data, self._reads = store, -1, b"", 0

    def line(self, place: Place) -> bytes:
        """Return a line. Raises FileNotFoundError, or LayoutError if it was damaged where it lies."""
        if place.file != self._number:
            self._number, self._reads = place.file, 0
        while True:
            if not self._reads:
                self._read()
            line = self._data[place.start : place.start + place.length]
            if checksum(line) == place.checksum:
                return line
            if self._reads >= READS:
                raise damaged_line(place)
            self._read()

    def _read(self) -> None:
        self._data, self._reads = self._store.read(plans_path(self._number)), self._reads + 1

    def is_sound(self, place: Place) -> bool:
        """Return whether a line is there as it was written."""
        try:
            self.line(place)
        except (FileNotFoundError, LayoutError):
            return False
        return True


def parse_plan(line: bytes) -> ShardPlan:
    """Return the plan that ``plan_line`` wrote."""
    found = json.loads(line)
    cases = tuple(map(_parse_case, found["cases"]))
    faces = {digest: base64.b64decode(data) for digest, data in found["faces"].items()}
    return ShardPlan(found["fingerprint"], cases, _objects(found), faces)


def stamps_of(line: bytes) -> set[tuple[int, str, str, str]]:
    """Return source, path, member and stamp (modification time, ETag) of each object in a line."""
    found = json.loads(line)
    sources = [cells["source"] for count, cells in found["shared"] for _ in range(count)]
    return set(zip(sources, *(_unfolded(found, name, len(sources)) for name in _STAMPED), strict=True))


def _unfolded(found: Mapping[str, Any], name: str, total: int) -> list[Any]:
    values = found["own"].get(name)
    return values if isinstance(values, list) else [values] * total


def _objects(found: Mapping[str, Any]) -> pa.Table:
    numbers = [count for count, _ in found["shared"]]
    total = sum(numbers)
    shared = pa.Table.from_pylist([cells for _, cells in found["shared"]], schema=_SHARED)
    columns = dict(zip(SHARED, shared.take(pa.array(np.repeat(np.arange(len(numbers)), numbers))).columns, strict=True))
    for name in OWN:
        columns[name] = pa.array(_unfolded(found, name, total), INSTANCES.field(name).type)
    for place, name in enumerate(("case", "role")):
        values = [part[place] for part in found["parts"] for _ in range(part[2])]
        columns[name] = pa.array(values, PLANNED.field(name).type)
    return pa.table([columns[name] for name in PLANNED.names], schema=PLANNED)


def _place_of(store: Store, shard: bytes) -> Place:
    """Look a shard up near where its fingerprint lies among equally spread ones, then everywhere."""
    count = store.size(INDEX) // _RECORD.size
    near, reach = int.from_bytes(shard[:8], "big") * count >> 64, 64 + 4 * isqrt(count)
    for first, last in ((max(0, near - reach), min(count, near + reach)), (0, count)):
        data = store.read_range(INDEX, first * _RECORD.size, length=(last - first) * _RECORD.size)
        for name, *place in _RECORD.iter_unpack(data):
            if name == shard:
                return Place(*place)
    raise LayoutError(f"the index of the plan lacks shard {shard.hex()}, expected one of its {count}: plan again")


def _parse_case(case: Mapping[str, Any]) -> CasePlan:
    partners = tuple(
        ImagePlan(**image | {"frames": _frames(image), "matrix": tuple(image["matrix"])}) for image in case["partners"]
    )
    labels_on = tuple((label, image) for label, image in case["labels_on"])
    return CasePlan(**{**case, "frames": _frames(case), "partners": partners, "labels_on": labels_on})


def _frames(document: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(frames) for frames in document["frames"])


PACKED_INDEX: Final = "shards/index"
"""Of earlier releases, which wrote many plans into a file of Parquet: fingerprints, and the numbers of these files."""

INDICES: Final = (f"/{INDEX}", f"/{PACKED_INDEX}")
"""Ends of the paths of indices, of every release that wrote one."""

_PACKED = struct.Struct(">16sI")
_KEY = b"shard_plan"


def _load_packed(store: Store, shard: str) -> ShardPlan:
    """Read the plan of a shard that an earlier release wrote."""
    try:
        number = dict(_PACKED.iter_unpack(store.read(PACKED_INDEX)))[bytes.fromhex(shard)]
        path = f"shards/{number:06d}.parquet"
    except FileNotFoundError:  # releases before it wrote a file for each shard
        path = f"shards/{shard}.parquet"
    except KeyError:
        raise LayoutError(f"the index of the plan lacks shard {shard}: plan again") from None
    for plan in _unpacked(store.read(path), shard):
        return plan
    raise LayoutError(f"{path} of the plan lacks shard {shard}, which its index names: plan again")


def _unpacked(data: bytes, shard: str) -> Iterator[ShardPlan]:
    table = read_parquet(data)
    facts = json.loads(table.schema.metadata[_KEY])
    objects, start = table.replace_schema_metadata(None), 0
    for held in facts.get("shards", [facts]):
        rows = held.get("rows", objects.num_rows)
        if shard == held["fingerprint"]:
            cases = tuple(_parse_case(case) for case in held["cases"])
            faces = {digest: base64.b64decode(data) for digest, data in held.get("faces", {}).items()}
            yield ShardPlan(held["fingerprint"], cases, objects.slice(start, rows), faces)
        start += rows
