"""Other libraries reading the same patches, in a process of their own: ``benchmarks/read.py`` starts it and asks.

    python reading.py FOLDER

``FOLDER`` holds ``patches.npy`` (n, 96, 96, 96) int16 and ``volume*.npy``. The first line printed is a JSON list of
[name, remark]; then for each name on a line of standard input one pass is made, and a JSON object printed: samples,
processor time and wall time in seconds. What is not installed is left out. Each library writes its own files first.
"""

import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

EDGE = 96
Run = Callable[[], int]
Contestant = tuple[str, str, Run]


def main() -> None:
    """Say who is here, then make one pass for each name that is read."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    answers = sys.stdout
    sys.stdout = io.StringIO()  # libraries print
    folder = Path(sys.argv[1])
    patches = np.load(folder / "patches.npy")
    volumes = [np.load(path) for path in sorted(folder.glob("volume*.npy"))]
    contestants: dict[str, tuple[str, Run]] = {}
    for prepare in PREPARE:
        with contextlib.suppress(ImportError):
            contestants.update({name: (remark, run) for name, remark, run in prepare(folder, patches, volumes)})
    print(json.dumps([[name, remark] for name, (remark, _) in contestants.items()]), file=answers, flush=True)
    for line in sys.stdin:
        run = contestants[line.strip()][1]
        cpu, wall = time.process_time(), time.perf_counter()
        count = run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"samples": count, "cpu": cpu, "wall": wall}), file=answers, flush=True)
    os._exit(0)  # some leave threads that wait for ever


def nnunet(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """blosc2 files as nnU-Net v2 writes them, a random crop of each as its loader reads it."""
    import blosc2

    blosc2.set_nthreads(1)
    paths = {}
    with contextlib.suppress(ImportError):
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

        paths["nnU-Net's own writer (LZ4HC)"] = written = []
        for number, volume in enumerate(volumes):
            data = volume[None].astype(np.float32)
            blocks, chunks = comp_blosc2_params(data.shape, (EDGE,) * 3, data.itemsize)
            stem = str(folder / f"nnunet{number}")
            mask = np.zeros(data.shape, np.int16)
            nnUNetDatasetBlosc2.save_case(data, mask, {}, stem, chunks=chunks, blocks=blocks)
            written.append(f"{stem}.b2nd")
    paths["zstd 8, as nnU-Net up to 2.6"] = written = []
    for number, volume in enumerate(volumes):
        data, path = volume[None].astype(np.float32), str(folder / f"zstd{number}.b2nd")
        params = {"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 1}
        blosc2.asarray(data, urlpath=path, chunks=(1, 96, 96, 96), blocks=(1, 32, 32, 32), cparams=params)
        written.append(path)
    for remark, files in paths.items():
        rng = np.random.default_rng(0)

        def run(files: list[str] = files, rng: Any = rng) -> int:
            for number in range(12):
                stored = blosc2.open(files[number % len(files)], mode="r", dparams={"nthreads": 1}, mmap_mode="r")
                s, r, c = (int(rng.integers(0, n - EDGE + 1)) for n in stored.shape[1:])
                stored[:, s : s + EDGE, r : r + EDGE, c : c + EDGE]
            return 12

        yield f"blosc2, random crop ({remark})", "float32, crops out of volumes", run


def monai(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """MONAI's PersistentDataset with a random crop; its cache is filled before."""
    import torch
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd

    torch.set_num_threads(1)
    steps = Compose(
        [
            LoadImaged(keys="image", reader="NumpyReader"),
            EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
            RandSpatialCropd(keys="image", roi_size=(EDGE, EDGE, EDGE), random_size=False),
        ]
    )
    paths = sorted(folder.glob("volume*.npy"))
    items = [{"image": str(paths[number % len(paths)])} for number in range(4)]
    dataset = PersistentDataset(items, steps, cache_dir=folder / "monai")
    # a crop is a view of a mapped file until it is copied, as a batch does
    read = lambda: len([np.array(sample["image"]) for sample in dataset])  # noqa: E731
    yield "MONAI PersistentDataset, random crop", "uncompressed volumes", read


