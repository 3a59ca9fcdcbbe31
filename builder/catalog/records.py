"""Build the DataCite 4.5 and RO-Crate 1.2 records."""

from builder.catalog.facts import Facts, SourceFacts, stated
from builder.errors import counted
from builder.model.canonical import Json
from builder.model.licenses import license_url


def datacite(facts: Facts) -> Json:
    """Return the attributes of a DataCite record (schema 4.5); mandatory ones that nobody stated are TODOs."""
    said = facts.statement
    creators = said.creators or (stated(None, "the creators (spec: catalog.creators)"),)
    year = said.published[:4] if said.published else stated(None, "the date of publication (spec: catalog.published)")
    record: Json = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "doi": said.identifier,
        "creators": [{"name": name} for name in creators],
        "titles": [{"title": said.title or facts.name}],
        "publisher": {"name": stated(said.publisher, "who publishes the dataset (spec: catalog.publisher)")},
        "publicationYear": year,
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Medical images for machine learning"},
        "version": facts.version,
        "subjects": [{"subject": word} for word in dict.fromkeys((*said.keywords, *facts.modalities))],
        "rightsList": [{"rights": facts.license, "rightsUri": license_url(facts.license)}],
        "descriptions": [
            {"description": stated(facts.description, "what the dataset is (spec: description)"),
             "descriptionType": "Abstract"}
        ],
        "relatedIdentifiers": [
            {"relatedIdentifier": doi, "relatedIdentifierType": "DOI", "relationType": "IsDerivedFrom"}
            for doi in dict.fromkeys(s.doi for s in facts.sources if s.doi)
        ],
        "sizes": [f"{sum(f.bytes for f in facts.files) + facts.shards.bytes} bytes", counted(facts.samples, 'sample')],
        "formats": sorted({f.media_type for f in facts.files}),
    }  # fmt: skip
    return {k: v for k, v in record.items() if v not in ([], None)}


def ro_crate(facts: Facts) -> Json:
    """Return ``ro-crate-metadata.json`` of RO-Crate 1.2: the root, its files and its sources."""
    files = sorted(facts.files, key=lambda f: f.path)
    sources = {_source_id(s): _source(s) for s in facts.sources}
    said = facts.statement
    root: Json = {
        "@id": "./",
        "@type": "Dataset",
        "name": said.title or facts.name,
        "description": stated(facts.description, "what the dataset is (spec: description)"),
        "datePublished": stated(said.published, "the date of publication (spec: catalog.published)"),
        "license": {"@id": license_url(facts.license)},
        "version": facts.version,
        "hasPart": [*({"@id": f.path} for f in files), *([{"@id": "data/"}] if facts.shards.number else [])],
        "isBasedOn": [{"@id": name} for name in sources],
    }
    parts = [
        {"@id": f.path, "@type": "File", "contentSize": str(f.bytes), "encodingFormat": f.media_type,
         "sha256": f.sha256}
        for f in files
    ]  # fmt: skip
    words = f"{counted(facts.shards.number, 'Zarr v3 group')}, {facts.shards.bytes} bytes"
    shards = [{"@id": "data/", "@type": "Dataset", "name": "shards", "description": words}]
    return {
        "@context": "https://w3id.org/ro/crate/1.2/context",
        "@graph": [
            {
                "@id": "ro-crate-metadata.json",
                "@type": "CreativeWork",
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.2"},
                "about": {"@id": "./"},
            },
            {k: v for k, v in root.items() if v != []},
            *parts,
            *(shards if facts.shards.number else []),
            *sources.values(),
        ],
    }


def _source_id(source: SourceFacts) -> str:
    """Return the address of the source's DOI, else its page, else a name inside the crate."""
    if source.doi:
        return f"https://doi.org/{source.doi}"
    return source.page or "#" + "-".join((source.name, source.license or "unknown")).replace(" ", "-")


def _source(source: SourceFacts) -> Json:
    entity = {
        "@id": _source_id(source),
        "@type": "CreativeWork",
        "name": source.name,
        "license": license_url(source.license) if source.license else None,
        "citation": source.citation,
    }
    return {k: v for k, v in entity.items() if v}
