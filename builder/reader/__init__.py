"""Read a dataset for training. Needs NumPy, PyArrow and a decompressor, but no Zarr, Dask, pydicom or SimpleITK."""

from builder.reader.batches import Batch, Batches
from builder.reader.dataset import Dataset
from builder.reader.item import Item
from builder.reader.opening import open_dataset
from builder.reader.order import State

__all__ = ["Batch", "Batches", "Dataset", "Item", "State", "open_dataset"]
