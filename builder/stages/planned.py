"""Plans of shards on disk: many in each Parquet file, and an index that says which file holds which shard.

A file of its own for each shard would take 5 ms to encode, 2 to flush, and a hundred columns of pages for a few rows.
"""

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from math import isqrt
from typing import Any, Final

import pyarrow as pa

from builder.errors import LayoutError
from builder.model.canonical import canonical_json
from builder.model.parquet import parquet_bytes, read_parquet
from builder.plan import CasePlan, ImagePlan, ShardPlan, ShardSummary
from builder.storage import Store

INDEX: Final = "shards/index"
"""Written last. Records in order: the 16 bytes of a shard's fingerprint, and the number of the file with its plan."""

MOST_SHARDS: Final = 64
MOST_ROWS: Final = 4_096
"""Where a file of plans is cut, at a shard's boundary: a worker that builds one shard decodes all of it."""

_RECORD = struct.Struct(">16sI")
_KEY = b"shard_plan"


def packs(rows: Sequence[int]) -> Iterator[range]:
    """Yield which shards share a file, given the number of objects of each."""
    first = held = 0
    for number, count in enumerate(rows):
        if number > first and (number - first == MOST_SHARDS or held + count > MOST_ROWS):
            yield range(first, number)
            first, held = number, 0
        held += count
    if first < len(rows):
        yield range(first, len(rows))


def shard_plans(
    shards: Sequence[ShardSummary], counts: Sequence[int], objects: pa.Table, removals: Mapping[str, bytes]
) -> Iterator[ShardPlan]:
    """Yield the plans of shards of which so many rows of ``objects`` each lie one after the other."""
    start = 0
    for shard, count in zip(shards, counts, strict=True):
        gone = {face: removals[face] for case in shard.cases for face in case.faces if face in removals}
        yield ShardPlan(shard.fingerprint, shard.bucket, shard.cases, objects.slice(start, count), gone)
        start += count


def write_pack(store: Store, number: int, plans: Sequence[ShardPlan], objects: pa.Table) -> None:
    """Write a file of plans, of which ``objects`` holds the rows one after the other."""
    table = objects.replace_schema_metadata({_KEY: canonical_json({"shards": list(map(_facts, plans))})})
    store.put(pack_path(number), parquet_bytes(table, compression="lz4"))


def _facts(plan: ShardPlan) -> dict[str, Any]:
    return {
        "fingerprint": plan.fingerprint,
        "bucket": plan.bucket,
        "cases": [{**_fields(case), "partners": list(map(_fields, case.partners))} for case in plan.cases],
        "faces": {digest: base64.b64encode(data).decode() for digest, data in plan.faces.items()},
        "rows": plan.objects.num_rows,
    }


def _fields(of: CasePlan | ImagePlan) -> dict[str, Any]:
    """Return what ``asdict`` does, which would copy every value."""
    return {one.name: getattr(of, one.name) for one in fields(of)}


def read_pack(store: Store, number: int) -> Iterator[ShardPlan]:
    """Yield the plans of a file."""
    return _parsed(store.read(pack_path(number)))


def write_index(store: Store, numbered: Iterable[tuple[str, int]]) -> None:
    """Write which file holds each shard, given as pairs of fingerprint and number, after all files."""
    store.put(INDEX, b"".join(sorted(_RECORD.pack(bytes.fromhex(shard), number) for shard, number in numbered)))


def is_planned(store: Store) -> bool:
    """Return whether a folder holds a whole plan."""
    return store.exists(INDEX)


def load_plan(store: Store, shard: str) -> ShardPlan:
    """Read a shard's plan from the plan's store. Raises LayoutError when the plan does not have the shard."""
    try:
        path = pack_path(_number_of(store, bytes.fromhex(shard)))
    except FileNotFoundError:  # an earlier release wrote a file for each shard
        path = f"shards/{shard}.parquet"
    for plan in _parsed(store.read(path), only=shard):
        return plan
    raise LayoutError(f"{path} of the plan lacks shard {shard}, which its index names: plan again")


def pack_path(number: int) -> str:
    """Return the path of a file of plans."""
    return f"shards/{number:06d}.parquet"


def _number_of(store: Store, shard: bytes) -> int:
    """Look a shard up near where its fingerprint lies among equally spread ones, then everywhere."""
    count = store.size(INDEX) // _RECORD.size
    near, reach = int.from_bytes(shard[:8], "big") * count >> 64, 64 + 4 * isqrt(count)
    for first, last in ((max(0, near - reach), min(count, near + reach)), (0, count)):
        data = store.read_range(INDEX, first * _RECORD.size, length=(last - first) * _RECORD.size)
        found = dict(_RECORD.iter_unpack(data)).get(shard)
        if found is not None:
            return int(found)
    raise LayoutError(f"the index of the plan lacks shard {shard.hex()}, expected one of its {count}: plan again")


def _parsed(data: bytes, *, only: str = "") -> Iterator[ShardPlan]:
    """Yield the plans in a file, or the one of one shard."""
    table = read_parquet(data)
    facts = json.loads(table.schema.metadata[_KEY])
    objects, start = table.replace_schema_metadata(None), 0
    for held in facts.get("shards", [facts]):
        rows = held.get("rows", objects.num_rows)
        if only in ("", held["fingerprint"]):
            cases = tuple(_parse_case(case) for case in held["cases"])
            faces = {digest: base64.b64decode(data) for digest, data in held.get("faces", {}).items()}
            yield ShardPlan(held["fingerprint"], held["bucket"], cases, objects.slice(start, rows), faces)
        start += rows


def _parse_case(case: Mapping[str, Any]) -> CasePlan:
    partners = tuple(
        ImagePlan(**image | {"frames": _frames(image), "matrix": tuple(image["matrix"])}) for image in case["partners"]
    )
    labels_on = tuple((label, image) for label, image in case["labels_on"])
    return CasePlan(**{**case, "frames": _frames(case), "partners": partners, "labels_on": labels_on})


def _frames(document: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(frames) for frames in document["frames"])
