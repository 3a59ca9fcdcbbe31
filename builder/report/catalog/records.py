"""DataCite 4.5 and RO-Crate 1.1 records."""

from typing import Any

from builder.report.catalog.facts import Facts, stated
from builder.report.catalog.licenses import license_url

Json = dict[str, Any]


def datacite(facts: Facts) -> Json:
    """Attributes of a DataCite record (schema 4.5); mandatory ones that nobody stated are TODOs."""
    related = [
        {"relatedIdentifier": s.doi, "relatedIdentifierType": "DOI", "relationType": "IsDerivedFrom"}
        for s in facts.sources
        if s.doi
    ]
    creators = facts.creators or (stated(None, "the creators"),)
    record: Json = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "doi": facts.identifier,
        "creators": [{"name": name} for name in creators],
        "titles": [{"title": facts.name}],
        "publisher": {"name": stated(facts.publisher, "who publishes the dataset")},
        "publicationYear": facts.published[:4] if facts.published else stated(None, "the year of publication"),
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Medical images for machine learning"},
        "version": facts.version,
        "subjects": [{"subject": word} for word in (*facts.keywords, *facts.modalities)],
        "rightsList": [{"rights": facts.license, "rightsUri": license_url(facts.license)}],
        "descriptions": [
            {"description": stated(facts.description, "what the dataset is"), "descriptionType": "Abstract"}
        ],
        "relatedIdentifiers": related,
        "sizes": [f"{sum(f.bytes for f in facts.files) + facts.shards[1]} bytes"],
        "formats": sorted({f.media_type for f in facts.files}),
    }
    return {k: v for k, v in record.items() if v not in ([], None)}


def ro_crate(facts: Facts) -> Json:
    """``ro-crate-metadata.json`` of RO-Crate 1.1: the root, its files, and its sources."""
    parts = [{"@id": f.path} for f in sorted(facts.files, key=lambda f: f.path)]
    parts += [{"@id": "data/"}] if facts.shards[0] else []
    root: Json = {
        "@id": "./",
        "@type": "Dataset",
        "name": facts.name,
        "description": stated(facts.description, "what the dataset is"),
        "datePublished": stated(facts.published, "the date of publication"),
        "license": {"@id": license_url(facts.license)},
        "version": facts.version,
        "hasPart": parts,
        "isBasedOn": [{"@id": _source_id(i, s.url)} for i, s in enumerate(facts.sources)],
    }
    files = [
        {
            "@id": f.path,
            "@type": "File",
            "contentSize": str(f.bytes),
            "encodingFormat": f.media_type,
            "sha256": f.sha256,
        }
        for f in sorted(facts.files, key=lambda f: f.path)
    ]
    shards = [
        {"@id": "data/", "@type": "Dataset", "name": "shards", "description": f"{facts.shards[0]} Zarr v3 groups"}
    ]
    sources = [
        {k: v for k, v in {"@id": _source_id(i, s.url), "@type": "CreativeWork", "name": s.name,
                           "license": license_url(s.license) if s.license else None,
                           "citation": s.citation}.items() if v}
        for i, s in enumerate(facts.sources)
    ]  # fmt: skip
    return {
        "@context": "https://w3id.org/ro/crate/1.1/context",
        "@graph": [
            {
                "@id": "ro-crate-metadata.json",
                "@type": "CreativeWork",
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
                "about": {"@id": "./"},
            },
            {k: v for k, v in root.items() if v != []},
            *files,
            *(shards if facts.shards[0] else []),
            *sources,
        ],
    }


def _source_id(number: int, url: str | None) -> str:
    return url or f"#source-{number + 1}"
