"""What an archive holds, before any spec exists: ``builder scan``."""

from builder.library.scan.archive import Scan, scan_archive
from builder.library.scan.layouts import MASK_NAME
from builder.library.scan.page import page_of, pictures
from builder.library.scan.words import text_of_scan

__all__ = ["MASK_NAME", "Scan", "page_of", "pictures", "scan_archive", "text_of_scan"]
