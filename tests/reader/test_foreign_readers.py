"""Exports whose libraries do not fit beside the tests', read by these libraries: streaming, datasets, pybids."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from builder.reader import open_dataset
from builder.reader.export import export_bids, export_huggingface, export_mds
from tests.reader.test_frameworks import PEERS

pytestmark = pytest.mark.skipif(PEERS not in os.environ, reason="they need other libraries: make test-peers")

MDS = """
import json, sys
from pathlib import Path
from streaming import StreamingDataset
found = {}
for split in sorted(place.parent.name for place in Path(sys.argv[1]).glob("*/index.json")):
    samples = StreamingDataset(local=sys.argv[1], split=split, shuffle=False, batch_size=1)
    for n in range(len(samples)):
        sample = samples[n]
        sums = {f: [str(sample[f].dtype), list(sample[f].shape), int(sample[f].astype(int).sum())]
                for f in ("image", "tumor")}
        found[sample["row"]["sample_key"]] = {"split": split, **sums}
print(json.dumps(found))
"""

HUGGING_FACE = """
import json, sys
import numpy as np
import datasets
found = {}
for split, samples in datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[1] + ".cache").items():
    for sample in samples:
        arrays = {f: np.asarray(sample[f].dataobj) for f in ("image", "tumor")}
        sums = {f: [str(a.dtype), [1, *a.shape[::-1]], int(a.astype(int).sum())] for f, a in arrays.items()}
        found[sample["sample_key"]] = {"split": split, **sums}
print(json.dumps(found))
"""

BIDS = """
import json, sys
import nibabel
from bids import BIDSLayout
layout = BIDSLayout(sys.argv[1], validate=False)
people = layout.get_collections(level="dataset", types="participants")[0].to_df()
found = {}
for image in layout.get(extension="nii.gz", suffix="image"):
    about, voxels = image.get_metadata(), nibabel.load(image.path).get_fdata()
    split = people.set_index("subject").loc[image.get_entities()["subject"], "split"]
    assert split == about["Split"]
    found[about["SampleKey"]] = {"split": split, "image": ["int16", [1, *voxels.shape[::-1]], int(voxels.sum())]}
print(json.dumps(found))
"""


def told(script: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [os.environ[PEERS], "-c", script, str(folder)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-3000:]
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return answer


def expected(dataset: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    return {
        item.row["sample_key"]: {
            "split": item.row["split"],
            **{f: [str(item[f].dtype), list(item[f].shape), int(item[f].astype(int).sum())] for f in fields},
        }
        for item in dataset
    }


@pytest.mark.parametrize(("export", "script"), [(export_mds, MDS), (export_huggingface, HUGGING_FACE)])
def test_samples_come_back(export: Callable[..., Any], script: str, labelled: Any, tmp_path: Path) -> None:
    dataset = open_dataset(labelled.root)
    export(dataset, tmp_path / "out")
    assert told(script, tmp_path / "out") == expected(dataset, ("image", "tumor"))


def test_volumes_of_several_shapes_come_back(volumes: Any, tmp_path: Path) -> None:
    dataset = open_dataset(volumes.root)
    export_mds(dataset, tmp_path / "mds")
    assert told(MDS, tmp_path / "mds") == expected(dataset, ("image", "tumor"))
    assert len({tuple(shape) for shape in dataset.sample_shapes(np.arange(len(dataset))).tolist()}) > 1
    persons = pa.array(["k1", "k2", "k3", "k4", "k5"])
    dataset = replace(dataset, _table=dataset._table.append_column("person_key", persons))
    export_bids(dataset, tmp_path / "bids")
    assert told(BIDS, tmp_path / "bids") == expected(dataset, ("image",))
