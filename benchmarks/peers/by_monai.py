"""CT folders to 1 mm int16 arrays with MONAI.

python by_monai.py ARCHIVE OUT
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import Dataset
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Spacing

archive, out = (Path(argument) for argument in sys.argv[1:3])
out.mkdir(parents=True)
torch.set_num_threads(1)
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
steps = Compose(
    [
        LoadImage(image_only=True, reader="PydicomReader"),
        EnsureChannelFirst(),
        Spacing(pixdim=(1.0, 1.0, 1.0), mode="bilinear", padding_mode="border"),
    ]
)
folders = sorted(archive.iterdir())
for folder, image in zip(folders, Dataset([str(f) for f in folders], steps), strict=True):
    np.save(out / f"{folder.name}.npy", np.rint(image.numpy()[0]).astype(np.int16))
