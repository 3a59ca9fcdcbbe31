"""Plans of shards hold the rows of their objects, however these are cut into chunks, runs and files."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import LayoutError
from builder.model.parquet import parquet_bytes
from builder.model.tables import INSTANCES
from builder.plan import PLANNED, CasePlan
from builder.stages.checked import READS
from builder.stages.gather import ChunkParts, LinesArgument, SortArgument, sort_rows, write_lines, write_run
from builder.stages.planned import LineReader, parse_plan
from builder.stages.survey import MEMBERSHIP
from builder.storage import LocalStore, open_store

OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3"]),  # series
        st.integers(0, 1),  # stack
        st.sampled_from([None, "CT", "MR"]),  # a column that objects of a series share
        st.sampled_from([None, [1.0, 0.0], [1.0, -0.0]]),
        st.sampled_from([None, 132]),  # where pixels begin
        st.integers(0, 9),  # size
    ),
    max_size=12,
)


def table(objects: list[tuple[str, int, str | None, list[float] | None, int | None, int]]) -> pa.Table:
    """Objects in the order of a chunk: by series, in which those of two stacks may alternate."""
    rows = [
        {
            "source": 0, "path": f"{place}.dcm", "status": "instance", "format": "dicom", "series_uid": series,
            "modality": shared, "image_orientation_patient": turn, "pixel_offset": offset, "size": size,
        }
        for place, (series, _, shared, turn, offset, size) in enumerate(objects)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=INSTANCES)


@settings(max_examples=40, deadline=None)
@given(chunks=st.lists(OBJECTS, min_size=1, max_size=3), labels=st.integers(0, 2), swap=st.booleans())
def test_a_plan_holds_the_rows_of_its_objects(chunks: list[list[tuple]], labels: int, swap: bool) -> None:
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        expected: list[tuple[str, int, list[dict[str, object]]]] = []  # role and chunk of each part, and its rows
        wanted: dict[int, list[tuple[int, str, tuple[int, ...]]]] = {}
        for number, objects in enumerate(chunks):
            objects.sort(key=lambda row: row[0])
            whole = table(objects)
            store.put(f"chunk-{number}", parquet_bytes(whole))
            names = pa.table([[row[0] for row in objects], [row[1] for row in objects]], schema=MEMBERSHIP)
            store.put(f"membership-{number}", parquet_bytes(names))
            for series in ("2", "1"):
                own = [r for r, row in zip(whole.to_pylist(), objects, strict=True) if row[:2] == (series, 1)]
                expected.append(("image", number, own))
        if swap:
            expected.reverse()
        series_of = ("1", "2") if swap else ("2", "1")
        for part, (_, number, _) in enumerate(expected):
            wanted.setdefault(number, []).append((part, series_of[part % 2], (1,)))
        drawn = table([("9", 0, None, None, 5, 7)] * labels)
        for row in drawn.to_pylist():
            expected.append(("tumor", -1, [row]))
        parts, cut = len(expected), 1 + len(expected) // 2
        cuts = (0, cut, parts)
        runs = [
            sort_rows(
                SortArgument(
                    store.url, store.url, store.url, number,
                    (ChunkParts(f"chunk-{number}", f"membership-{number}", tuple(held)),), cuts,
                )
            )
            for number, held in wanted.items()
        ]  # fmt: skip
        if labels:
            owners = pa.array(range(parts - labels, parts)).to_numpy()
            runs.append(write_run(store, 9, [(owners, drawn)], cuts=cuts, images=False))
        found = []
        for group, (first, last) in enumerate(((0, cut), (cut, parts))):
            cases = [CasePlan(f"{part:02d}", f"{part:02d}", "s", 0, 1, 2, 3) for part in range(first, last)]
            argument = LinesArgument(
                store.url, group, {}, tuple((run.path, *run.pieces[group]) for run in runs if group in run.pieces),
                first, tuple((expected[part][0],) for part in range(first, last)),
                tuple((case,) for case in cases), {},
            )  # fmt: skip
            lines, reader = write_lines(argument), LineReader(store)
            plans = [parse_plan(reader.line(line.place)) for line in lines]
            assert [plan.fingerprint for plan in plans] == [line.fingerprint for line in lines]
            found += [plan.objects for plan in plans]
        for objects, (role, _, own) in zip(found, expected, strict=True):
            assert objects.schema.names == PLANNED.names
            assert repr(objects.to_pylist()) == repr([{"case": 0, "role": role, **row} for row in own])
        sizes = {part: sum(row["size"] for row in own) for part, (_, _, own) in enumerate(expected)}  # type: ignore[misc]
        of_runs = {p: int(n) for run in runs for p, n in zip(run.parts.tolist(), run.fetched + run.direct, strict=True)}
        assert of_runs == {part: sizes[part] for part, (_, _, own) in enumerate(expected) if own}


def test_a_task_names_no_series() -> None:
    """Dask writes what a failed task was called with into its worker's log."""
    parts = ((0, "1.2.826.0.1.77", (0,)),)
    argument = SortArgument("inventory", "survey", "made", 0, (ChunkParts("chunk", "membership", parts),), (0, 1))
    assert "1.2.826.0.1.77" not in repr(argument)


def test_few_rows_of_many_chunks_take_no_more_memory_than_of_one(tmp_path: Path) -> None:
    store, count = open_store(tmp_path), 6_000
    whole = table([(f"{n // 20:05d}", 0, "CT", [1.0, 0.0], 132, 9) for n in range(count)])
    store.put("chunk", parquet_bytes(whole))
    store.put(
        "membership",
        parquet_bytes(pa.table([whole["series_uid"], pa.nulls(count, pa.int32()).fill_null(0)], schema=MEMBERSHIP)),
    )

    def peak(chunks: int) -> int:
        pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
        held = tuple(ChunkParts("chunk", "membership", ((part, "00007", (0,)),)) for part in range(chunks))
        pa.set_memory_pool(pool)
        try:
            run = sort_rows(SortArgument(store.url, store.url, store.url, 0, held, (0, chunks)))
        finally:
            pa.set_memory_pool(before)
        assert run.rows.tolist() == [20] * chunks
        return pool.max_memory()

    assert peak(16) < 2 * peak(1)


@pytest.mark.parametrize(("damaged", "given_up"), [(READS - 1, False), (READS, True)])
def test_rows_that_are_damaged_on_their_way_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: int, given_up: bool
) -> None:
    store, read_range, reads = open_store(tmp_path), LocalStore.read_range, []
    rows = table([("1", 0, None, None, 132, 9)] * 50)
    run = write_run(store, 0, [(pa.array([0] * 50).to_numpy(), rows)], cuts=(0, 1))
    shards = ((CasePlan("0", "0", "s", 0, 1, 2, 3),),)
    argument = LinesArgument(store.url, 0, {}, ((run.path, *run.pieces[0]),), 0, (("image",),), shards, {})

    def damage(self: LocalStore, path: str, start: int, *, length: int) -> bytes:
        data = bytearray(read_range(self, path, start, length=length))
        reads.append(path)
        data[length // 2] ^= 4 * (len(reads) <= damaged)
        return bytes(data)

    monkeypatch.setattr(LocalStore, "read_range", damage)
    if given_up:
        with pytest.raises(LayoutError, match="run-000000 of the private workspace: found other bytes"):
            write_lines(argument)
    else:
        (line,) = write_lines(argument)
        plan = parse_plan(LineReader(store).line(line.place))
        assert plan.objects.drop_columns(["case", "role"]).to_pylist() == rows.to_pylist()
