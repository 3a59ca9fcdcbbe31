"""Clinical JSON of the Proteomic Data Commons (PDC): answers to its GraphQL queries, one level of them a table."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal, TypeAlias

from pydantic import Field

from builder.errors import SpecError
from builder.extracts.extract import ExtractBlock
from builder.extracts.gdc import extracted, fields, rows_within
from builder.protocols import Extracted, Outside

Entity: TypeAlias = Literal["cases", "demographics", "diagnoses", "exposures", "follow_ups", "treatments"]

_QUERIES: Final = (
    "case", "allCases", "clinicalPerStudy", "getPaginatedCases", "paginatedCaseDemographicsPerStudy",
    "paginatedCaseDiagnosesPerStudy", "paginatedCaseExposuresPerStudy", "paginatedCaseFollowUpsPerStudy",
    "paginatedCaseTreatmentsPerStudy",
)  # fmt: skip
"""Queries of the PDC's API whose answers are lists of cases, or pages with one."""


class Pdc(ExtractBlock):
    """One entity of the cases in answers of the PDC's API (``/graphql``), each saved as a JSON file.

    A row is one entity. Its headings are its fields after the entity's name (``diagnoses.tumor_grade``), and the case's
    own without a name (``case_submitter_id``); ``clinicalPerStudy`` gives demographic and diagnosis as fields of the
    case. What several answers say of one case is put together. A case has one demographic, which every row repeats.

    Parameters
    ----------
    url
        A JSON file, or a folder of them.
    entity
        What a row is.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["pdc"]
    url: str = Field(min_length=1)
    entity: Entity = "cases"

    @property
    def title(self) -> str:
        return f"pdc {self.entity}"

    def take(self, outside: Outside) -> Extracted:
        files = outside.files(self.url, lambda name: name.lower().endswith(".json"))
        cases: dict[str, dict[str, Any]] = {}
        for number, (_, data) in enumerate(files, start=1):
            where = f"{self.title}: file {number}"
            for case in _cases(data, where):
                cases[case["case_id"]] = _together(cases.get(case["case_id"], {}), case, where)
        if not cases:
            raise SpecError(f"{self.title}: found no case in the .json files at its url, expected at least one")
        rows = [row for case in cases.values() for row in _rows(case, self.entity)]
        return extracted(rows, len(cases), self.entity)


def _cases(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    """Yield the cases of an answer. Raises SpecError when it is none, or says that something went wrong."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where}: found no JSON ({type(error).__name__}), expected an answer of the PDC") from None
    answer = document.get("data") if isinstance(document, dict) else None
    if isinstance(document, dict) and document.get("errors"):
        raise SpecError(f"{where}: found an answer that tells of errors, expected a complete one; ask again")
    found = [answer[query] for query in _QUERIES if query in answer] if isinstance(answer, dict) else []
    if not found:
        raise SpecError(f"{where}: found no answer about cases, expected one to {', '.join(_QUERIES[:3])}, ...")
    for listed in found:
        pages = [page for page in listed.values() if isinstance(page, list)] if isinstance(listed, dict) else [listed]
        for case in (case for page in pages for case in page or ()):
            if not isinstance(case, dict) or not isinstance(case.get("case_id"), str):
                raise SpecError(f"{where}: found a case without a case_id, expected it among the queried fields")
            yield case


def _together(one: dict[str, Any], other: dict[str, Any], where: str) -> dict[str, Any]:
    """Return what two answers say of a case. Raises SpecError when they contradict each other."""
    found = {**one}
    for name, value in other.items():
        known = found.get(name)
        if isinstance(known, list) and isinstance(value, list):
            found[name] = [*known, *(part for part in value if part not in known)]
        elif known is None or known == value:
            found[name] = value
        elif value is not None:
            raise SpecError(
                f"{where}: found another {name} of a case than an earlier answer has, expected answers of one release"
            )
    return found


def _rows(case: dict[str, Any], entity: str) -> Iterator[dict[str, str]]:
    shared = fields(case, "")
    people = [part for part in case.get("demographics") or () if isinstance(part, dict)]
    shared |= fields(people[0], "demographics.") if len(people) == 1 else {}
    steps = () if entity == "cases" or (entity == "demographics" and len(people) == 1) else (entity,)
    return rows_within(case, shared, steps)
