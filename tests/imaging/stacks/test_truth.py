"""Every slice of a stack with a grid lies where the grid says, and every instance is in one stack, whatever it is."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.imaging.rows import instances_of
from builder.imaging.stacks.series import split_stacks
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.model.tables import INSTANCES
from tests import synthetic
from tests.imaging.reading import series_of

GRIDS = {Verdict.REGULAR, Verdict.SHEARED, Verdict.TIME_SERIES}


def assert_true(stack: Stack, positions: dict[str, list[float]], tolerance_mm: float) -> None:
    """Each slice's own ImagePositionPatient is where the grid puts voxel (slice, 0, 0)."""
    if stack.verdict not in GRIDS:
        assert stack.affine is None or stack.verdict == Verdict.SINGLE_SLICE
        return
    geometry = stack.geometry
    assert geometry is not None
    for channel in stack.uids:
        assert len(channel) == geometry.shape[0]
        places = geometry.to_world([[k, 0, 0] for k in range(len(channel))])
        np.testing.assert_allclose(places, [positions[uid] for uid in channel], atol=tolerance_mm)


@pytest.mark.parametrize("archive", ["geometry", "segmentation", "sts"])
def test_slices_of_the_corpus_lie_where_their_grid_says(archive: str, corpus: Callable[[str], Path]) -> None:
    root = corpus(archive)
    folders = {"sts": [root / "sts001_raw" / "FDG_PET" / "image", root / "sts_cohort" / "STS_019" / "CT" / "image"]}
    seen = 0
    for folder in folders.get(archive, sorted(p for p in root.rglob("*") if p.is_dir())):
        for datasets in series_of(folder):
            table = instances_of(datasets)
            columns = (table[name].to_pylist() for name in ("sop_instance_uid", "image_position_patient"))
            positions = dict(zip(*columns, strict=True))
            for stack in split_stacks(table):
                if stack.geometry is not None:
                    jitter = 0.1 * stack.geometry.spacing_mm[0] if stack.notes else 2e-3
                    assert_true(stack, positions, jitter)
                    seen += stack.verdict in GRIDS
    assert seen >= 2


BASE = instances_of(synthetic.mr_series(slices=1).images).to_pylist()[0]


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A series as an archive may hold it: a few planes, echoes, times, sizes and frames, slices missing or doubled."""
    orientations = [synthetic.AXIAL, synthetic.SAGITTAL, synthetic.OBLIQUE]
    found = []
    for number in range(draw(st.integers(1, 14))):
        row = copy.deepcopy(BASE)
        cosines = draw(st.sampled_from(orientations[: draw(st.integers(1, 3))]))
        normal = np.cross(cosines[:3], cosines[3:])
        place = draw(st.integers(0, 6)) * draw(st.sampled_from([2.5, 2.5, 2.5, 2.6]))
        row["image_orientation_patient"] = list(cosines)
        row["image_position_patient"] = [float(v) for v in normal * place]
        row["sop_instance_uid"] = f"2.25.{number}"
        row["path"] = f"{number}"
        row["instance_number"] = draw(st.one_of(st.none(), st.integers(1, 20)))
        row["echo_time"] = draw(st.sampled_from([20.0, 20.0, 40.0, None]))
        row["content_time"] = draw(st.sampled_from(["100000", "100500", None]))
        row["rows"] = draw(st.sampled_from([32, 32, 32, 64]))
        row["frame_of_reference_uid"] = draw(st.sampled_from(["2.25.900", "2.25.900", "2.25.901", None]))
        row["modality"] = draw(st.sampled_from(["MR", "MR", "MR", "CT"]))
        if draw(st.integers(0, 9)) == 0:
            row["image_position_patient"] = None
        found.append(row)
    return found


@given(rows=rows(), seed=st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_any_series_is_divided_completely_truly_and_whatever_the_order(rows: list[dict[str, Any]], seed: int) -> None:
    table = pa.Table.from_pylist(rows, schema=INSTANCES)
    stacks = split_stacks(table)
    uids = sorted(uid for stack in stacks for channel in stack.uids for uid in channel)
    assert uids == sorted(row["sop_instance_uid"] for row in rows)
    positions = {row["sop_instance_uid"]: row["image_position_patient"] for row in rows}
    for stack in stacks:
        assert_true(stack, positions, 0.3)
        assert stack.detail
    assert [stack.number for stack in stacks] == list(range(len(stacks)))
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    assert split_stacks(pa.Table.from_pylist(shuffled, schema=INSTANCES)) == stacks
