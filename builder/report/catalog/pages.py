"""FAIR table, CLAIM items on data, and the datasheet."""

from typing import Any

from builder.report.catalog.facts import TODO, Facts, counts, findings, split_sentence, stated
from builder.report.catalog.licenses import allows_commercial_use, combine

Json = dict[str, Any]
Sections = dict[str, list[tuple[str, str]]]
NOT_MET = "not met"


def fair(facts: Facts) -> list[Json]:
    """The fifteen FAIR principles (Wilkinson 2016, doi:10.1038/sdata.2016.18), each with evidence or "not met"."""
    files = f"{len(facts.files)} files with SHA-256 in the manifest"
    by_doi = f"identifier {facts.identifier}" if facts.identifier else NOT_MET
    access = facts.governance.access
    sources = all(s.citation or s.url or s.doi for s in facts.sources) and bool(facts.sources)
    rows = (
        ("F1", "(meta)data have a globally unique and persistent identifier", by_doi),
        ("F2", "data are described with rich metadata", "catalog/croissant.json, report/report.json, index.parquet"),
        ("F3", "metadata include the identifier of the data they describe", by_doi),
        (
            "F4",
            "(meta)data are registered or indexed in a searchable resource",
            f"at {facts.url}" if facts.url else NOT_MET,
        ),
        ("A1", "(meta)data are retrievable by their identifier by a standard protocol", facts.url or NOT_MET),
        ("A1.1", "the protocol is open and free", "plain files: HTTP, S3 or a file system"),
        ("A1.2", "the protocol allows for authentication where necessary", access or NOT_MET),
        ("A2", "metadata stay accessible when the data are gone", NOT_MET),
        ("I1", "(meta)data use a formal, shared language", "Croissant 1.1 (JSON-LD), Parquet, Zarr v3"),
        (
            "I2",
            "(meta)data use vocabularies that are FAIR themselves",
            "DICOM attributes and UCUM units of columns, SPDX",
        ),
        ("I3", "(meta)data refer to other (meta)data", f"{len(facts.sources)} sources" if facts.sources else NOT_MET),
        ("R1", "(meta)data have many accurate and relevant attributes", _attributes(facts)),
        ("R1.1", "(meta)data have a clear data usage licence", facts.license or NOT_MET),
        ("R1.2", "(meta)data have detailed provenance", files + ", lock of every input" if sources else NOT_MET),
        ("R1.3", "(meta)data meet standards of their community", "DICOM in, CLAIM and Croissant out"),
    )
    return [{"principle": p, "statement": s, "evidence": e, "met": e != NOT_MET} for p, s, e in rows]


def claim(facts: Facts) -> list[Json]:
    """The data items of the Checklist for AI in Medical Imaging (Mongan 2020, doi:10.1148/ryai.2020200029)."""
    boxes = facts.report.get("flow", {}).get("boxes", ())
    rules = [f"{r['reason']} ({r['things']} {r['level']})" for b in boxes for r in b["left"]]
    ratios = facts.report.get("balance") or {}
    strata = ratios.get("strata", {}).get("number")
    disjoint = [k for k in facts.report.get("leakage", {}).get("keys", ()) if k["key"] == "person_key"]
    person = "persons: none lies in two splits" if disjoint and not disjoint[0]["in_two_splits"] else None
    rows = (
        (7, "data sources", "; ".join(s.name for s in facts.sources) or None),
        (8, "eligibility criteria: who was left out, and why", "; ".join(rules) or None),
        (9, "data preprocessing steps", "; ".join(facts.preprocessing) or None),
        (10, "selection of data subsets", "; ".join(facts.arrays) or None),
        (
            11,
            "definitions of data elements",
            "; ".join(f"{p.rsplit('/', 1)[-1]}: {len(s)} columns" for p, s in facts.tables.items()) or None,
        ),
        (12, "de-identification methods", "; ".join(facts.deidentification) or None),
        (13, "how missing data were handled", _missing(facts)),
        (14, "definition of the reference standard", "; ".join(facts.annotation) or None),
        (15, "rationale for choosing the reference standard", None),
        (16, "source of annotations; qualifications of annotators", None),
        (17, "annotation tools", None),
        (18, "inter- and intrarater variability", None),
        (19, "intended sample size and how it was determined", _size(facts)),
        (20, "how data were assigned to partitions", split_sentence(facts) + (f"; {strata} strata" if strata else "")),
        (21, "level at which partitions are disjoint", person),
    )
    return [{"item": i, "about": a, "answer": v or f"{TODO}: state the {a}", "answered": bool(v)} for i, a, v in rows]


