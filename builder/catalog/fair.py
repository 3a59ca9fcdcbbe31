"""Assess the FAIR principles, each with its evidence or "not met"."""

from typing import Any

from builder.catalog.facts import Facts

NOT_MET = "not met"

PRINCIPLES = {
    "F1": "(meta)data have a globally unique and persistent identifier",
    "F2": "data are described with rich metadata",
    "F3": "metadata include the identifier of the data they describe",
    "F4": "(meta)data are registered or indexed in a searchable resource",
    "A1": "(meta)data are retrievable by their identifier by a standard protocol",
    "A1.1": "the protocol is open, free and universally implementable",
    "A1.2": "the protocol allows for authentication and authorisation where necessary",
    "A2": "metadata stay accessible when the data are gone",
    "I1": "(meta)data use a formal, accessible, shared language",
    "I2": "(meta)data use vocabularies that follow FAIR principles",
    "I3": "(meta)data include qualified references to other (meta)data",
    "R1": "(meta)data are richly described with accurate and relevant attributes",
    "R1.1": "(meta)data are released with a clear and accessible data usage licence",
    "R1.2": "(meta)data are associated with detailed provenance",
    "R1.3": "(meta)data meet standards of their community",
}


def fair(facts: Facts) -> list[dict[str, Any]]:
    """Return the fifteen principles (Wilkinson 2016, doi:10.1038/sdata.2016.18) in their published order."""
    evidence = {**_findable(facts), **_accessible(facts), **_interoperable(facts), **_reusable(facts)}
    return [
        {"principle": p, "statement": s, "evidence": evidence[p] or NOT_MET, "met": bool(evidence[p])}
        for p, s in PRINCIPLES.items()
    ]


def _findable(facts: Facts) -> dict[str, str | None]:
    doi = facts.statement.identifier
    columns = sum(len(t.columns) for t in facts.tables)
    return {
        "F1": f"DOI {doi}" if doi else None,
        "F2": f"{columns} typed columns in {len(facts.tables)} tables, a report and this catalog" if columns else None,
        "F3": f"DOI {doi} in croissant.json, datacite.json" if doi else None,
        "F4": f"{facts.statement.page}" if facts.statement.page else None,
    }


def _accessible(facts: Facts) -> dict[str, str | None]:
    page, doi, access = facts.statement.page, facts.statement.identifier, facts.governance.access
    return {
        "A1": page,
        "A1.1": "plain files, read over HTTP, S3 or a file system",
        "A1.2": f"access: {access}" if access else None,
        "A2": f"DOI {doi}: its record outlives the files" if doi else None,
    }


def _interoperable(facts: Facts) -> dict[str, str | None]:
    units = sum(c.unit is not None for t in facts.tables for c in t.columns)
    tags = sum(c.dicom_tag is not None for t in facts.tables for c in t.columns)
    mapped = f", RadLex Playbook for {facts.procedures.mapped} studies" if facts.procedures else ""
    dois = sorted({s.doi for s in facts.sources if s.doi} | {s.page for s in facts.sources if s.page})
    return {
        "I1": "Croissant 1.1 (JSON-LD), RO-Crate 1.1 (JSON-LD), Parquet, Zarr v3",
        "I2": f"DICOM attributes of {tags} columns, UCUM units of {units} columns, SPDX licences{mapped}",
        "I3": f"derived from {', '.join(dois)}" if dois else None,
    }


def _reusable(facts: Facts) -> dict[str, str | None]:
    known = bool(facts.sources) and all(s.citation or s.doi or s.page for s in facts.sources)
    cited = f"{len(facts.files)} files with SHA-256, a lock of every input, a reason for everything left out"
    return {
        "R1": f"{facts.samples} samples of {facts.persons} persons: {len(facts.images) + len(facts.people)} attributes "
        "counted, with units and missing values" if facts.samples else None,
        "R1.1": facts.license or None,
        "R1.2": f"{cited}; origin of every series" if known else None,
        "R1.3": "DICOM (source), CLAIM, C-MIMI, Croissant RAI and a datasheet (records)",
    }  # fmt: skip
