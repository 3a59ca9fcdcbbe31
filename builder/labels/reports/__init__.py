"""Findings in radiology reports: lexicons as data, negation and uncertainty by cues and their scope."""

from builder.labels.reports.assertion import Status, label_report
from builder.labels.reports.lexicon import Lexicon, load_lexicon

__all__ = ["Lexicon", "Status", "label_report", "load_lexicon"]
