"""Which instance some bytes are."""

import io
import warnings

import pydicom

from builder.errors import Reason
from builder.headers.boundary import parsing


def sop_instance_uid(data: bytes) -> str:
    """SOP Instance UID (0008,0018) of a DICOM file; "" when it has none. Raises CaseError UNREADABLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with parsing(Reason.UNREADABLE, "pydicom cannot parse an object"):
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            return str(found.get("SOPInstanceUID") or "")
