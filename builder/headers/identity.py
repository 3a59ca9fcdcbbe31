"""Which instance some bytes are."""

import io
import warnings

import pydicom

from builder.errors import CaseError, Reason
from builder.headers.attributes import PARSER_ERRORS


def sop_instance_uid(data: bytes) -> str:
    """SOP Instance UID (0008,0018) of a DICOM file; "" when it has none. Raises CaseError UNREADABLE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            return str(found.get("SOPInstanceUID") or "")
        except PARSER_ERRORS as error:
            raise CaseError(Reason.UNREADABLE, f"pydicom cannot parse an object ({type(error).__name__})") from error
