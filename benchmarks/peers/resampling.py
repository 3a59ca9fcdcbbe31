"""Seconds nnU-Net v2's own resampling takes, as one line of JSON.

    python resampling.py FOLDER [--wall]

FOLDER holds ``image.npy``, ``labels.npy`` and ``grid.json`` (``shape``, ``old_mm``, ``new_mm``). ``cubic`` is its
routine of order 3 along all axes; ``default`` what its default configuration does with these spacings, a coarse axis
apart; ``labels`` its routine for labels, one-hot at order 1.
"""

import argparse
import json
import os
import time
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, os.devnull)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.preprocessing.resampling.default_resampling import (  # noqa: E402
    resample_data_or_seg,
    resample_data_or_seg_to_shape,
)


def seconds(work, clock):
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--wall", action="store_const", const=time.perf_counter, default=time.process_time, dest="clock"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    image = np.load(given.folder / "image.npy")[None].astype(np.float32)
    labels = np.load(given.folder / "labels.npy")[None]
    grid = json.loads((given.folder / "grid.json").read_text())
    shape, old, new = grid["shape"], grid["old_mm"], grid["new_mm"]
    routines = {
        "cubic": lambda: resample_data_or_seg(image, shape),
        "default": lambda: resample_data_or_seg_to_shape(
            image, shape, old, new, order=3, order_z=0, force_separate_z=None
        ),
        "labels": lambda: resample_data_or_seg(labels, shape, is_seg=True, order=1),
    }
    print(json.dumps({name: seconds(work, given.clock) for name, work in routines.items()}))
