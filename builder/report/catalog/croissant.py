"""The dataset as a Croissant 1.1 record with its responsible-AI fields (https://docs.mlcommons.org/croissant)."""

from typing import Any

import pyarrow as pa

from builder.report.catalog.facts import Facts, counts, findings, split_sentence, stated
from builder.report.catalog.licenses import license_url

Json = dict[str, Any]

CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(facts: Facts) -> Json:
    """The record as a JSON-LD document.

    Tables are file objects with checksum and a typed record set each; the shards are one file set, whose checksums
    the manifest holds. Fields nobody stated are left out where the format allows, else a TODO.
    """
    record: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.name,
        "description": stated(facts.description, "what the dataset is and what it is for (spec: description)"),
        "license": license_url(facts.license),
        "url": facts.url,
        "version": facts.version,
        "datePublished": facts.published,
        "identifier": facts.identifier,
        "keywords": [*facts.keywords, *facts.modalities],
        "citeAs": facts.citation,
        "creator": [{"@type": "sc:Organization", "name": name} for name in facts.creators],
        "publisher": [{"@type": "sc:Organization", "name": facts.publisher}] if facts.publisher else [],
        "isLiveDataset": False,
        **_responsible_ai(facts),
        "distribution": _distribution(facts),
        "recordSet": [_record_set(path, schema, facts) for path, schema in sorted(facts.tables.items())],
    }
    return {k: v for k, v in record.items() if v not in (None, [], "")}


def _distribution(facts: Facts) -> list[Json]:
    parts: list[Json] = [
        {
            "@type": "cr:FileObject",
            "@id": file.path,
            "name": file.path,
            "contentUrl": file.path,
            "contentSize": f"{file.bytes} B",
            "encodingFormat": file.media_type,
            "sha256": file.sha256,
        }
        for file in sorted(facts.files, key=lambda f: f.path)
    ]
    number, size = facts.shards
    if number:
        arrays = "; ".join(f"{name}: {meaning}" for name, meaning in sorted(facts.arrays.items()))
        parts.append(
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "name": "shards",
                "description": f"{number} Zarr v3 groups, {size} bytes. {arrays}".strip(),
                "encodingFormat": "application/vnd.zarr; version=3",
                "includes": "data/*/**",
            }
        )
    return parts


def _record_set(path: str, schema: pa.Schema, facts: Facts) -> Json:
    name = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    keys = [{"@id": f"{name}/{key}"} for key in facts.keys.get(path, ()) if key in schema.names]
    record: Json = {"@type": "cr:RecordSet", "@id": name, "name": name}
    if keys:
        record["key"] = keys if len(keys) > 1 else keys[0]
    record["field"] = [_field(name, path, column) for column in schema]
    return record


def _field(record: str, path: str, column: pa.Field) -> Json:
    """A column: its type, and unit and DICOM tag in words."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    notes = {k.decode(): v.decode() for k, v in (column.metadata or {}).items()}
    words = [f"unit {notes['unit']} (UCUM)"] if "unit" in notes else []
    words += [f"DICOM attribute ({notes['dicom_tag']})"] if "dicom_tag" in notes else []
    described: Json = {
        "@type": "cr:Field",
        "@id": f"{record}/{column.name}",
        "name": column.name,
        "description": ", ".join(words),
        "dataType": _data_type(kind.value_type if is_list else kind),
        "source": {"fileObject": {"@id": path}, "extract": {"column": column.name}},
    }
    if is_list:
        described |= {"isArray": True, "arrayShape": "-1"}
    return {k: v for k, v in described.items() if v != ""}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "sc:Float"
    if pa.types.is_temporal(kind):
        return "sc:Date"
    return "sc:Text"


def _responsible_ai(facts: Facts) -> Json:
    """Fields of the RAI vocabulary that the build can answer; lists and texts as the vocabulary wants them."""
    boxes = facts.report.get("flow", {}).get("boxes", ())
    left = sorted({row["reason"] for box in boxes for row in box["left"]})
    governance = facts.governance
    sources = "; ".join(s.name for s in facts.sources)
    persons = counts(facts, "persons")
    fields: Json = {
        "rai:dataCollection": f"Taken from {sources}. {split_sentence(facts)}." if sources else None,
        "rai:dataCollectionMissingData": f"Left out, with one reason each: {', '.join(left)}." if left else None,
        "rai:dataPreprocessingProtocol": list(facts.preprocessing),
        "rai:dataAnnotationProtocol": list(facts.annotation),
        "rai:dataBiases": findings(facts),
        "rai:dataLimitations": list(governance.limitations),
        "rai:dataUseCases": list(governance.intended_use),
        "rai:personalSensitiveInformation": [
            *([f"{persons} persons, named by keyed hashes only"] if persons else []),
            *facts.deidentification,
        ],
        "rai:dataReleaseMaintenancePlan": governance.maintenance,
    }
    return {k: v for k, v in fields.items() if v}
