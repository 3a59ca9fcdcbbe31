"""Reading the SOP Instance UID of a DICOM file held in memory."""

import io
import warnings

import pydicom

from builder.errors import Reason
from builder.headers.boundary import parsing


def sop_instance_uid(data: bytes) -> str:
    """Read the SOP Instance UID (0008,0018) of a DICOM file, "" when it has none. May raise CaseError UNREADABLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with parsing(Reason.UNREADABLE, "pydicom cannot parse an object"):
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            return str(found.get("SOPInstanceUID") or "")
