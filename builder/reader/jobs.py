"""How a batch is made of samples, whole or cropped at random."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.layout import FieldLayout
from builder.reader.batches import Batch, Buffers, Job
from builder.reader.order import Positions, random_numbers
from builder.reader.shard import ChunkObject
from builder.reader.source import Source


@dataclass(frozen=True, eq=False)
class Chosen:
    """The samples and fields of a dataset that batches are made of."""

    source: Source
    table: pa.Table
    rows: Positions
    layouts: tuple[FieldLayout, ...]


def objects_of(chosen: Chosen, positions: Positions) -> list[ChunkObject]:
    """The stored objects that the samples at ``positions`` are read from, each once, in the order of storage."""
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
    """A batch of ``positions`` of ``chosen`` with buffers from ``pool``, still to be filled.

    ``numbers`` are the places of the samples in the global order: random crops depend on them.
    """
    source, indices = chosen.source, chosen.rows[positions]
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
    """(sample, 3) first voxel of a random box of each sample; 0 along axes where the sample is not larger."""
    axes = []
    for axis in range(3):
        room = np.maximum(shapes[:, axis].astype(np.int64) - crop[axis], 0) + 1
        drawn = random_numbers(seed, epoch, positions=numbers, salt=16 + axis)
        axes.append((drawn % room.astype(np.uint64)).astype(np.int64))
    return np.stack(axes, axis=1)
