"""The plan of an archive that was planned before, in another state, equals the plan from nothing, byte for byte."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builder.model.parquet import parquet_bytes
from builder.planning import merge, sorted_rows
from builder.planning.latest import read_latest
from builder.run.pipeline import ask, plan_asked
from builder.run.progress import SilentProgress
from builder.run.serial import SerialRunner
from builder.spec import DatasetSpec
from builder.stages import parts, planned
from builder.stages.boundary import Faults
from builder.storage import open_store
from tests.endtoend.trees import KEY, tree
from tests.synthetic import ct_series

Series = tuple[int, str, str, str]
SERIES = st.tuples(
    st.integers(1, 4), st.sampled_from(["A", "B"]), st.sampled_from(["", "moved"]), st.sampled_from(["", "same", "C"])
)
"""Slices, kernel, the folder of the files, and whether they are there twice: as they are, or with another kernel."""
ARCHIVES = st.dictionaries(st.sampled_from(["1", "2", "3", "4", "5"]), SERIES, min_size=1)
"""By number of the series; 4 and 5 are of one person."""


def write(archive: Path, series: dict[str, Series]) -> None:
    """Write an archive in the place of the one before. Files that stay the same keep their times."""
    for place in [*archive.glob("*")]:
        name, *stated = place.name.split("-")
        if name not in series or stated != list(map(str, series[name])):
            shutil.rmtree(place)
    for name, (slices, kernel, folder, copies) in series.items():
        place = archive / f"{name}-{slices}-{kernel}-{folder}-{copies}"
        there = {} if place.exists() else {place / folder: kernel}
        if there and copies:
            there[place / "copies"] = kernel if copies == "same" else copies
        for files, shown in there.items():
            ct_series(
                files, slices=slices, shape=(4, 4), patient_id=f"P{min(int(name), 4)}", series=name,
                attributes={"ConvolutionKernel": shown},
            )  # fmt: skip


def planned_files(archive: Path, to: Path) -> dict[str, str | bytes]:
    """The files of a plan, and the splits and summaries that go with it."""
    spec = DatasetSpec.model_validate(
        {
            "name": "grown",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(archive)}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
            "shards": {"cases": 2},
            "splits": {"ratios": {"train": 0.5, "test": 0.5}},
        }
    )
    made = plan_asked(ask(spec, str(to), {}), SerialRunner(), SilentProgress(), Faults("stop"))
    latest = read_latest(open_store(f"{to}.private"))
    assert latest is not None
    tables = {name: parquet_bytes(getattr(made.plan, name)) for name in ("splits", "links", "cohort")}
    return {**tree(Path(f"{to}.private", latest.plan)), **tables, "shards": repr(made.plan.shards)}


BEFORE: dict[str, Series] = {"1": (2, "A", "", ""), "2": (3, "A", "", ""), "3": (1, "A", "", ""), "4": (2, "A", "", "")}
NOW: dict[str, Series] = {
    "1": (2, "A", "", ""),
    "2": (3, "B", "", ""),
    "3": (1, "A", "moved", ""),
    "5": (2, "A", "", ""),
}
"""One series stays, the header of one changes, one is moved, one is removed, and one comes."""
COPIED: dict[str, Series] = {**BEFORE, "1": (2, "A", "", "C"), "2": (3, "A", "", "same"), "5": (2, "A", "", "")}


@settings(max_examples=3)  # three plans each
@example(states=(BEFORE, NOW))
@example(states=(BEFORE, COPIED))
@example(states=(COPIED, BEFORE))
@given(states=st.tuples(ARCHIVES, ARCHIVES))
def test_it_equals_one_from_nothing(states: tuple[dict[str, Series], ...]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        patch.setattr(merge, "CHUNK_ROWS", (2, 5))
        patch.setattr(parts, "PART_FILES", (2, 4))
        patch.setattr(planned, "FILE_BYTES", 9_000)
        patch.setattr(sorted_rows, "GROUP_CASES", 3)  # tasks that write plans, of which each has all runs
        archive, to = Path(folder, "archive"), Path(folder, "dataset")
        for state in states:
            write(archive, {"0": (1, "A", "", ""), **state})  # as otherwise nothing may be left
            grown = planned_files(archive, to)
        patch.setattr(sorted_rows, "RUN_ROWS", 3)  # rows are sorted in several runs, which changes nothing
        assert planned_files(archive, Path(folder, "anew")) == grown
