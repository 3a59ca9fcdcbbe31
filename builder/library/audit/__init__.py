"""Audit datasets and splits that others made: who and what lies in several splits."""

from builder.library.audit.finding import Audit, audit

__all__ = ["Audit", "audit"]
