"""Turn the options of a spec into data: for the manifest without literal locations, for fingerprints without any."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from builder.model.expression import withhold_literals


def withhold_locations(dumped: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec, dumped as JSON-able data, for the manifest: without literal locations, with ``${NAME}`` templates.

    A folder's path can name a patient or a machine; a template cannot. What rules and hold-outs compare with columns
    that identify (``IDENTIFIERS``) is withheld as well, and so is who issued the ids of a clinical table.
    """
    document: dict[str, Any] = _withhold(dumped)
    document["sources"] = [
        {
            k: v if k in PUBLIC_SOURCE_FIELDS else _template(v) if v else v
            for k, v in source.items()
            if k not in PRIVATE_SOURCE_FIELDS
        }
        for source in document["sources"]
    ]
    for name in PRIVATE_RELEASE_FIELDS:
        document.get("release", {}).pop(name, None)
    for table in document.get("clinical", ()):
        table["issuer"] = _template(table["issuer"]) if table["issuer"] else None
        table["issuer_names"] = {WITHHELD: WITHHELD} if table["issuer_names"] else {}
        if table["extract"] is not None:
            table["extract"] = {
                k: v if k in PUBLIC_EXTRACT_FIELDS else _template(v) if v else v for k, v in table["extract"].items()
            }
    return document


PUBLIC_SOURCE_FIELDS = (
    "kind", "site", "country", "collection", "origin", "collections", "modalities", "licenses", "page", "port",
    "retrieve", "missing", "missing_at_most", "version", "store",
)  # fmt: skip
"""What a manifest tells of a source; queries and lists of patients are withheld like locations."""

PUBLIC_EXTRACT_FIELDS = ("kind", "resource", "table", "entity")
"""What a manifest tells of an extract; a query or a system of numbers may name a hospital or patients."""

PRIVATE_SOURCE_FIELDS = ("polite",)
"""What says nothing of the data, so that a change of it makes no new version."""

PRIVATE_RELEASE_FIELDS = ("crosswalk",)
"""What a private file is made by, and nothing that is published."""

LOCATION_FIELDS = (
    "url", "aliases", "previous", "review", "transform_files", "leave_out", "decisions", "devices",
    "face_decisions", "alike",
)  # fmt: skip
"""Fields that say where something lies. The reference to the key says so too: a file's path is withheld, and neither
path nor variable enters a fingerprint (a check value of the key itself does)."""


IDENTIFIERS = frozenset(
    {"patient_id", "issuer_of_patient_id", "accession_number", "institution_name", "device_serial_number"}
)
"""Columns that a rule may read, and whose values say who or where somebody is."""

DATES = frozenset({"study_date", "series_date", "acquisition_date"})
"""Columns of which a single day may be a person's own; a limit, such as "before 2015", is nobody's."""

WITHHELD = "(withheld)"
"""Stands for a text that may identify somebody: in a message, a rule or a level of a stratum."""


def published_rule(text: str) -> str:
    """Return an expression of a spec as others may read it: without what it compares with columns that identify."""
    return withhold_literals(text, IDENTIFIERS, told=WITHHELD, dates=DATES)


def _withhold(node: Any) -> Any:
    if isinstance(node, dict):
        column = node.get("column")
        if isinstance(column, str) and column in IDENTIFIERS | DATES:  # a hold-out
            told = {"since": node.get("since")} if column in DATES else {"since": WITHHELD}
            node = node | {k: v for k, v in ({"values": [WITHHELD]} | told).items() if node.get(k)}
        return {
            k: _template(v) if k in (*LOCATION_FIELDS, "patient_key") and isinstance(v, str) else _withhold(v)
            for k, v in node.items()
        }
    if isinstance(node, list):
        return [_withhold(v) for v in node]
    return published_rule(node) if isinstance(node, str) else node


def _template(location: Any) -> Any:
    """Keep ``${NAME}`` templates, but no literal paths, ``${file:...}`` or anything else."""
    stays = isinstance(location, str) and location.startswith("${") and not location.startswith("${file:")
    return location if stays else WITHHELD


def without_locations(options: BaseModel) -> dict[str, Any]:
    """Return options as JSON-able data for fingerprints: as ``stated``, without locations and ``${NAME}`` templates."""
    document: dict[str, Any] = _drop_locations(stated(options))
    return document


def stated(options: BaseModel) -> dict[str, Any]:
    """Return options as data for JSON without those at their default, so that a new option renames nothing.

    ``kind`` always stays. Whoever changes a default raises the VERSION of its block: the default is in no fingerprint.
    """
    dumped = options.model_dump(mode="json", by_alias=True)
    kept = {}
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name == "kind" or value != field.get_default(call_default_factory=True):
            key = field.alias or name
            kept[key] = _stated(value, dumped[key])
    return kept


def _stated(value: Any, dumped: Any) -> Any:
    """Return ``dumped``, which is ``value`` as JSON-able data, with the defaults of every model in it left out."""
    if isinstance(value, BaseModel):
        return stated(value)
    if isinstance(value, Mapping):
        return {k: _stated(own, v) for own, (k, v) in zip(value.values(), dumped.items(), strict=True)}
    if isinstance(value, (tuple, list)):
        return [_stated(own, v) for own, v in zip(value, dumped, strict=True)]
    return dumped


def _drop_locations(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _drop_locations(v) for k, v in node.items() if k not in (*LOCATION_FIELDS, "patient_key")}
    if isinstance(node, list):
        return [_drop_locations(v) for v in node]
    return node
