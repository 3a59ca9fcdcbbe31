"""Render all catalog records of a dataset, by file name."""

import json
from typing import Any

from builder.catalog.checklists import checklists
from builder.catalog.claim import claim
from builder.catalog.cmimi import cmimi
from builder.catalog.croissant import croissant
from builder.catalog.datasheet import datasheet
from builder.catalog.facts import Facts, facts_document
from builder.catalog.fair import fair
from builder.catalog.healthdcat import healthdcat
from builder.catalog.page import page
from builder.catalog.records import datacite, ro_crate
from builder.catalog.terms import terms
from builder.catalog.use_case import use_case

FACTS = "facts.json"
PAGE = "index.html"


def catalog(facts: Facts) -> dict[str, str]:
    """Return the text of each file below ``catalog/``; what nobody stated appears as a TODO."""
    documents: dict[str, Any] = {
        FACTS: facts_document(facts),
        "croissant.json": croissant(facts),
        "datacite.json": datacite(facts),
        "ro-crate-metadata.json": ro_crate(facts),
        "c-mimi.json": cmimi(facts),
        "fair.json": fair(facts),
        "claim.json": claim(facts),
        "checklists.json": checklists(facts),
        "healthdcat-ap.json": healthdcat(facts),
        "use-case.json": use_case(facts),
        "terms.json": terms(facts),
    }
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in documents.items()}
    return {**texts, "datasheet.md": datasheet(facts), PAGE: page(facts)}
