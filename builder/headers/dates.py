"""Parse dates as DICOM headers state them."""

import re
from datetime import date


def dicom_date(text: str | None) -> date | None:
    """Parse a DA value (PS3.5 6.2); return None when it is not valid."""
    digits = (text or "").strip().replace(".", "")
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
