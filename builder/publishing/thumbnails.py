"""Draw pictures of samples for the report: a few slices each, with the outlines of masks, boxes and points.

The images of a case that has several are drawn side by side.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import Reason
from builder.labels.pictures import data_uri, draw_slice
from builder.model.layout import Manifest, Receipt, picture_path, shard_path
from builder.publishing.chosen import caption, choose
from builder.reader.dataset import Dataset
from builder.reader.item import Item
from builder.reader.opening import dataset_over
from builder.storage import Store

MOST_UNPROVEN = 64
"""Most failed cases that are shown as pictures; all of them are listed with their reasons."""

AROUND = 2
"""Slices shown before and after the first one, spread over the labels, or over the sample where it holds none."""

MOST_DRAWN = 32
"""Most boxes and points that are drawn on one slice."""


def thumbnails(
    index: pa.Table, manifest: Manifest, dataset: Store, *, count: int, groups: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return pictures of telling samples: the slice with the most of their labels, or else the middle one, and others.

    Only those slices of the image are read, which for whole volumes is a fraction of the chunks.

    Returns
    -------
    list
        ``sample_key``, ``split``, ``png`` (a data URI), ``before`` and ``after`` (slices on both sides of it), ``why``
        it was chosen, and ``classes``: what is in it.
    """
    chosen = choose(index, count, groups)
    if not chosen:
        return []
    rows = [*chosen]
    (main,) = (f.name for f in manifest.fields if f.is_image and not f.grid)
    drawn = [f.name for f in manifest.fields if not f.is_image and not f.grid]  # images of other grids are not drawn
    images = dataset_over(dataset, manifest, index, fields=[main]).select(rows)
    masks = dataset_over(dataset, manifest, index, fields=drawn).select(rows)
    pictures = []
    for position, why in enumerate(chosen.values()):
        item = masks[position]
        row = item.row
        before, png, after = _slices(images, position, item, row)
        pictures.append(
            {
                "sample_key": row["sample_key"],
                "split": row["split"],
                "png": png,
                "before": before,
                "after": after,
                "why": why,
                "classes": caption(row, index.schema),
            }
        )
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


def _slices(images: Dataset, position: int, item: Item, row: Mapping[str, Any]) -> tuple[list[str], str, list[str]]:
    """Draw the main slice, and those before and after it."""
    slices = int(images.sample_shapes([position])[0][0])
    held = np.zeros(slices, np.int64)
    for mask in item.arrays.values():
        held += np.count_nonzero((mask > 0).any(axis=0), axis=(1, 2))
    for first, last in _boxes(row):
        held[max(0, int(first[0])) : int(last[0]) + 1] += 1
    main = int(np.argmax(held)) if held.any() else slices // 2
    low, high = np.flatnonzero(held)[[0, -1]] if held.any() else (0, slices - 1)
    before = sorted({*np.linspace(low, main, AROUND + 1).round().astype(int).tolist()} - {main})
    after = sorted({*np.linspace(main, high, AROUND + 1).round().astype(int).tolist()} - {main})
    drawn = {level: data_uri(_picture(images, position, level, item, row)) for level in (*before, main, *after)}
    return [drawn[n] for n in before], drawn[main], [drawn[n] for n in after]


def _picture(images: Dataset, position: int, level: int, item: Item, row: Mapping[str, Any]) -> bytes:
    _, rows, columns = (int(n) for n in images.sample_shapes([position])[0])
    planes = images.crop(position, (level, 0, 0), (1, rows, columns))[images.fields[0]][:, 0]
    planes = planes.astype(np.float32)
    inside = np.zeros((rows, columns), bool)
    for mask in item.arrays.values():
        inside |= (mask[:, level] > 0).any(axis=0)
    regions = [inside, *_drawn(row, level, (rows, columns))]
    if not images.layout(images.fields[0]).channel_names:
        return draw_slice(planes[0], *regions)
    beside = [np.hstack([region] * len(planes)) for region in regions]
    return draw_slice(np.hstack([_scaled(plane) for plane in planes]), *beside)


def _boxes(row: Mapping[str, Any]) -> Iterator[NDArray[np.float64]]:
    """Yield the first and last (slice, row, column) of each box, and of a square around each point."""
    yield from np.reshape(np.asarray(row.get("boxes") or (), np.float64), (-1, 2, 3))[:MOST_DRAWN]
    reach = np.array([0, 1, 1]) * max(2.0, max(row["rows"], row["columns"]) / 80)
    for point in np.reshape(np.asarray(row.get("landmarks") or (), np.float64), (-1, 3))[:MOST_DRAWN]:
        yield np.stack([point - reach, point + reach])


def _drawn(row: Mapping[str, Any], level: int, shape: tuple[int, int]) -> Iterator[NDArray[np.bool_]]:
    """Yield the pixels of each box and point that the slice cuts."""
    for first, last in _boxes(row):
        if round(first[0]) <= level <= round(last[0]):
            region = np.zeros(shape, bool)
            (top, left), (bottom, right) = np.rint(first[1:]).astype(int), np.rint(last[1:]).astype(int)
            region[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] = True
            yield region


def _scaled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values of one of several images side by side from 0 to 1, as they have no unit in common."""
    low, high = np.percentile(plane, (1, 99))
    return np.asarray(np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1), dtype=np.float32)
