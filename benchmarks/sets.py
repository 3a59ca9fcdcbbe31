"""A case of four images beside its four series built alone, a SimpleITK script and MONAI's dictionary transforms.

    python benchmarks/sets.py [--fineness 3] [--rounds 3]

A brain of the phantom in four contrasts goes to one grid, scaled to z-scores. Alone, each series goes to a grid of the
same spacing, which has about as many voxels, since all have nearly one field of view. Measured is the processor time of
what a worker does with a planned case: fetch, decode, sample, scale, compress, write. SimpleITK reads the same files
and writes uncompressed arrays. MONAI reads NIfTI files, which SimpleITK wrote before, and returns arrays in memory:
both do less. All use one thread. Aim: the set takes at most 1.1 times as long as its series alone.
"""

import argparse
import os
import secrets
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from figures import figure

from builder.model.keyed import Key
from builder.phantom import sets, write_sets
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import write
from builder.storage import open_store

SELECT = {
    "t1": "series_type == 'T1w' and contrast_bolus_agent is missing",
    "t1c": "series_type == 'T1w' and contrast_bolus_agent is not missing",
    "t2": "series_type == 'T2w'",
    "flair": "series_type == 'FLAIR'",
}
SPACING = (1.5, 1.0, 1.0)
KEY = secrets.token_hex(32)


def main() -> None:
    """Print processor times and their ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--fineness", type=int, default=3)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    os.environ["BUILDER_KEY"] = KEY
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory(prefix="builder-sets-") as name:
        folder = Path(name)
        # alone, no series is sampled across its planes, which takes longer; so no plane is tilted here
        level = tuple(replace(contrast, tilts_degrees=(0.0, 0.0)) for contrast in sets.CONTRASTS)
        setattr(sets, "CONTRASTS", level)  # noqa: B010 - it is final for others
        write_sets(folder / "phantom", patients=1, fineness=arguments.fineness)
        archive = folder / "phantom" / "brain"
        together = build_of(
            archive, folder, "set", {"case": "study", "images": {n: {"select": s} for n, s in SELECT.items()}}
        )
        alone = [build_of(archive, folder, n, {"image": select}) for n, select in SELECT.items()]
        files = to_nifti(archive, folder)
        ways: dict[str, Callable[[], None]] = {
            "set of four": together,
            "four series alone": lambda: each(alone),
            "SimpleITK, uncompressed": lambda: by_simpleitk(archive, folder),
        }
        if (monai := by_monai(files)) is not None:
            ways["MONAI, from NIfTI to memory"] = monai
        for way in ways.values():
            way()  # compiles and imports
        times = {n: [seconds_of(way) for _ in range(arguments.rounds)] for n, way in ways.items()}
    best = {n: statistics.median(found) for n, found in times.items()}
    for n, seconds in best.items():
        figure(n, seconds, "s")
        figure(f"the set beside {n}", best["set of four"] / seconds, "x")
        print(f"{n:32} {seconds:7.2f} s of processor time, {best['set of four'] / seconds:5.2f} = set / this")


def each(ways: Sequence[Callable[[], None]]) -> None:
    """Call one after the other."""
    for way in ways:
        way()


def seconds_of(way: Callable[[], None]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    way()
    return time.process_time() - start


def build_of(archive: Path, folder: Path, name: str, cohort: dict[str, Any]) -> Callable[[], None]:
    """Plan a dataset and return a function that builds its only shard anew."""
    spec = DatasetSpec.model_validate({
        "name": "sets", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": str(archive)}], "cohort": cohort,
        "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
        "transforms": [{"kind": "resample", "spacing_mm": SPACING}, {"kind": "intensity", "zscore": "volume"}],
        "splits": {"ratios": {"train": 1.0}}, "leaks": {"pixels": "off"},
    })  # fmt: skip
    planned = plan(spec, to=folder / name).plan
    store = open_store(planned.url)
    read = DatasetSpec.model_validate_json(store.read(SPEC))
    shard = load_plan(store, planned.shards[0].fingerprint)

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="builder-shard-") as target:
            receipt = write(shard, read, open_store(target), key=Key(KEY.encode()))
            assert receipt.rows == 1, receipt.excluded

    return run


def series_of(archive: Path) -> dict[str, list[str]]:
    """Return the files of each contrast in the order of their slices."""
    return {n: [str(p) for p in sorted(archive.rglob(f"{n}-*.dcm"))] for n in SELECT}


def target_of(reference: sitk.Image) -> sitk.ResampleImageFilter:
    """Return a resampler to the grid of an image at the spacing of the benchmark."""
    spacing = SPACING[::-1]
    size = [
        round(n * old / new) for n, old, new in zip(reference.GetSize(), reference.GetSpacing(), spacing, strict=True)
    ]
    sampler = sitk.ResampleImageFilter()
    sampler.SetOutputSpacing(spacing)
    sampler.SetSize(size)
    sampler.SetOutputDirection(reference.GetDirection())
    sampler.SetOutputOrigin(reference.GetOrigin())
    sampler.SetInterpolator(sitk.sitkLinear)
    sampler.SetOutputPixelType(sitk.sitkFloat32)
    return sampler


def by_simpleitk(archive: Path, folder: Path) -> None:
    """Read, sample, scale and save four series as a short script does."""
    made, sampler = [], None
    for files in series_of(archive).values():
        image = sitk.ReadImage(files)
        sampler = target_of(image) if sampler is None else sampler
        made.append(sitk.GetArrayFromImage(sitk.Normalize(sampler.Execute(image))))
    np.save(folder / "script.npy", np.stack(made))


def to_nifti(archive: Path, folder: Path) -> dict[str, str]:
    """Write each series as a NIfTI file, which MONAI reads."""
    found = {}
    for n, files in series_of(archive).items():
        found[n] = str(folder / f"{n}.nii")
        sitk.WriteImage(sitk.ReadImage(files), found[n])
    return found


def by_monai(files: dict[str, str]) -> Callable[[], None] | None:
    """Return MONAI's chain of dictionary transforms, or None where MONAI is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from monai import transforms as m
    except ImportError:
        return None
    torch.set_num_threads(1)
    names = list(files)
    chain = m.Compose([
        m.LoadImaged(keys=names, reader="NibabelReader"),
        m.EnsureChannelFirstd(keys=names),
        m.Spacingd(keys=names[:1], pixdim=SPACING[::-1], mode="bilinear"),
        m.ResampleToMatchd(keys=names[1:], key_dst=names[0], mode="bilinear"),
        m.NormalizeIntensityd(keys=names),
        m.ConcatItemsd(keys=names, name="image"),
    ])  # fmt: skip

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert chain(dict(files))["image"].shape[0] == len(names)

    return run


if __name__ == "__main__":
    main()
