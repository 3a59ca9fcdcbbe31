"""CT folders to 1 mm as nnU-Net v2 preprocesses them: its NIfTI input is written first, its own blosc2 files come out.

    python by_nnunet.py ARCHIVE OUT

Its default resampling (cubic, separate along a coarse axis) and storage (float32, blosc2) are kept; normalization is
switched off.
"""

import os
import sys
from pathlib import Path

archive, out = (Path(argument) for argument in sys.argv[1:3])
out.mkdir(parents=True)
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, str(out))

import SimpleITK as sitk  # noqa: E402, N813
import torch  # noqa: E402
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402

torch.set_num_threads(1)
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
RESAMPLING = "resample_data_or_seg_to_shape"
CONFIGURATION = {
    "data_identifier": "one_millimetre",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [96, 160, 160],
    "spacing": [1.0, 1.0, 1.0],
    "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
    "normalization_schemes": ["NoNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": RESAMPLING,
    "resampling_fn_seg": RESAMPLING,
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
}
PLANS = {
    "dataset_name": "Dataset001_CT",
    "plans_name": "plans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {"one_millimetre": CONFIGURATION},
}
manager = PlansManager(PLANS)
configuration = manager.get_configuration("one_millimetre")
dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "any": 1}, "file_ending": ".nii.gz"}
for folder in sorted(archive.iterdir()):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    raw = out / f"{folder.name}_0000.nii.gz"
    sitk.WriteImage(reader.Execute(), str(raw))
    preprocessor = DefaultPreprocessor(verbose=False)
    stem = str(out / folder.name)
    preprocessor.run_case_save(stem, [str(raw)], None, manager, configuration, dataset)
