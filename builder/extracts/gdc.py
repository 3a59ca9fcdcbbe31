"""Clinical JSON of the Genomic Data Commons (GDC): cases with what is nested in them, one level of it a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

import pyarrow as pa
from pydantic import Field

from builder.errors import SpecError
from builder.extracts.extract import ExtractBlock
from builder.protocols import Extracted, Outside

Entity: TypeAlias = Literal[
    "cases", "demographic", "diagnoses", "treatments", "pathology_details", "exposures", "family_histories",
    "follow_ups", "molecular_tests", "other_clinical_attributes",
]  # fmt: skip

_WITHIN: Final[Mapping[str, tuple[str, ...]]] = {
    "treatments": ("diagnoses",), "pathology_details": ("diagnoses",), "molecular_tests": ("follow_ups",),
    "other_clinical_attributes": ("follow_ups",),
}  # fmt: skip
"""What an entity is nested in; the others are in the case itself."""

_NOTHING: Final = ("", "not reported", "not allowed to collect", "--")
"""What the GDC and PDC write where they were told nothing. "unknown" is a value of their dictionary, and stays."""


class Gdc(ExtractBlock):
    """One entity of the cases in a JSON file, as the GDC portal ("Clinical: JSON") and its API (``/cases``) give it.

    A row is one entity. Its headings are its fields after the entity's name (``diagnoses.age_at_diagnosis``), those of
    what it is nested in, and the case's own without a name (``submitter_id``). A case has one demographic, which every
    row repeats.

    Parameters
    ----------
    url
        A JSON file, or a folder of them.
    entity
        What a row is.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["gdc"]
    url: str = Field(min_length=1)
    entity: Entity = "cases"

    @property
    def title(self) -> str:
        return f"gdc {self.entity}"

    def take(self, outside: Outside) -> Extracted:
        files = outside.files(self.url, lambda name: name.lower().endswith(".json"))
        cases = [case for n, (_, data) in enumerate(files, start=1) for case in _cases(data, f"{self.title}: file {n}")]
        if not cases:
            raise SpecError(f"{self.title}: found no case in the .json files at its url, expected at least one")
        return extracted([row for case in cases for row in _rows(case, self.entity)], len(cases), self.entity)


def _cases(data: bytes, where: str) -> list[dict[str, Any]]:
    """Return the cases of a file: a list of them, or the API's answer around it. Raises SpecError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where}: found no JSON ({type(error).__name__}), expected cases of the GDC") from None
    if isinstance(document, dict):
        within = document.get("data")
        document = within.get("hits") if isinstance(within, dict) else None
    named = isinstance(document, list) and all(isinstance(c, dict) and c.get("case_id") for c in document)
    if not named:
        raise SpecError(f"{where}: found JSON of another form, expected a list of cases, each with a case_id")
    found: list[dict[str, Any]] = document
    return found


def _rows(case: Mapping[str, Any], entity: str) -> Iterator[dict[str, str]]:
    shared = fields(case, "") | fields(case.get("demographic") or {}, "demographic.")
    steps = () if entity in ("cases", "demographic") else (*_WITHIN.get(entity, ()), entity)
    return rows_within(case, shared, steps)


def extracted(rows: Sequence[Mapping[str, str]], cases: int, entity: str) -> Extracted:
    """Return rows as a table of texts, and how many of the cases have none."""
    names = sorted({name for row in rows for name in row})
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    without = cases - len({row["case_id"] for row in rows})
    return Extracted(table, (f"{without} of {cases} cases have no {entity}",) if without else ())


def rows_within(node: Mapping[str, Any], shared: dict[str, str], steps: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the fields of each entity that is nested in another by some steps, with those of what it is nested in."""
    if not steps:
        yield shared
        return
    for part in node.get(steps[0]) or ():
        if isinstance(part, dict):
            yield from rows_within(part, shared | fields(part, f"{steps[0]}."), steps[1:])


def fields(node: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the plain values of an entity; of a list of them, all with ; between."""
    found = {}
    for name, value in node.items():
        plain = value if isinstance(value, list) and not any(isinstance(v, dict) for v in value) else [value]
        told = [str(v).lower() if isinstance(v, bool) else str(v) for v in plain if not isinstance(v, dict | list)]
        told = [text for text, v in zip(told, plain, strict=False) if v is not None and text.lower() not in _NOTHING]
        if told:
            found[prefix + name] = ";".join(told)
    return found
