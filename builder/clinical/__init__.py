"""Clinical tables: typed, ranged columns a person, and who of the images has a row."""

from builder.clinical.events import Event
from builder.clinical.matching import MatchReport, check_match, match
from builder.clinical.rows import CellIssue, ClinicalRows, read_table, schema
from builder.clinical.table import ClinicalColumn, ClinicalTable, Pick

__all__ = [
    "CellIssue",
    "ClinicalColumn",
    "ClinicalRows",
    "ClinicalTable",
    "Event",
    "MatchReport",
    "Pick",
    "check_match",
    "match",
    "read_table",
    "schema",
]
