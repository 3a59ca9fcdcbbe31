"""Export datasets to the files that other tools expect."""

from builder.reader.export.bids import export_bids
from builder.reader.export.huggingface import export_huggingface
from builder.reader.export.mds import export_mds
from builder.reader.export.nifti import export_datalist, export_nifti
from builder.reader.export.nnunet import export_nnunet, export_nnunet_preprocessed
from builder.reader.export.omezarr import export_omezarr
from builder.reader.export.tar import export_webdataset

__all__ = [
    "export_bids",
    "export_datalist",
    "export_huggingface",
    "export_mds",
    "export_nifti",
    "export_nnunet",
    "export_nnunet_preprocessed",
    "export_omezarr",
    "export_webdataset",
]
