"""Reading a dataset for training: needs NumPy, PyArrow and a decompressor; no Zarr, Dask, pydicom or SimpleITK."""

from builder.reader.dataset import Batch, Dataset, Item, open_dataset

__all__ = ["Batch", "Dataset", "Item", "open_dataset"]
