"""Unlike slices are never joined, like ones never set apart, whatever the attribute; time points are in order."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from builder.imaging import rows as seen
from builder.imaging.stacks.moments import with_moments
from builder.imaging.stacks.series import split_rows as split_seen
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.model.tables import INSTANCES

CT, MR, PT = ("1.2.840.10008.5.1.4.1.1." + suffix for suffix in ("2", "4", "128"))
Row = dict[str, Any]


def slices(count: int, *, first: float = 0.0, step: float = 5.0, start: int = 1, **more: Any) -> list[Row]:
    """INSTANCES rows of parallel slices, 5 mm thick."""
    plain = {
        "status": "instance", "sop_class_uid": CT, "modality": "CT", "series_uid": "1.2", "rows": 16, "columns": 16,
        "frame_of_reference_uid": "1.3", "image_type": "ORIGINAL\\PRIMARY\\AXIAL", "samples_per_pixel": 1,
        "bits_allocated": 16, "image_orientation_patient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "pixel_spacing": [1.0, 1.0],
        "slice_thickness": 5.0, "acquisition_date": "20200101", "acquisition_time": "100000", "kvp": 120.0,
        "convolution_kernel": "B30f", "acquisition_number": 1, "series_time": "100000", "series_date": "20200101",
    }  # fmt: skip
    return [
        dict.fromkeys(INSTANCES.names) | plain | more
        | {"sop_instance_uid": f"1.2.{start + k}", "instance_number": start + k}
        | {"image_position_patient": [0.0, 0.0, first + step * k]}
        for k in range(count)
    ]  # fmt: skip


def split_rows(rows: Sequence[Row]) -> tuple[Stack, ...]:
    return split_seen([seen.Row.of(row) for row in rows])


def uids(stack: Stack) -> list[str]:
    return [uid for channel in stack.uids for uid in channel]


UNLIKE: Sequence[tuple[str, Row, Row]] = (
    ("convolution_kernel", {"convolution_kernel": "B30f"}, {"convolution_kernel": "B70f"}),
    ("kvp", {"kvp": 80.0}, {"kvp": 140.0}),
    ("acquisition_number", {"acquisition_number": 1}, {"acquisition_number": 2}),
    ("acquisition_time", {"acquisition_time": "100000"}, {"acquisition_time": "100500"}),
    ("slice_thickness", {"slice_thickness": 5.0}, {"slice_thickness": 4.0}),
    ("contrast_bolus_agent", {"contrast_bolus_agent": None}, {"contrast_bolus_agent": "Iodine"}),
    ("contrast_bolus_agent", {"contrast_bolus_agent": "Saline"}, {"contrast_bolus_agent": "Iodine"}),
    ("flip_angle", {"flip_angle": 15.0}, {"flip_angle": 30.0}),
    ("echo_time", {"echo_time": 2.3}, {"echo_time": 4.6}),
    ("inversion_time", {"inversion_time": 100.0}, {"inversion_time": 900.0}),
    ("repetition_time", {"repetition_time": 500.0}, {"repetition_time": 2000.0}),
    ("b_value", {"b_value": 0.0, "modality": "MR"}, {"b_value": 1000.0, "modality": "MR"}),
    ("series_number", {"series_number": 3}, {"series_number": 303}),
    ("series_description", {"series_description": "native"}, {"series_description": "arterial"}),
    ("derived", {}, {"image_type": "DERIVED\\PRIMARY\\AXIAL"}),
    ("scanning_sequence", {"scanning_sequence": "SE"}, {"scanning_sequence": "GR"}),
)


@pytest.mark.parametrize("shift", [2.5, 1.0])
@pytest.mark.parametrize(("rule", "one", "other"), UNLIKE)
def test_two_interleaved_stacks_are_two(rule: str, one: Row, other: Row, shift: float) -> None:
    first, second = slices(10, **one), slices(10, first=shift, start=11, **other)
    found = split_rows([*first, *second])
    assert [(s.split_rule, s.verdict, s.shape[0]) for s in found] == [(rule, Verdict.REGULAR, 10)] * 2
    assert [set(uids(s)) for s in found] == [{r["sop_instance_uid"] for r in part} for part in (first, second)]


@pytest.mark.parametrize(("rule", "one", "other"), [u for u in UNLIKE if u[0] in ("kvp", "convolution_kernel")])
def test_two_blocks_of_different_making_are_two(rule: str, one: Row, other: Row) -> None:
    found = split_rows([*slices(6, **one), *slices(6, first=30.0, start=7, **other)])
    assert [(s.split_rule, s.shape[0]) for s in found] == [(rule, 6), (rule, 6)]


def test_two_passes_that_only_the_numbers_tell_are_two() -> None:
    first, second = slices(10), slices(10, first=2.5, start=11)
    assert [(s.split_rule, s.shape[0]) for s in split_rows([*first, *second])] == [("instance_number", 10)] * 2
    overlapping = slices(20, step=2.5)
    assert [s.shape[0] for s in split_rows(overlapping)] == [20]
    upwards = [row | {"instance_number": 20 - k} for k, row in enumerate(overlapping)]
    assert [s.shape[0] for s in split_rows(upwards)] == [20]


def test_three_interleaved_kernels_are_three() -> None:
    rows = [
        row for n, kernel in enumerate(("B30f", "B50f", "B70f"))
        for row in slices(8, first=n * 5 / 3, start=1 + 8 * n, convolution_kernel=kernel)
    ]  # fmt: skip
    assert [s.shape[0] for s in split_rows(rows)] == [8, 8, 8]


def second_half(change: Row) -> Callable[[int], Row]:
    return lambda k: change if k >= 6 else {}


def every_second(change: Row) -> Callable[[int], Row]:
    return lambda k: change if k % 2 else {}


MR_SLICES: dict[str, Any] = {
    "sop_class_uid": MR, "modality": "MR", "slice_thickness": 3.0, "echo_time": 4.92, "echo_number": 1, "kvp": None,
    "convolution_kernel": None, "flip_angle": 15.0, "repetition_time": 500.0, "b_value": 1000.0,
}  # fmt: skip
LIKE: Sequence[tuple[str, Callable[[int], Row]]] = (
    ("rounded echo time", every_second({"echo_time": 4.9200001})),
    ("echo time cut to one decimal", every_second({"echo_time": 4.9})),
    ("rounded echo time, in blocks", second_half({"echo_time": 4.9200001})),
    ("a new rounding in each slice", lambda k: {"echo_time": 4.92 + k * 1e-6}),
    ("no echo number", every_second({"echo_number": None})),
    ("another echo number", every_second({"echo_number": 2})),
    ("no echo time", every_second({"echo_time": None})),
    ("no echo time in one slice", lambda k: {"echo_time": None} if k == 3 else {}),
    ("no flip angle", every_second({"flip_angle": None})),
    ("no b-value", every_second({"b_value": None})),
    ("rounded b-value", every_second({"b_value": 1000.0001})),
    ("rounded thickness", every_second({"slice_thickness": 3.00001})),
    ("no thickness", every_second({"slice_thickness": None})),
    ("derived", every_second({"image_type": "DERIVED\\PRIMARY\\AXIAL"})),
    ("derived half", second_half({"image_type": "DERIVED\\PRIMARY\\AXIAL"})),
    ("magnitude stated", every_second({"image_type": "ORIGINAL\\PRIMARY\\M\\ND"})),
    ("no frame of reference", every_second({"frame_of_reference_uid": None})),
    ("no acquisition number", every_second({"acquisition_number": None})),
    ("two passes", every_second({"acquisition_number": 2, "acquisition_time": "100200"})),
    ("two table positions", second_half({"acquisition_number": 2, "acquisition_time": "100200"})),
    ("own repetition time", lambda k: {"repetition_time": 500.0 + 40 * k}),
    ("own inversion time", lambda k: {"inversion_time": 100.0 + 40 * k}),
    ("no samples per pixel", every_second({"samples_per_pixel": None})),
    ("other spelling", every_second({"series_description": "T1  AX "})),
)


@pytest.mark.parametrize(("name", "change"), LIKE, ids=[name for name, _ in LIKE])
def test_one_volume_stays_one(name: str, change: Callable[[int], Row]) -> None:
    rows = slices(12, step=3.0, series_description="t1 ax", **MR_SLICES)
    (found,) = split_rows([row | change(k) for k, row in enumerate(rows)])
    assert (found.verdict, found.shape[0]) == (Verdict.REGULAR, 12)
    assert uids(found) == [row["sop_instance_uid"] for row in rows]
    assert (found.frame_of_reference, found.echo_time is None, found.b_value is None) == ("1.3", False, False)


def test_what_was_tolerated_is_noted() -> None:
    rows = slices(12, step=3.0, **MR_SLICES)
    (found,) = split_rows([row | {"echo_time": 4.92 if k % 2 else 4.9200001} for k, row in enumerate(rows)])
    assert found.notes == ("echo_time_varies",)
    (plain,) = split_rows(rows)
    assert plain.notes == ()


def test_echoes_at_the_same_positions_are_two_however_close() -> None:
    rows = [*slices(6, **MR_SLICES), *slices(6, start=7, **(MR_SLICES | {"echo_time": 7.38, "echo_number": 2}))]
    assert [(s.split_rule, s.echo_time) for s in split_rows(rows)] == [("echo_time", 4.92), ("echo_time", 7.38)]


# time points, in the order they were acquired
AT: Sequence[tuple[str, Sequence[Mapping[str, Any]]]] = (
    ("midnight", [
        {"acquisition_date": d, "acquisition_time": t}
        for d, t in (("20200101", "235000"), ("20200101", "235500"), ("20200102", "000000"))
    ]),
    ("midnight, dates of content alone", [
        {"acquisition_date": None, "acquisition_time": None, "content_date": d, "content_time": t}
        for d, t in (("20200101", "235000"), ("20200101", "235500"), ("20200102", "000000"))
    ]),
    ("midnight, the date of the series alone", [
        {"acquisition_date": None, "acquisition_time": t, "series_time": "234500"}
        for t in ("235000", "235500", "000000")
    ]),
    ("days at earlier hours", [
        {"acquisition_date": d, "acquisition_time": t}
        for d, t in (("20200101", "160000"), ("20200102", "100000"), ("20200103", "080000"))
    ]),
    ("the end of a year", [
        {"acquisition_date": d, "acquisition_time": t}
        for d, t in (("20191231", "235900.5"), ("20200101", "000100"), ("20200101", "000300.25"))
    ]),
    ("dates with times", [
        {"acquisition_date": None, "acquisition_time": None, "acquisition_datetime": t}
        for t in ("20200101235000.5", "20200102000000", "20200102000500")
    ]),
    ("offsets in dates with times", [
        {"acquisition_date": None, "acquisition_time": None, "acquisition_datetime": t}
        for t in ("20200101120000+0200", "20200101103000+0000", "20200101070000-0500")
    ]),
    ("offsets of the objects", [
        {"acquisition_time": t, "timezone_offset": z}
        for t, z in (("120000", "+0200"), ("103000", "+0000"), ("070000", "-0500"))
    ]),
    ("frame reference times", [
        {"frame_reference_time": f, "acquisition_time": t}
        for f, t in ((150000.0, "235000"), (450000.0, "235500"), (750000.0, "000000"))
    ]),
    ("trigger times", [
        {"trigger_time": f, "acquisition_time": t} for f, t in ((0.0, "100300"), (45.0, "100200"), (90.0, "100100"))
    ]),
    ("counters that start anew", [
        {"acquisition_number": n, "acquisition_date": d, "acquisition_time": t}
        for n, d, t in ((5, "20200101", "160000"), (6, "20200101", "170000"), (1, "20200102", "080000"))
    ]),
    ("temporal positions", [
        {"temporal_position": n, "acquisition_time": "235959" if n < 3 else "000001"} for n in (1, 2, 3)
    ]),
)  # fmt: skip


@pytest.mark.parametrize(("name", "moments"), AT, ids=[name for name, _ in AT])
def test_time_points_are_in_order(name: str, moments: Sequence[Row]) -> None:
    plain = {"sop_class_uid": PT, "modality": "PT"}
    points = [slices(5, start=1 + 5 * n, **(plain | dict(moment))) for n, moment in enumerate(moments)]
    numbers = (2, 0, 1)  # instance numbers and the order of the rows say nothing
    rows = [row | {"instance_number": 10 * numbers[n] + k} for n, p in enumerate(points) for k, row in enumerate(p)]
    (found,) = split_rows(rows[::-1])
    assert found.verdict == Verdict.TIME_SERIES
    assert uids(found) == [row["sop_instance_uid"] for point in points for row in point]


@pytest.mark.parametrize(("clock", "days"), [("080000", 0), ("075959", 1), ("230000", 0), ("000000", 1)])
def test_a_time_more_than_half_a_day_before_its_series_is_of_the_next_day(clock: str, days: int) -> None:
    dates: dict[str, Any] = {
        "acquisition_date": None,
        "content_date": None,
        "series_date": "20200101",
        "series_time": "200000",
    }
    (row,) = with_moments([seen.Row.of(slices(1, acquisition_time=clock, **dates)[0])])
    expected = datetime(2020, 1, 1 + days, int(clock[:2]), int(clock[2:4]), int(clock[4:]), tzinfo=UTC).timestamp()
    assert row.acquisition_time == expected


def test_slices_with_times_of_their_own_are_ranked_over_midnight() -> None:
    clock = ("235950", "235955", "000005", "000010")
    rows = [
        row | {"acquisition_time": clock[2 * n + k], "acquisition_date": f"2020010{1 + n}", "instance_number": 9 - n}
        for n in range(2) for k, row in enumerate(slices(2, start=1 + 2 * n))
    ]  # fmt: skip
    (found,) = split_rows(rows)
    assert (found.verdict, found.uids) == (Verdict.TIME_SERIES, (("1.2.1", "1.2.2"), ("1.2.3", "1.2.4")))


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1), (2, 3), (1, 1, 3)])
def test_a_stack_is_split_at_every_gap_also_beside_its_first_and_last_slice(sizes: tuple[int, ...]) -> None:
    rows: list[Row] = []
    for count in sizes:
        rows += slices(count, first=5.0 * len(rows) + 100 * (len(rows) > 0) * len(rows), start=1 + len(rows))
    (found,) = split_rows(rows)
    assert found.verdict == Verdict.GAPPED
    assert [len(run.uids[0]) for run in found.split()] == list(sizes)