def datasheet(facts: Facts) -> str:
    """Datasheet for datasets (Gebru 2021, doi:10.1145/3458723) as Markdown; questions only a person can answer are
    TODOs."""
    sections = {**_origin(facts), **_making(facts), **_use(facts)}
    lines = [f"# Datasheet: {facts.name} {facts.version}", ""]
    for title, questions in sections.items():
        lines += [f"## {title}", ""]
        lines += [line for question, answer in questions for line in (f"**{question}** {answer}", "")]
    return "\n".join(lines)


def _origin(facts: Facts) -> Sections:
    governance = facts.governance
    instances = (
        f"{counts(facts, 'samples')} samples of {counts(facts, 'cases')} cases of {counts(facts, 'persons')} persons "
        f"({', '.join(facts.modalities) or 'modality not stated'})."
    )
    parts = "; ".join(f"{name}: {meaning}" for name, meaning in facts.arrays.items())
    private = "; ".join(facts.deidentification) or stated(None, "how it was de-identified")
    return {
        "Motivation": [
            ("For what purpose was it created?", stated(facts.description, "the purpose")),
            ("Who created it?", ", ".join(facts.creators) or stated(None, "the creators")),
            ("Who is responsible for it?", stated(governance.responsible or governance.owner, "who is responsible")),
        ],
        "Composition": [
            ("What are the instances, and how many?", instances),
            ("What does each consist of?", parts or "See the manifest."),
            ("Are there recommended splits?", split_sentence(facts) or "None."),
            ("Is anything missing or biased?", "; ".join(findings(facts)) or "Nothing stood out; see the report."),
            ("Could persons be identified?", private),
        ],
    }


def _making(facts: Facts) -> Sections:
    sources = "; ".join(_source(s) for s in facts.sources) or stated(None, "the sources")
    labels = "; ".join(facts.annotation) or stated(None, "how labels were made")
    return {
        "Collection": [
            ("Where did the data come from?", sources),
            ("Was there ethical review?", stated(facts.governance.ethics_approval, "the ethics approval")),
        ],
        "Preprocessing and labelling": [
            ("What was done?", "; ".join(facts.preprocessing) or "Nothing."),
            ("How were labels made?", labels),
        ],
    }


def _use(facts: Facts) -> Sections:
    governance = facts.governance
    licenses = [facts.license, *(s.license for s in facts.sources)]
    commercial = "Yes, by every licence." if allows_commercial_use(licenses) else "Not proven."
    access = f"{stated(governance.access, 'how access is given')}; {stated(governance.costs, 'the costs')}"
    intended = "; ".join(governance.intended_use) or stated(None, "the intended use")
    outside = "; ".join(governance.out_of_scope) or stated(None, "what is out of scope")
    return {
        "Uses": [("What is it meant for?", intended), ("What should it not be used for?", outside)],
        "Distribution": [
            ("How is it licensed?", f"{facts.license}. " + "; ".join(combine(licenses))),
            ("May it be used commercially?", commercial),
            ("How is access given, and at what cost?", access),
        ],
        "Maintenance": [
            ("Who maintains it, and how are they reached?", stated(governance.contact, "a contact")),
            ("Will it be updated?", stated(governance.maintenance, "how it is maintained")),
        ],
    }


def _source(source: Any) -> str:
    return ", ".join(x for x in (source.name, source.license, source.doi or source.url) if x)


def _attributes(facts: Facts) -> str:
    return f"{sum(len(s) for s in facts.tables.values())} typed columns" if facts.tables else NOT_MET


def _missing(facts: Facts) -> str | None:
    gaps = [f for f in findings(facts) if "unknown for" in f]
    return ("left missing and reported: " + "; ".join(gaps)) if gaps else "kept as missing values; nothing was imputed"


def _size(facts: Facts) -> str | None:
    rows = [
        f"{e['outcome']}: {e['positives']} yes and {e['negatives']} no in {facts.report['power']['split']}"
        for e in facts.report.get("power", {}).get("outcomes", ())
    ]
    return "; ".join(rows) or None