def torchio(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """TorchIO's Queue without workers: eight patches out of each volume."""
    import torch
    import torchio as tio

    torch.set_num_threads(1)
    subjects = []
    for number, volume in enumerate(volumes):
        path = folder / f"torchio{number}.nii.gz"
        tio.ScalarImage(tensor=torch.from_numpy(volume[None].astype(np.float32))).save(path)
        subjects.append(tio.Subject(image=tio.ScalarImage(path)))

    def run() -> int:
        queue = tio.Queue(tio.SubjectsDataset(subjects), 8 * len(subjects), 8, tio.UniformSampler(EDGE), num_workers=0)
        return sum(len(batch["image"]["data"]) for batch in tio.SubjectsLoader(queue, batch_size=4, num_workers=0))

    yield "TorchIO Queue", "8 patches a .nii.gz volume", run


def webdataset(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """One tar file of .npy patches."""
    import webdataset as wds

    path = folder / "patches.tar"
    with wds.TarWriter(str(path)) as writer:
        for number, patch in enumerate(patches):
            writer.write({"__key__": f"{number:06d}", "image.npy": patch})
    yield "WebDataset", "uncompressed", lambda: sum(1 for _ in wds.WebDataset(str(path), shardshuffle=False).decode())


def mosaic(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """MosaicML's MDS files, local."""
    from streaming import MDSWriter, StreamingDataset

    shape = f"ndarray:int16:{EDGE},{EDGE},{EDGE}"
    with MDSWriter(out=str(folder / "mds"), columns={"image": shape}) as writer:
        for patch in patches:
            writer.write({"image": patch})
    dataset = StreamingDataset(local=str(folder / "mds"), batch_size=4, shuffle=False)
    yield "MosaicML streaming", "uncompressed", lambda: sum(1 for _ in dataset)


def litdata(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """litdata's chunks, local."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    place = folder / "litdata"
    writer = BinaryWriter(str(place), chunk_bytes="64MB")
    for number, patch in enumerate(patches):
        writer[number] = {"image": patch}
    writer.done()
    writer.merge()
    dataset = StreamingDataset(str(place), shuffle=False)
    yield "litdata", "uncompressed", lambda: sum(1 for _ in dataset)


def mlarray(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """mlarray's files in its own defaults and for these crops; the quicker counts. A random crop of each."""
    import blosc2
    from mlarray import MLArray

    blosc2.set_nthreads(1)
    for patch in ("default", EDGE):
        arrays = []
        for number, volume in enumerate(volumes):
            path = folder / f"{patch}-{number}.mla"
            MLArray(volume, patch_size=patch).save(path)
            arrays.append(MLArray.open(path, dparams={"nthreads": 1}))
        yield f"mlarray, random crop, patch size {patch}", "crops out of volumes", partial(crops, arrays)


def medh5(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """medh5's files for training, a random crop of each."""
    import medh5 as library

    library.set_threads(1)
    for codec in ("balanced", "training"):
        arrays = []
        for number, volume in enumerate(volumes):
            path = folder / f"{codec}-{number}.medh5"
            with library.create(str(path), sample_id=str(number), subject_id=str(number), codec=codec) as writer:
                writer.add_timepoint("tp0", label="first", days_from_baseline=0)
                writer.add_grid(
                    "ct", shape=volume.shape, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), timepoint="tp0"
                )
                writer.add_image("CT", volume, grid="ct", modality="CT", value_type="quantitative", value_units="HU")
            arrays.append(Medh5(library.open(str(path)).images["CT"]))
        yield f"medh5, random crop, codec {codec}", "crops out of volumes", partial(crops, arrays)


@dataclass(frozen=True)
class Medh5:
    """An image of a file, with the shape and boxes of an array."""

    image: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole image."""
        return tuple(self.image.shape)

    def __getitem__(self, box: tuple[slice, ...]) -> Any:
        return self.image.read(box)


def zarrs(folder: Path, patches: Any, volumes: list[Any]) -> Iterator[Contestant]:
    """zarr-python with the pipeline of zarrs, on the arrays that the builder's reader reads."""
    import zarr

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1})
    arrays = [
        zarr.open_array(str(p.parent), mode="r") for p in sorted((folder.parent / "patches").rglob("image/zarr.json"))
    ]
    yield (
        "zarrs' pipeline in zarr-python",
        "the same arrays",
        lambda: sum(len([a[i] for i in range(a.shape[0])]) for a in arrays),
    )


def crops(arrays: list[Any]) -> int:
    """Read a random crop of one array after the other."""
    rng = np.random.default_rng(0)
    for number in range(12):
        array = arrays[number % len(arrays)]
        s, r, c = (int(rng.integers(0, n - EDGE + 1)) for n in array.shape)
        np.array(array[s : s + EDGE, r : r + EDGE, c : c + EDGE])
    return 12


PREPARE = (nnunet, monai, torchio, webdataset, mosaic, litdata, mlarray, medh5, zarrs)

if __name__ == "__main__":
    main()
