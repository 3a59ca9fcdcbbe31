"""Findings in radiology reports: lexicons stored as data, with cues of negation and uncertainty and their scope."""

from builder.labels.reports.assertion import Status, label_report
from builder.labels.reports.lexicon import Lexicon, load_lexicon

__all__ = ["Lexicon", "Status", "label_report", "load_lexicon"]
