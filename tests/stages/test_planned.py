"""Plans of shards come back from the lines that they are written as, and from the files of earlier releases."""

import hashlib
import json
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.model.canonical import Fingerprint, fingerprint
from builder.model.parquet import parquet_bytes
from builder.model.zarr_format import checksum
from builder.plan import PLANNED, CasePlan, ImagePlan, ShardPlan
from builder.stages import planned
from builder.stages.checked import READS
from builder.stages.planned import (
    INDEX,
    LineReader,
    Place,
    Rows,
    index_of,
    is_planned,
    laid_out,
    load_plan,
    parse_plan,
    plan_line,
    plans_path,
    write_plans,
)
from builder.storage import LocalStore, open_store


def plan(number: int, *, rows: int = 2) -> ShardPlan:
    partner = ImagePlan("t2", "k", frames=((1, 2), (3,)), matrix=(1.0,) * 16)
    case = CasePlan(f"c{number}", "p", "s", 0, 1, 2, 3, frames=((0, 1),), image="t1", partners=(partner,),
                    labels_on=(("tumor", "t2"),), face="d")  # fmt: skip
    objects = [{"case": 0, "role": "image", "path": f"{number}/{row}.dcm", "size": row} for row in range(rows)]
    name = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return ShardPlan(name, (case,), pa.Table.from_pylist(objects, schema=PLANNED), {"d": b"\0face"})


def alike(one: ShardPlan, other: ShardPlan) -> bool:
    facts = [(p.fingerprint, p.cases, p.faces) for p in (one, other)]
    return facts[0] == facts[1] and one.objects.equals(other.objects)


def line(of: ShardPlan) -> bytes:
    return plan_line(of.fingerprint, of.cases, Rows.of(of.objects), {**of.faces, "other": b"face"})


def written(folder: Path, plans: list[ShardPlan]) -> list[Place]:
    store, lines = open_store(folder), [line(plan) for plan in plans]
    places = [*laid_out(Place(9, 9, len(own), checksum(own)) for own in lines)]
    write_plans(store, places, lines)
    assert not is_planned(store)
    store.put(INDEX, index_of(zip((p.fingerprint for p in plans), places, strict=True)))
    assert is_planned(store)
    return places


def test_every_shard_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plans = [plan(number, rows=number % 3) for number in range(30)]
    monkeypatch.setattr(planned, "FILE_BYTES", 4 * len(line(plans[1])))
    store, places = open_store(tmp_path), written(tmp_path, plans)
    assert [place.file for place in places] == sorted(place.file for place in places)
    sizes = [store.size(plans_path(number)) for number in range(places[-1].file + 1)]
    assert len(sizes) > 5
    assert all(size <= planned.FILE_BYTES for size in sizes)
    assert all(alike(load_plan(store, p.fingerprint), p) for p in plans)
    reader = LineReader(store)
    assert all(alike(parse_plan(reader.line(place)), p) for p, place in zip(plans, places, strict=True))
    with pytest.raises(LayoutError, match="plan again"):
        load_plan(store, "0" * 32)


def test_a_file_holds_at_least_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planned, "FILE_BYTES", 1)
    assert [(place.file, place.start) for place in written(tmp_path, [plan(1), plan(2)])] == [(0, 0), (1, 0)]
    assert [*laid_out([])] == []


def test_every_cell_comes_back_as_it_was():
    rows = [
        {"case": case, "role": role, "path": f"ä\n{n}", "size": 0, "rescale_slope": slope, "rows": n // 2,
         "image_position_patient": place, "trigger_time": 1 / 3, "kvp": kvp, "referenced_sop_uids": uids}
        for n, (case, role, slope, place, kvp, uids) in enumerate(
            [
                (0, "image", 0.0, [0.0, 1.0], 120.0, ["a"]), (0, "image", -0.0, [-0.0, 1.0], 120.0, ["a"]),
                (0, "tumor", 0.0, None, 0.0, []), (0, "tumor", 0.0, [], -0.0, None),
                (1, "image", None, [0.1], 1e300, [""]),
            ]
        )
    ]  # fmt: skip
    objects = pa.Table.from_pylist(rows, schema=PLANNED)
    back = parse_plan(line(replace(plan(1), objects=objects)))
    assert repr(back.objects.to_pylist()) == repr(objects.to_pylist())
    assert back.objects.schema == PLANNED


