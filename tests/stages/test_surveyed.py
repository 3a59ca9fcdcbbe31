"""A survey that takes unchanged series from an earlier one equals a survey of everything, byte for byte."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.imaging.stacks.options import VolumeOptions
from builder.model.parquet import read_parquet
from builder.model.tables import INSTANCES
from builder.planning.merge import keep_chunk
from builder.sources import Folder
from builder.stages import survey as stage
from builder.stages.row_digests import row_digests
from builder.stages.survey import SurveyArgument, survey_chunks
from builder.stages.surveyed import find_kept
from builder.storage import open_store

SLICE = {
    "source": 0, "status": "instance", "format": "dicom", "modality": "CT", "rows": 16, "columns": 16, "size": 900,
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "study_uid": "1.1", "patient_id": "p", "bits_allocated": 16,
    "bits_stored": 12, "pixel_representation": 0, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2",
    "image_type": "ORIGINAL\\PRIMARY\\AXIAL", "image_orientation_patient": [1.0, 0, 0, 0, 1, 0],
    "pixel_spacing": [1.0, 1.0], "slice_thickness": 2.0, "transfer_syntax_uid": "1.2.840.10008.1.2.1",
}  # fmt: skip
SERIES = st.tuples(st.integers(1, 4), st.sampled_from(["A", "B"]), st.booleans())
"""Slices, kernel, and whether the last slice is tilted, so that the series has two stacks."""
ARCHIVES = st.dictionaries(st.sampled_from(["1.2.1", "1.2.10", "1.2.2", "1.2.3", ""]), SERIES, min_size=1)


def chunk(archive: dict[str, tuple[int, str, bool]]) -> pa.Table:
    rows = []
    for uid, (slices, kernel, tilted) in sorted(archive.items(), key=lambda item: (not item[0], item[0])):
        for z in range(slices):
            own = {"series_uid": uid or None, "sop_instance_uid": f"{uid}.{z}", "path": f"{uid}/{z}", "stamp": "1"}
            place = {"instance_number": z, "image_position_patient": [0.0, 0.0, 2.0 * z], "convolution_kernel": kernel}
            turned = {"image_orientation_patient": [0.0, 1, 0, 0, 0, 1]} if tilted and z == slices - 1 else {}
            rows.append(SLICE | own | place | turned)
    return pa.Table.from_pylist(rows, schema=INSTANCES)


def surveyed(folder: Path, table: pa.Table, *, earlier: SurveyArgument | None = None) -> SurveyArgument:
    path = keep_chunk(open_store(folder), table)
    before = () if earlier is None else (earlier.earlier_chunk,)
    source = Folder(url="/archive", site="north")
    argument = SurveyArgument(str(folder), path, "survey", (source,), VolumeOptions(), earlier=before)
    assert survey_chunks((argument,)) == ()
    return argument


def contents(argument: SurveyArgument) -> list[bytes]:
    paths = (argument.stacks, argument.identities, argument.membership)
    return [open_store(argument.store).read(path) for path in paths]


@settings(max_examples=12)  # three surveys each
@given(before=ARCHIVES, now=ARCHIVES)
def test_it_equals_one_from_nothing(before, now):
    with TemporaryDirectory() as folder:
        first = surveyed(Path(folder, "before"), chunk(before))
        grown = surveyed(Path(folder, "grown"), chunk(before | now), earlier=first)
        anew = surveyed(Path(folder, "anew"), chunk(before | now))
        assert contents(grown) == contents(anew)


def test_only_changed_series_are_surveyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = {"1.2.1": (3, "A", False), "1.2.2": (4, "A", True)}
    first = surveyed(tmp_path / "before", chunk(archive))
    names: list[str] = []
    work = stage._surveyed
    monkeypatch.setattr(stage, "_surveyed", lambda rows, name, *rest: names.append(name) or work(rows, name, *rest))
    changed = archive | {"1.2.2": (4, "B", True), "1.2.0": (2, "A", False)}
    grown = surveyed(tmp_path / "grown", chunk(changed), earlier=first)
    assert names == ["1.2.0", "1.2.2"]
    stacks = read_parquet(open_store(grown.store).read(grown.stacks))
    assert stacks["series_uid"].to_pylist() == ["1.2.0", "1.2.1", "1.2.2", "1.2.2"]


def test_the_same_chunk_is_not_opened(tmp_path: Path):
    first = surveyed(tmp_path / "before", chunk({"1.2.1": (3, "A", False)}))
    now = replace(first, store=str(tmp_path / "now"), earlier=(first.earlier_chunk,))
    assert survey_chunks((now,)) == ()  # although there is none
    assert contents(now) == contents(first)


def test_chunks_with_other_columns_are_surveyed_again(tmp_path: Path):
    archive = chunk({"1.2.1": (3, "A", False)})
    first = surveyed(tmp_path / "before", archive)
    path = keep_chunk(open_store(first.store), archive.drop_columns("kvp"))  # as an earlier release left it
    known = replace(first.earlier_chunk, chunk=path)
    assert find_kept([known], archive, [range(3)]).series == {}


def test_rows_are_not_compared_where_it_is_known_which_changed(tmp_path: Path):
    archive = {"1.2.1": (3, "A", False), "1.2.2": (4, "A", True)}
    first = surveyed(tmp_path / "before", chunk(archive))
    Path(first.store, first.chunk).unlink()
    known = replace(first.earlier_chunk, changed=frozenset({"1.2.2"}))
    assert find_kept([known], chunk(archive), [range(3), range(3, 7)]).series.keys() == {0}


def test_several_chunks_are_surveyed_as_each_alone(tmp_path: Path):
    tables = [chunk({"1.2.1": (3, "A", False)}), chunk({"1.2.2": (4, "B", True), "": (1, "A", False)})]
    alone = [surveyed(tmp_path / "alone", table) for table in tables]
    store = open_store(tmp_path / "together")
    together = [replace(one, store=str(tmp_path / "together")) for one in alone]
    for table in tables:
        keep_chunk(store, table)
    assert survey_chunks(together) == ()
    assert [contents(one) for one in together] == [contents(one) for one in alone]


def test_zero_and_minus_zero_differ(tmp_path: Path):
    table = chunk({"1.2.1": (3, "A", False)})
    place = table.column_names.index("gantry_tilt")
    first = surveyed(tmp_path / "before", table.set_column(place, "gantry_tilt", pa.array([0.0] * 3)))
    now = table.set_column(place, "gantry_tilt", pa.array([-0.0] * 3))
    assert find_kept([first.earlier_chunk], now, [range(3)]).series == {}


def test_a_survey_with_an_internal_error_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = {"1.2.1": (3, "A", False)}
    first = surveyed(tmp_path / "before", chunk(archive))
    open_store(first.store).put(first.unfinished, b"")
    names: list[str] = []
    work = stage._surveyed
    monkeypatch.setattr(stage, "_surveyed", lambda rows, name, *rest: names.append(name) or work(rows, name, *rest))
    surveyed(tmp_path / "grown", chunk(archive), earlier=first)
    assert names == ["1.2.1"]


def test_a_stack_has_the_digest_of_its_rows(tmp_path: Path):
    """Series without changes keep it, and so does a stack beside one that changed."""
    archive = {"1.2.1": (3, "A", False), "1.2.2": (4, "A", True)}
    first = surveyed(tmp_path / "before", chunk(archive))
    grown = surveyed(tmp_path / "grown", chunk(archive | {"1.2.0": (2, "A", False)}), earlier=first)
    table = chunk(archive | {"1.2.0": (2, "A", False)})
    own = row_digests(table, [[0, 1], [2, 3, 4], [5, 6, 7], [8]])
    assert digests(grown) == own
    assert digests(first) == own[1:]
    place = table.column_names.index("stamp")
    touched = table.set_column(place, "stamp", pa.array(["1"] * 8 + ["2"]))
    assert [a == b for a, b in zip(digests(surveyed(tmp_path / "touched", touched)), own, strict=True)] == [
        True, True, True, False
    ]  # fmt: skip


def digests(argument: SurveyArgument) -> list[str]:
    found: list[str] = read_parquet(open_store(argument.store).read(argument.stacks))["rows_digest"].to_pylist()
    return found
