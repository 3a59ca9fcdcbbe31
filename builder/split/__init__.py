"""Persons to train, validation and test: stratified, exact to a person, and never moved again."""

from builder.split.assignment import assign, remember
from builder.split.exports import csv_text, monai_datalist, nnunet_splits
from builder.split.holdouts import folds, hold_out, leave_one_out
from builder.split.options import HoldOut, Splits

__all__ = [
    "HoldOut",
    "Splits",
    "assign",
    "csv_text",
    "folds",
    "hold_out",
    "leave_one_out",
    "monai_datalist",
    "nnunet_splits",
    "remember",
]
