"""Jobs that fill a batch with whole samples or with random crops of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.fields import FieldLayout
from builder.reader.batches import Batch, Buffers, Job
from builder.reader.order import Positions, random_numbers
from builder.reader.shard import ChunkObject
from builder.reader.source import Source


@dataclass(frozen=True, eq=False)
class Chosen:
    """The samples and fields of a dataset from which batches are made."""

    source: Source
    table: pa.Table
    rows: Positions
    layouts: tuple[FieldLayout, ...]


def objects_of(chosen: Chosen, positions: Positions) -> list[ChunkObject]:
    """Return the stored objects that hold the samples at ``positions``, each once, in storage order."""
    indices = chosen.rows[positions]
    ordered = indices[chosen.source.storage_order(indices)].tolist()
    found = [chosen.source.locate(index, layout)[0] for index in ordered for layout in chosen.layouts]
    return list({id(one): one for one in found}.values())


def make_job(
    chosen: Chosen,
    positions: Positions,
    numbers: Positions,
    pool: Buffers,
    *,
    crop: tuple[int, int, int] | None,
    seed: int,
    epoch: int,
) -> Job:
    """Return a job that fills a batch of the samples at ``positions``, with buffers from ``pool``.

    ``numbers`` are the places of the samples in the global order. Random crops depend on them alone, so they are the
    same on any rank.
    """
    source, indices = chosen.source, chosen.rows[positions]
    if crop is not None and any(layout.grid for layout in chosen.layouts):
        raise ValueError("crop: found fields on several grids, expected one: read whole samples, or fields of one grid")
    arrays = {}
    for layout in chosen.layouts:
        shape = source.batch_shape(indices, layout) if crop is None else (len(indices), layout.channels, *crop)
        arrays[layout.name] = pool.take(shape, source.dtype(layout))
    starts = None
    if crop is not None:
        starts = random_starts(source.shapes[indices], crop, numbers=numbers, seed=seed, epoch=epoch)

    def fill(rows: Positions) -> None:
        for name in arrays:
            if starts is None:
                source.read_many(indices, name, arrays[name], rows=rows)
                continue
            for row in rows.tolist():
                source.crop_padded(int(indices[row]), name, starts[row].tolist(), out=arrays[name][row])

    return Job(Batch(indices, arrays, chosen.table, None, starts), source.storage_order(indices), fill)


def random_starts(
    shapes: NDArray[np.int32], crop: tuple[int, int, int], *, numbers: Positions, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return the (sample, 3) first voxels of a random box in each sample.

    The first voxel is 0 along an axis where the sample is not larger than the box.
    """
    axes = []
    for axis in range(3):
        room = np.maximum(shapes[:, axis].astype(np.int64) - crop[axis], 0) + 1
        drawn = random_numbers(seed, epoch, positions=numbers, salt=16 + axis)
        axes.append((drawn % room.astype(np.uint64)).astype(np.int64))
    return np.stack(axes, axis=1)
