"""Export to WebDataset: tar files in which the members of a sample share the name before the first dot."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from builder.reader.dataset import Dataset, Item
from builder.reader.export.folder import ExportFolder


def export_webdataset(dataset: Dataset, folder: str | Path, *, samples_per_file: int = 256) -> list[Path]:
    """Write every sample as ``<sample_key>.<field>.npy`` and its row as ``.json`` into numbered tar files.

    WebDataset decodes them with ``decode()`` to arrays (channel, slice, row, column). Equal datasets give equal bytes.
    Source: WebDataset file format specification, "files sharing a basename".

    Returns
    -------
    list
        The tar files, in the order of the samples.
    """
    if samples_per_file < 1:
        raise ValueError(f"samples_per_file: found {samples_per_file}, expected 1 or more")
    target, paths = ExportFolder(Path(folder)), []
    for number, first in enumerate(range(0, len(dataset), samples_per_file)):
        paths.append(target.path(f"{dataset.manifest.name}-{number:06d}.tar"))
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as archive:
            for item in dataset[first : first + samples_per_file]:
                for name, data in _members(item):
                    target.check(name)  # unpacking the tar writes to the paths of its members
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return paths


def _members(item: Item) -> Iterator[tuple[str, bytes]]:
    row = item.row
    key = str(row["sample_key"])
    for name, array in sorted(item.arrays.items()):
        data = io.BytesIO()
        np.save(data, array)
        yield f"{key}.{name}.npy", data.getvalue()
    yield f"{key}.json", json.dumps(row, sort_keys=True, default=str).encode()
