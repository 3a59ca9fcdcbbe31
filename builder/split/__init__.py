"""Persons to train, validation and test: stratified, exact to a person, and never moved again."""

from builder.split.assignment import assign
from builder.split.exports import csv_text, nnunet_splits
from builder.split.holdouts import folds, hold_out, leave_one_out
from builder.split.joint import assign_by_quotas, with_homes
from builder.split.options import TRUE_DATE, Folds, HoldOut, Splits, Tested
from builder.split.registry import Group, Registry
from builder.split.registry_rows import REGISTRY_SCHEMA
from builder.split.tested import deal_elsewhere

__all__ = [
    "Folds",
    "Group",
    "HoldOut",
    "REGISTRY_SCHEMA",
    "Registry",
    "Splits",
    "TRUE_DATE",
    "Tested",
    "assign",
    "assign_by_quotas",
    "csv_text",
    "deal_elsewhere",
    "folds",
    "hold_out",
    "leave_one_out",
    "nnunet_splits",
    "with_homes",
]
