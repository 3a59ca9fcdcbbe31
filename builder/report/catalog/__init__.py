"""Catalog records of a dataset: facts gathered once, rendered many times, nothing invented."""

import json
from typing import Any

from builder.report.catalog.croissant import croissant
from builder.report.catalog.facts import PARQUET, Facts, Governance, SourceFacts, StoredFile, todos
from builder.report.catalog.pages import claim, datasheet, fair
from builder.report.catalog.records import datacite, ro_crate

__all__ = ["PARQUET", "Facts", "Governance", "SourceFacts", "StoredFile", "catalog", "todos"]


def catalog(facts: Facts) -> dict[str, str]:
    """File name below ``catalog/`` to its text; what nobody stated is a TODO in it."""
    documents: dict[str, Any] = {
        "croissant.json": croissant(facts),
        "datacite.json": datacite(facts),
        "ro-crate-metadata.json": ro_crate(facts),
        "fair.json": fair(facts),
        "claim.json": claim(facts),
    }
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in documents.items()}
    return {**texts, "datasheet.md": datasheet(facts)}
