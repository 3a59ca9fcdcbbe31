"""CT folders to 1 mm int16 arrays with TorchIO.

python by_torchio.py ARCHIVE OUT
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
import torchio as tio

archive, out = (Path(argument) for argument in sys.argv[1:3])
out.mkdir(parents=True)
torch.set_num_threads(1)
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
resample = tio.Resample(1.0, image_interpolation="linear")
for folder in sorted(archive.iterdir()):
    image = resample(tio.ScalarImage(folder))
    np.save(out / f"{folder.name}.npy", np.rint(image.numpy()[0]).astype(np.int16))
