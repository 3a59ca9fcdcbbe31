"""Describe the dataset as a Croissant 1.1 record with responsible-AI fields (https://docs.mlcommons.org/croissant).

``provenance`` says where the data came from and what was done to them, ``use_conditions`` for what they may be used.
"""

from builder.catalog.facts import PARQUET, ColumnFacts, Facts, TableFacts, stated
from builder.catalog.provenance import derived_from, generated_by, made_labels
from builder.catalog.reference import agreement, tools, who_stands_behind
from builder.catalog.use_conditions import usage_info
from builder.errors import counted
from builder.model.canonical import Json
from builder.model.licenses import license_url

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
    "duo": "http://purl.obolibrary.org/obo/DUO_",
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
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
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


SPLITS = "split_names"
"""Identifier of the record set that lists the splits; ``splits`` is the table of persons."""

_ROLES = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
"""Maps names of splits to Croissant's terms; other names have none."""

LABEL_COLUMNS = ("segment_names", "box_classes", "boxes", "landmarks", "measurement_values", "class_values", "texts")
"""Columns of the index that hold annotations, besides those that begin with ``label.`` or ``text.``."""

MOST_FOLDERS = 1000
"""Most shards that are listed one by one; above this the record holds a pattern, and the manifest lists the shards."""

_TYPES = {
    "string": "sc:Text",
    "large_string": "sc:Text",
    "bool": "sc:Boolean",
    "float": "cr:Float32",
    "double": "cr:Float64",
    **{f"{sign}int{n}": f"cr:{sign.upper()}Int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)},
}
"""Maps Arrow types to Croissant types; dates and times become ``sc:Date``, everything else text."""


def croissant(facts: Facts) -> Json:
    """Return the record as a JSON-LD document.

    Each table becomes a file object with a checksum and a typed record set. The objects of the shards become one file
    set per field, whose checksums are in the manifest. Fields that nobody stated are left out if the format allows it;
    otherwise they hold a TODO.
    """
    said = facts.statement
    record: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts.name,
        "alternateName": said.title,
        "description": stated(facts.description, "what the dataset is and what it is for (spec: description)"),
        "license": license_url(facts.license),
        "url": said.page,
        "version": facts.version,
        "datePublished": said.published,
        "identifier": f"https://doi.org/{said.identifier}" if said.identifier else None,
        "keywords": list(dict.fromkeys((*said.keywords, *facts.modalities))),
        "citeAs": said.citation,
        "creator": [{"@type": "sc:Organization", "name": name} for name in said.creators],
        "publisher": [{"@type": "sc:Organization", "name": said.publisher}] if said.publisher else [],
        "isLiveDataset": False,
        "usageInfo": usage_info(said.use_conditions),
        **_responsible_ai(facts),
        "prov:wasDerivedFrom": derived_from(facts),
        "prov:wasGeneratedBy": generated_by(facts),
        "distribution": [*_file_objects(facts), *_file_sets(facts)],
        "recordSet": [*_splits(facts), *(_record_set(facts, t) for t in sorted(facts.tables, key=lambda t: t.path))],
    }
    return {k: v for k, v in record.items() if v not in (None, [], "")}


def _file_objects(facts: Facts) -> list[Json]:
    return [
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


def _file_sets(facts: Facts) -> list[Json]:
    """Return one file set per field and one for the sample rows; ``includes`` names only the shards of this version."""
    shards = facts.shards
    if not shards.number:
        return []
    folders = list(shards.folders)
    if len(folders) > MOST_FOLDERS:
        folders = [folders[0].rsplit("/", 1)[0] + "/*"]
    number = counted(shards.number, "shard")
    total = f"of {number} (Zarr v3 groups), {shards.bytes} bytes in all; checksums: ../dataset.json"
    arrays = [(name, f"{meaning} {total}", "application/vnd.zarr; version=3", f"{name}/**")
              for name, meaning in sorted(facts.arrays.items())]  # fmt: skip
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"shards/{name}",
            "name": f"shards/{name}",
            "description": description,
            "encodingFormat": kind,
            "includes": [f"{folder}/{pattern}" for folder in folders],
            **(made_labels(facts, name) if name in facts.labels else {}),
        }
        for name, description, kind, pattern in [
            *arrays,
            ("samples", f"One row a sample {total}", PARQUET, "samples.parquet"),
        ]
    ]


def _splits(facts: Facts) -> list[Json]:
    """Return the splits as an enumeration: each name, and the term for it where Croissant has one."""
    if not facts.splits:
        return []
    fields: dict[str, str | list[str]] = {"name": "sc:Text"}
    if all(row.split in _ROLES for row in facts.splits):
        fields["url"] = ["sc:URL", "cr:Split"]  # mlcroissant asks for an atomic type beside the term
    return [
        {
            "@type": "cr:RecordSet",
            "@id": SPLITS,
            "name": SPLITS,
            "description": "The splits of the dataset; no person is in two of them" if facts.disjoint else "The splits",
            "dataType": "cr:Split",
            "key": {"@id": f"{SPLITS}/name"},
            "field": [
                {"@type": "cr:Field", "@id": f"{SPLITS}/{name}", "name": name, "dataType": kind}
                for name, kind in fields.items()
            ],
            "data": [
                {f"{SPLITS}/name": row.split, **({f"{SPLITS}/url": _ROLES[row.split]} if "url" in fields else {})}
                for row in facts.splits
            ],
        }
    ]


