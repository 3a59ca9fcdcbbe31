"""Reading the SOP Instance UID of a DICOM file held in memory."""

import io
import warnings

import numpy as np
import pydicom

from builder.errors import Reason
from builder.headers.boundary import parsing


def sop_instance_uid(data: bytes) -> str:
    """Read the SOP Instance UID (0008,0018) of a DICOM file, "" when it has none. May raise CaseError UNREADABLE."""
    plain = _of_plain_file(data)
    if plain:
        return plain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with parsing(Reason.UNREADABLE, "pydicom cannot parse an object"):
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            return str(found.get("SOPInstanceUID") or "")


def _of_plain_file(data: bytes) -> str:
    """Return the UID in a plain file (``builder.headers.scan``), "" in any other."""
    if data[128:132] != b"DICM":
        return ""
    # loaded here, with the compiler, because each spec loads all sources and few ask a server
    from builder.headers import scan as scanning
    from builder.headers.walker import CHARSET_ROWS, SYNTAX_ROWS

    wanted = (np.array([0x00080018]), np.array([scanning.TEXT_KIND]), np.array([1]))
    place, length, facts = np.full((1, 1), -1), np.full((1, 1), -1), np.full((1, 7), -1)
    size = np.array([len(data)])
    memory = np.frombuffer(data, np.uint8)
    scanning.scan(memory, np.array([0]), size, size, wanted, SYNTAX_ROWS, CHARSET_ROWS, place, length, facts)
    if facts[0, 0] != scanning.DONE or place[0, 0] < 0:
        return ""
    return data[place[0, 0] : place[0, 0] + length[0, 0]].decode("ascii", errors="replace")
