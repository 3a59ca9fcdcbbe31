"""Draw pictures of samples for the report: one slice each, with the outlines of its masks.

The images of a case that has several are drawn side by side.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import Reason
from builder.labels.pictures import data_uri, draw_slice
from builder.model.layout import Manifest, Receipt, picture_path, shard_path
from builder.reader.dataset import Dataset
from builder.reader.opening import dataset_over
from builder.storage import Store

MOST_UNPROVEN = 64
"""Most failed cases that are shown as pictures; all of them are listed with their reasons."""


def thumbnails(index: pa.Table, manifest: Manifest, dataset: Store, *, count: int) -> list[dict[str, Any]]:
    """Return pictures of evenly spaced samples: the slice with the most foreground, or else the middle slice.

    Only that slice of the image is read, which for whole volumes is a fraction of the chunks.
    """
    if not index.num_rows or not count:
        return []
    rows = sorted({round(i * (index.num_rows - 1) / max(1, count - 1)) for i in range(count)})
    (main,) = (f.name for f in manifest.fields if f.is_image and not f.grid)
    drawn = [f.name for f in manifest.fields if not f.is_image and not f.grid]  # images of other grids are not drawn
    images = dataset_over(dataset, manifest, index, fields=[main]).select(rows)
    masks = dataset_over(dataset, manifest, index, fields=drawn).select(rows)
    pictures = []
    for position in range(len(rows)):
        item = masks[position]
        uri = data_uri(_picture(images, position, item.arrays))
        pictures.append({"sample_key": item.row["sample_key"], "split": item.row["split"], "png": uri})
        for opened in (images, masks):
            opened.close_files()
    return pictures


def unproven(receipts: Mapping[str, Receipt], dataset: Store) -> list[dict[str, Any]]:
    """Return pictures of cases whose labels failed their proof, with what was found, for the first cases by key."""
    failed = sorted(
        (case.case_key, case.detail, shard)
        for shard, receipt in receipts.items()
        for case in receipt.excluded
        if case.reason == Reason.LABEL_UNPROVEN
    )
    return [
        {
            "case_key": case,
            "detail": detail,
            "png": data_uri(dataset.read(shard_path(shard, picture_path(case)))),
        }
        for case, detail, shard in failed[:MOST_UNPROVEN]
    ]


def _picture(images: Dataset, position: int, masks: Mapping[str, NDArray[Any]]) -> bytes:
    slices, rows, columns = (int(n) for n in images.sample_shapes([position])[0])
    foreground = np.zeros(slices, np.int64)
    for mask in masks.values():
        foreground += np.count_nonzero((mask > 0).any(axis=0), axis=(1, 2))
    level = int(np.argmax(foreground)) if foreground.any() else slices // 2
    planes = images.crop(position, (level, 0, 0), (1, rows, columns))[images.fields[0]][:, 0]
    planes = planes.astype(np.float32)
    inside = np.zeros((rows, columns), bool)
    for mask in masks.values():
        inside |= (mask[:, level] > 0).any(axis=0)
    if not images.layout(images.fields[0]).channel_names:
        return draw_slice(planes[0], inside)
    return draw_slice(np.hstack([_scaled(plane) for plane in planes]), np.hstack([inside] * len(planes)))


def _scaled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values of one of several images side by side from 0 to 1, as they have no unit in common."""
    low, high = np.percentile(plane, (1, 99))
    return np.asarray(np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1), dtype=np.float32)