@pytest.mark.parametrize("where", ["whole", "one"])
def test_a_damaged_line_is_not_believed(tmp_path: Path, where: str):
    store, plans = open_store(tmp_path), [plan(1), plan(2)]
    places = written(tmp_path, plans)
    data = bytearray(store.read(plans_path(0)))
    data[places[1].start + 20] ^= 1
    store.put(plans_path(0), bytes(data))
    reader = LineReader(store)
    assert [reader.is_sound(place) for place in places] == [True, False]
    with pytest.raises(LayoutError, match="other bytes than were planned"):
        _ = load_plan(store, plans[1].fingerprint) if where == "one" else reader.line(places[1])
    store.delete(plans_path(0))
    assert not LineReader(store).is_sound(places[0])


def test_a_line_that_is_damaged_on_its_way_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    places, read, reads = written(tmp_path, [plan(1)]), LocalStore.read, []

    def damage(self: LocalStore, path: str) -> bytes:
        reads.append(path)
        return read(self, path)[: -1 if len(reads) < READS else None]

    monkeypatch.setattr(LocalStore, "read", damage)
    assert LineReader(open_store(tmp_path)).is_sound(places[0])
    assert len(reads) == READS


def test_names_that_are_not_spread_evenly_are_found(tmp_path: Path):
    store = open_store(tmp_path)
    places = [Place(number, 2 * number, 3, b"1234") for number in range(5000)]
    store.put(INDEX, index_of((f"{number:032x}", place) for number, place in enumerate(places)))
    assert all(planned._place_of(store, place.file.to_bytes(16, "big")) == place for place in places[::97])


def test_plans_of_earlier_releases_are_read(tmp_path: Path):
    store, plans = open_store(tmp_path), [plan(1), plan(2)]
    shards = [
        {"fingerprint": p.fingerprint, "bucket": "01", "cases": [asdict(c) for c in p.cases],
         "faces": {"d": "AGZhY2U="}, "rows": p.objects.num_rows}
        for p in plans
    ]  # fmt: skip
    table = pa.concat_tables([p.objects for p in plans])
    table = table.replace_schema_metadata({b"shard_plan": json.dumps({"shards": shards}).encode()})
    store.put("shards/000007.parquet", parquet_bytes(table, compression="lz4"))
    store.put("shards/index", b"".join(struct.pack(">16sI", bytes.fromhex(p.fingerprint), 7) for p in plans))
    assert all(alike(load_plan(store, p.fingerprint), p) for p in plans)
    with pytest.raises(LayoutError, match="plan again"):
        load_plan(store, "0" * 32)


def test_plans_of_the_first_releases_are_read(tmp_path: Path):
    store, before = open_store(tmp_path), replace(plan(1), faces={})
    facts = {"fingerprint": before.fingerprint, "bucket": "01", "cases": [asdict(c) for c in before.cases]}
    table = before.objects.replace_schema_metadata({b"shard_plan": json.dumps(facts).encode()})
    store.put(f"shards/{before.fingerprint}.parquet", parquet_bytes(table, compression="lz4"))
    assert alike(load_plan(store, before.fingerprint), before)


def test_a_fingerprint_goes_on_as_if_from_the_start():
    begun = Fingerprint({"recipe": 1}, b"x")
    assert [begun.also([n], "y") for n in range(3)] == [fingerprint({"recipe": 1}, b"x", [n], "y") for n in range(3)]
