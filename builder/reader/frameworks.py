"""Convert samples and batches to the classes of other libraries, with the grid in the convention of each library.

MONAI and TorchIO use world coordinates in RAS mm, as NIfTI does. The array axes stay (slice, row, column).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.errors import MissingExtra
from builder.model.classes import is_class
from builder.model.geometry import Affine, Geometry
from builder.reader.batches import Batch
from builder.reader.item import Item
from builder.reader.targets import class_numbers

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ras_affine(geometry: Geometry) -> Affine:
    """Return the (4, 4) matrix from voxel (slice, row, column) to RAS mm: LPS with its first two axes reversed.

    Source: NIfTI-1 standard, "3D image (volume) orientation and location in space"; PS3.3 C.7.6.2.1.1.
    """
    return np.asarray(_LPS_TO_RAS @ geometry.affine)


def to_monai(item: Item) -> dict[str, Any]:
    """Return every field as a MONAI MetaTensor (channel, slice, row, column), and ``row``.

    Raises
    ------
    MissingExtra
        If MONAI is not installed.
    """
    try:
        import torch
        from monai.data import MetaTensor
    except ImportError as error:
        raise MissingExtra("monai", "monai") from error
    tensors = {
        name: MetaTensor(
            torch.from_numpy(array), affine=torch.from_numpy(ras_affine(item.geometry_of(name))), meta={"space": "RAS"}
        )
        for name, array in item.arrays.items()
    }
    return {**tensors, "row": item.row}


def to_torchio(item: Item) -> Any:
    """Return a TorchIO Subject: ``image`` as ScalarImage, every mask as LabelMap, and ``row``.

    Raises
    ------
    MissingExtra
        If TorchIO is not installed.
    """
    try:
        import torch
        import torchio
    except ImportError as error:
        raise MissingExtra("torchio", "torchio") from error
    images = {}
    for name, array in item.arrays.items():
        make = torchio.ScalarImage if name in item.images else torchio.LabelMap
        images[name] = make(tensor=torch.from_numpy(array), affine=ras_affine(item.geometry_of(name)))
    return torchio.Subject(**images, row=item.row)


def to_numpy(batch: Batch, columns: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return a batch as a dict of arrays (a pytree): every field, ``index``, and the chosen columns of the rows.

    Numbers with missing values become float64 with NaN. Class labels are as in ``Dataset.targets``. Other texts become
    objects, with None where missing.
    """
    found = {**batch.arrays, "index": batch.indices}
    table = batch.table if columns else None
    for name in columns:
        assert table is not None
        field = table.schema.field(name)
        found[name] = class_numbers(table[name], field) if is_class(field) else _column(table[name])
    return found


def to_jax(batch: Batch, columns: Sequence[str] = (), *, device: Any = None) -> dict[str, Any]:
    """Return what ``to_numpy`` returns as JAX arrays on ``device``, for numbers and booleans only.

    On a CPU the arrays may share the memory of the batch, which is not reused while they exist.

    Raises
    ------
    MissingExtra
        If JAX is not installed.
    ValueError
        For a column of texts.
    """
    try:
        import jax
    except ImportError as error:
        raise MissingExtra("jax", "jax") from error
    found = to_numpy(batch, columns)
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: found {array.dtype}, expected numbers or truth values")
    arrays: dict[str, Any] = jax.device_put(found, device)
    return arrays


def nifti_arrays(item: Item, name: str) -> tuple[NDArray[Any], Affine]:
    """Return a field in the axis order of NIfTI, (column, row, slice[, channel]), and the matching affine."""
    array = np.transpose(item.arrays[name], (3, 2, 1, 0))
    if array.shape[3] == 1:
        array = array[..., 0]
    return np.ascontiguousarray(array), np.asarray(ras_affine(item.geometry_of(name))[:, [2, 1, 0, 3]])


def _column(values: pa.ChunkedArray) -> NDArray[Any]:
    kind = values.type
    if pa.types.is_integer(kind) and values.null_count:
        values = values.cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or (pa.types.is_boolean(kind) and not values.null_count):
        return np.asarray(values.to_numpy())
    return np.array(values.to_pylist(), dtype=object)
