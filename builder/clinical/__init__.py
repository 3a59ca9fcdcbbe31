"""Clinical tables: read from any format, typed as the spec declares them, and joined to the images they belong to."""

from builder.clinical.cells import text_of
from builder.clinical.column import ClinicalColumn
from builder.clinical.events import Event
from builder.clinical.joining import Images, Joined, join
from builder.clinical.known import check_known
from builder.clinical.matching import TableMatch, faults, near_misses, summary_lines
from builder.clinical.pick import Pick
from builder.clinical.reading import ClinicalRows, read_table
from builder.clinical.rows import Rows, read_rows, schema
from builder.clinical.sheet import Sheet, read_sheet, sheets_of
from builder.clinical.table import ClinicalTable, check_shared_columns
from builder.clinical.tally import CellIssue
from builder.clinical.values import Value

__all__ = [
    "CellIssue",
    "ClinicalColumn",
    "ClinicalRows",
    "ClinicalTable",
    "Event",
    "Images",
    "Joined",
    "Pick",
    "Rows",
    "Sheet",
    "TableMatch",
    "Value",
    "check_known",
    "check_shared_columns",
    "faults",
    "join",
    "near_misses",
    "read_rows",
    "read_sheet",
    "read_table",
    "schema",
    "sheets_of",
    "summary_lines",
    "text_of",
]