def _record_set(facts: Facts, table: TableFacts) -> Json:
    names = {column.name for column in table.columns}
    keys = [{"@id": f"{table.name}/{key}"} for key in table.keys if key in names]
    record: Json = {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": counted(table.rows, "row"),
    }
    if keys:
        record["key"] = keys if len(keys) > 1 else keys[0]
    record["field"] = [_field(facts, table, column) for column in table.columns]
    return record


def _field(facts: Facts, table: TableFacts, column: ColumnFacts) -> Json:
    """Describe a column by its type, with its unit and DICOM tag in words; of a label also who made it."""
    words = [f"unit {column.unit} (UCUM)"] if column.unit else []
    words += [f"DICOM attribute ({column.dicom_tag})"] if column.dicom_tag else []
    inner = _inner(column.type)
    kind = _data_type(inner or column.type)
    label = _label_of(table, column)
    described: Json = {
        "@type": "cr:Field",
        "@id": f"{table.name}/{column.name}",
        "name": column.name,
        "description": ", ".join(words),
        "dataType": [kind, "cr:Label"] if label is not None else kind,
        "source": {"fileObject": {"@id": table.path}, "extract": {"column": column.name}},
    }
    if column.name == "split" and facts.splits:
        # the text also writes {"@id": ...}, which mlcroissant 1.1 does not read
        described["references"] = {"field": {"@id": f"{SPLITS}/name"}}
    if label is not None:
        described |= made_labels(facts, label)
    if inner is not None:
        described |= {"isArray": True, "arrayShape": "-1"}
    return {k: v for k, v in described.items() if v != ""}


def _label_of(table: TableFacts, column: ColumnFacts) -> str | None:
    """Return the label a column of the index belongs to, "" if to several; None if it holds no annotation."""
    if table.name != "index":
        return None
    for prefix in ("label.", "text."):
        if column.name.startswith(prefix):
            return column.name.removeprefix(prefix).partition(".")[0]
    return "" if column.name in LABEL_COLUMNS else None


def _inner(kind: str) -> str | None:
    """Return the element type of a list type (Arrow writes ``list<item: double>``); None for other types."""
    if not kind.startswith(("list<", "large_list<")):
        return None
    return kind[kind.index("<") + 1 : -1].split(": ", 1)[-1].removesuffix(" not null")


def _data_type(kind: str) -> str:
    if kind.startswith("dictionary<values="):
        kind = kind.removeprefix("dictionary<values=").split(",")[0]
    if kind.startswith(("date", "timestamp", "time")):
        return "sc:Date"
    return _TYPES.get(kind, "sc:Text")


def _responsible_ai(facts: Facts) -> Json:
    """Return the fields of the RAI vocabulary that the build or the spec can answer; others are left out."""
    use, note = facts.use_case, facts.statement.annotation
    sources = "; ".join(dict.fromkeys(s.name for s in facts.sources))
    left = "; ".join(map(str, facts.left))
    persons = [f"{counted(facts.persons, 'person')}, named by keyed hashes only"] if facts.persons else []
    fields: Json = {
        "rai:dataCollection": f"Taken from {sources}. {facts.split_sentence or ''}".strip() if sources else None,
        "rai:dataCollectionRawData": "DICOM objects of the sources; not part of the dataset" if sources else None,
        "rai:dataCollectionMissingData": f"Left out, with one reason each: {left}" if left else None,
        "rai:dataImputationProtocol": "Missing values are kept as missing; nothing was imputed",
        "rai:dataPreprocessingProtocol": [*facts.preprocessing, *([facts.sampling] if facts.sampling else [])],
        "rai:dataAnnotationProtocol": "; ".join(filter(None, (*facts.annotation, note.protocol))),
        "rai:dataAnnotationPlatform": tools(facts),
        "rai:dataAnnotationAnalysis": agreement(facts),
        "rai:annotatorDemographics": note.annotators or who_stands_behind(facts),
        "rai:dataBiases": list(facts.findings),
        "rai:dataLimitations": [*use.limitations, *(f"not meant for: {x}" for x in use.out_of_scope)],
        "rai:dataUseCases": list(use.intended_use),
        "rai:personalSensitiveInformation": [*persons, *facts.deidentification],
        "rai:dataReleaseMaintenancePlan": facts.governance.maintenance,
        "rai:dataSocialImpact": facts.statement.social_impact,
        "rai:hasSyntheticData": facts.statement.synthetic,
    }
    return {k: v for k, v in fields.items() if v or v is False}
