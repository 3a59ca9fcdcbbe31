"""Names of labels in a dataset.json against those of the spec: every difference is told, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.labels.mask import MaskFile
from builder.planning.layouts import label_name_lines
from builder.sources import Folder


def lines(folder: Path, labels: Any, kind: str = "msd", **mask: Any) -> list[str]:
    """Return what is told of a dataset.json with these labels."""
    (folder / "d").mkdir(exist_ok=True)
    path = folder / "d" / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    source = Folder(url=str(folder), layout=kind)
    (entry,) = source.list()
    row = {"source": 0, "path": entry.path, "member": "", "size": entry.size, "stamp": entry.stamp}
    options = {"match": "{label}", "values": {1: "anterior", 2: "posterior"}} | mask
    return list(label_name_lines({"m": MaskFile(**options)}, [source], pa.Table.from_pylist([row])))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "Anterior", "2": "posterior"},
        {"background": 0, "anterior": 1, "Posterior": 2},
        {"background": 0, "whole": [1, 2]},  # regions of nnU-Net name no value of their own
        "no mapping",
    ],
)
def test_the_same_names_are_told_nothing_of(tmp_path: Path, labels: Any) -> None:
    assert lines(tmp_path, labels) == []


def test_names_that_are_swapped_or_missing_are_told(tmp_path: Path) -> None:
    found = lines(tmp_path, {"0": "background", "1": "posterior", "3": "tail"}, kind="nnunet")
    assert len(found) == 3
    assert found[0].startswith("m: the spec names value 1 'anterior', and dataset.json 'posterior'")
    assert found[1] == "m: the spec names value 2 'posterior', and dataset.json names no such value"
    assert found[2] == "m: dataset.json names values that the spec leaves out: 3 'tail'"


def test_values_that_the_spec_joins_and_labels_of_other_files_are_not_compared(tmp_path: Path) -> None:
    published = {"0": "background", "1": "core", "2": "oedema"}
    assert lines(tmp_path, published, values={1: "tumour", 2: "tumour"}) == []
    assert lines(tmp_path, published, match="other/{patient}.nii.gz") == []
