"""Pictures of samples for the report: one slice each, the outlines of its masks drawn in."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from builder.model.layout import Manifest
from builder.reader.dataset import Dataset, dataset_over
from builder.storage import Store

PIXELS = 160
"""Longer edge a picture is drawn at, about: whole pixels are repeated or averaged."""

PERCENTILES = (1.0, 99.5)
"""Of the slice, drawn black and white."""

OUTLINE = (255, 196, 0)


def thumbnails(index: pa.Table, manifest: Manifest, dataset: Store, *, count: int) -> list[dict[str, Any]]:
    """Pictures of evenly chosen samples: the slice with most foreground, else the middle one.

    Of the image only that slice is read; of whole volumes that is a fraction of the chunks.
    """
    if not index.num_rows or not count:
        return []
    rows = sorted({round(i * (index.num_rows - 1) / max(1, count - 1)) for i in range(count)})
    names = [f.name for f in manifest.fields]
    images = dataset_over(dataset, manifest, index, fields=["image"]).select(rows)
    masks = dataset_over(dataset, manifest, index, fields=[n for n in names if n != "image"]).select(rows)
    pictures = []
    for position in range(len(rows)):
        item = masks[position]
        png = _png(_picture(images, position, item.arrays))
        uri = "data:image/png;base64," + base64.b64encode(png).decode()
        pictures.append({"sample_key": item.row["sample_key"], "split": item.row["split"], "png": uri})
    return pictures


def _picture(images: Dataset, position: int, masks: Mapping[str, NDArray[Any]]) -> Image.Image:
    slices, rows, columns = (int(n) for n in images.sample_shapes([position])[0])
    foreground = np.zeros(slices, np.int64)
    for mask in masks.values():
        foreground += np.count_nonzero((mask > 0).any(axis=0), axis=(1, 2))
    level = int(np.argmax(foreground)) if foreground.any() else slices // 2
    plane = images.crop(position, (level, 0, 0), (1, rows, columns))["image"][0, 0].astype(np.float32)
    inside = np.zeros((rows, columns), bool)
    for mask in masks.values():
        inside |= (mask[:, level] > 0).any(axis=0)
    low, high = np.percentile(plane, PERCENTILES)
    grey = _resized(np.clip((plane - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8))
    if not inside.any():
        return Image.fromarray(grey)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[_outline(_resized(inside.astype(np.uint8) * 255) > 127)] = OUTLINE
    return Image.fromarray(picture)


def _resized(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blocks averaged where the plane is larger than a picture, pixels repeated where it is smaller."""
    longest = max(plane.shape)
    if longest > PIXELS:
        return np.asarray(Image.fromarray(plane).reduce(max(1, round(longest / PIXELS))))
    scale = max(1, PIXELS // longest)
    return np.kron(plane, np.ones((scale, scale), np.uint8))


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a region with a neighbour outside of it."""
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(region & ~inner)


def _png(picture: Image.Image) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, format="PNG")
    return sink.getvalue()
