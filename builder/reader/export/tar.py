"""Export to WebDataset: tar files in which the members of a sample share the name before the first dot."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.item import Item

PER_FILE = 256
"""Samples of one tar file, unless the caller says otherwise."""


def export_webdataset(
    dataset: Dataset,
    folder: str | Path | ExportFolder,
    *,
    samples_per_file: int | None = None,
    missing: Missing = "refuse",
    track: Track = silently,
) -> list[Path]:
    """Write every sample as ``<sample_key>.<field>.npy`` and its row as ``.json`` into numbered tar files.

    WebDataset decodes them with ``decode()`` to arrays (channel, slice, row, column). Equal datasets give equal bytes.
    Source: WebDataset file format specification, "files sharing a basename". Where a field holds several images, the
    row has ``channel_names``: field to the names of its channels. ``missing: fill`` also writes samples that lack an
    optional image; SpecError refuses them otherwise.

    Returns
    -------
    list
        The tar files, in the order of the samples.
    """
    samples_per_file = PER_FILE if samples_per_file is None else samples_per_file
    if samples_per_file < 1:
        raise ValueError(f"samples_per_file: found {samples_per_file}, expected 1 or more")
    check_present(dataset, missing)
    names = {n: [*dataset.channels(n)] for n in dataset.image_fields if dataset.layout(n).channel_names}
    target = ExportFolder.of(folder)

    def write(first: int) -> Path:
        file = f"{dataset.manifest.name}-{first // samples_per_file:06d}.tar"
        if target.holds(file):
            return target.path(file)
        with (
            target.replacing(file) as place,
            tarfile.open(place, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for item in dataset[first : first + samples_per_file]:
                for name, data in _members(item, names):
                    target.check(name)  # unpacking the tar writes to the paths of its members
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        return target.path(file)

    return target.each(write, range(0, len(dataset), samples_per_file), track)


def _members(item: Item, names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, bytes]]:
    row = item.row | ({"channel_names": names} if names else {})
    key = str(row["sample_key"])
    for name, array in sorted(item.arrays.items()):
        data = io.BytesIO()
        np.save(data, array)
        yield f"{key}.{name}.npy", data.getvalue()
    yield f"{key}.json", json.dumps(row, sort_keys=True, default=str).encode()
