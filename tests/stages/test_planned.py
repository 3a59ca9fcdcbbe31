"""Plans of shards come back from the files that many of them share, and from those of earlier releases."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.model.canonical import Fingerprint, fingerprint
from builder.model.parquet import parquet_bytes
from builder.plan import PLANNED, CasePlan, ImagePlan, ShardPlan
from builder.stages import planned
from builder.stages.planned import (
    MOST_ROWS,
    MOST_SHARDS,
    is_planned,
    load_plan,
    packs,
    read_pack,
    write_index,
    write_pack,
)
from builder.storage import open_store


def plan(number: int, *, rows: int = 2) -> ShardPlan:
    partner = ImagePlan("t2", "k", frames=((1, 2), (3,)), matrix=(1.0,) * 16)
    case = CasePlan(f"c{number}", "p", "s", 0, 1, 2, 3, frames=((0, 1),), image="t1", partners=(partner,),
                    labels_on=(("tumor", "t2"),))  # fmt: skip
    objects = [{"case": 0, "role": "image", "path": f"{number}/{row}.dcm", "size": row} for row in range(rows)]
    name = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return ShardPlan(name, f"{number:b}", (case,), pa.Table.from_pylist(objects, schema=PLANNED), {"d": b"\0face"})


def alike(one: ShardPlan, other: ShardPlan) -> bool:
    facts = [(p.fingerprint, p.bucket, p.cases, p.faces) for p in (one, other)]
    return facts[0] == facts[1] and one.objects.equals(other.objects)


def test_every_shard_is_found_again(tmp_path: Path):
    store = open_store(tmp_path)
    plans = [plan(number, rows=1 + number % 3) for number in range(2 * MOST_SHARDS + 9)]
    files = list(packs([p.objects.num_rows for p in plans]))
    assert [len(held) for held in files] == [MOST_SHARDS, MOST_SHARDS, 9]
    for number, held in enumerate(files):
        several = plans[held.start : held.stop]
        write_pack(store, number, several, pa.concat_tables([p.objects for p in several]))
    assert not is_planned(store)
    write_index(store, ((plans[shard].fingerprint, n) for n, held in enumerate(files) for shard in held))
    assert is_planned(store)
    assert all(alike(load_plan(store, p.fingerprint), p) for p in plans)
    assert all(map(alike, [p for n in range(len(files)) for p in read_pack(store, n)], plans))
    with pytest.raises(LayoutError, match="plan again"):
        load_plan(store, "0" * 32)


def test_names_that_are_not_spread_evenly_are_found(tmp_path: Path):
    store = open_store(tmp_path)
    names = [f"{number:032x}" for number in range(5000)]
    write_index(store, ((name, number) for number, name in enumerate(names)))
    assert all(planned._number_of(store, bytes.fromhex(name)) == int(name, 16) for name in names[::97])


def test_a_file_is_cut_at_a_shard_and_holds_at_least_one():
    assert list(packs([MOST_ROWS + 1, 1, MOST_ROWS - 1, 1])) == [range(1), range(1, 3), range(3, 4)]
    assert list(packs([])) == []


def test_plans_of_earlier_releases_are_read(tmp_path: Path):
    store, before = open_store(tmp_path), replace(plan(1), faces={})
    facts = {"fingerprint": before.fingerprint, "bucket": before.bucket, "cases": [asdict(c) for c in before.cases]}
    table = before.objects.replace_schema_metadata({b"shard_plan": json.dumps(facts).encode()})
    store.put(f"shards/{before.fingerprint}.parquet", parquet_bytes(table, compression="lz4"))
    assert alike(load_plan(store, before.fingerprint), before)


def test_a_fingerprint_goes_on_as_if_from_the_start():
    begun = Fingerprint({"recipe": 1}, b"x")
    assert [begun.also([n], "y") for n in range(3)] == [fingerprint({"recipe": 1}, b"x", [n], "y") for n in range(3)]
