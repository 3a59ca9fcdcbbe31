"""The archive as clinical tables see it: who each stack is of, what the person is called, and when the study was."""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from builder.clinical import ClinicalTable
from builder.errors import SpecError
from builder.headers.dates import dicom_date
from builder.persons import Persons, normal_id, normal_issuer, without_zeros
from builder.planning.candidates import person_column
from builder.planning.inputs import PlanInputs
from builder.planning.members import members
from builder.planning.rows import Placed, rows_of


class Archive:
    """The archive that tables are joined to: its stacks, with their persons and names."""

    def __init__(self, inputs: PlanInputs, stacks: pa.Table, persons: Persons) -> None:
        self.inputs, self.stacks = inputs, stacks
        self.persons = person_column(stacks, persons)
        nobody = persons.naming.placeholders
        self.naming = persons.naming
        ids = [normal_id(text) for text in stacks["patient_id"].to_pylist()]
        self.patient_ids = ["" if name in nobody else name for name in ids]
        self.study_dates = [dicom_date(text) for text in stacks["study_date"].to_pylist()]
        self.first_studies = _first_studies(self.persons, self.study_dates)
        self.sites, self.sources = stacks["site"].to_pylist(), stacks["source"].to_pylist()
        self.places = [normal_id(site) for site in self.sites]
        self.other_ids = self._ids_without_images(persons)
        self.keys = persons.keys

    def spelled(self, patient_id: str) -> str:
        """Return a PatientID in the form in which tables and images are compared."""
        name = normal_id(patient_id)
        return without_zeros(name) if self.naming.leading_zeros == "join" else name

    def inside(self, options: ClinicalTable) -> list[bool]:
        """Return whether each stack is of the table's site and source. Raises SpecError when no stack is."""
        site = None if options.site is None else normal_id(options.site)
        found = [
            site in (None, place) and options.source in (None, source)
            for place, source in zip(self.places, self.sources, strict=True)
        ]
        if found and not any(found):
            sites = ", ".join(sorted({site or "(none)" for site in self.sites}))
            asked = [] if options.site is None else [f"site {options.site!r}"]
            asked += [] if options.source is None else [f"source {options.source}"]
            raise SpecError(
                f"found no image of {' and '.join(asked)}, expected one: the sites are {sites}, the sources 0 to "
                f"{len(self.inputs.spec.sources) - 1}"
            )
        return found

    def person_ids(self, inside: Sequence[bool]) -> dict[str, tuple[str, ...]]:
        """Map each person to every PatientID, in normal form, by which a table may call the person."""
        found: dict[str, set[str]] = {}
        for person, patient, counts in zip(self.persons, self.patient_ids, inside, strict=True):
            if counts and patient:
                found.setdefault(person, set()).add(patient)
        for person, patient in self.other_ids:
            if person in found:
                found[person].add(patient)
        return {person: tuple(sorted(map(self.spelled, ids))) for person, ids in found.items()}

    def issued_ids(self, inside: Sequence[bool]) -> dict[str, tuple[str, ...]]:
        """Map each person to the PatientIDs that have an issuer, each as ``issued`` writes it with its issuer."""
        there = {person for person, counts in zip(self.persons, inside, strict=True) if counts}
        found: dict[str, set[str]] = {}
        for (issuer, patient), person in self.keys.items():
            if person in there and issuer and not issuer.startswith("\0"):
                found.setdefault(person, set()).add(self.issued(issuer, patient))
        return {person: tuple(sorted(ids)) for person, ids in found.items()}

    def issued(self, issuer: str, patient_id: str) -> str:
        """Return an issuer and one of its PatientIDs as one text, in the form in which they are compared."""
        return f"{normal_issuer(issuer)}\0{self.spelled(patient_id)}"

    def instance_names(self, columns: Sequence[str], wanted: Sequence[bool]) -> list[pa.Table | None]:
        """Return the instances of each wanted stack, reduced to some columns of INSTANCES."""
        found: list[pa.Table | None] = [None] * self.stacks.num_rows
        by_chunk: dict[int, list[tuple[int, Placed]]] = {}
        for row, stack in enumerate(rows_of(self.stacks, Placed)):
            if wanted[row]:
                by_chunk.setdefault(stack.chunk, []).append((row, stack))
        for chunk, rows in sorted(by_chunk.items()):
            for row, instances in members(self.inputs.inventory, self.inputs.survey, chunk=chunk, wanted=rows):
                found[row] = instances.select(list(columns))
        return found

    def _ids_without_images(self, persons: Persons) -> list[tuple[str, str]]:
        """Return person and PatientID for IDs that occur in no image, only in aliases and annotations."""
        have = {*self.patient_ids}
        return [
            (person, patient)
            for (issuer, patient), person in persons.keys.items()
            if not issuer.startswith("\0") and patient not in have
        ]


def _first_studies(persons: Sequence[str], dates: Sequence[date | None]) -> dict[str, date]:
    """Return the date of each person's first study under any PatientID. All days are counted from it."""
    first: dict[str, date] = {}
    for person, day in zip(persons, dates, strict=True):
        if day is not None and (person not in first or day < first[person]):
            first[person] = day
    return first
