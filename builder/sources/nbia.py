"""Judge by an NBIA server's other lists whether its list of a collection's series is whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from builder.errors import IncompleteError, counted
from builder.sources.counted import confirmed
from builder.sources.patience import Fault, persist

Row = Mapping[str, Any]
Ask = Callable[[str], Sequence[Row]]
"""Returns the rows of one query."""

_PATIENT: Final = ("PatientID", "PatientId")


@dataclass
class Collection:
    """What the answers so far have named, which only grows: what one answer named exists, though another leaves it out.

    Parameters
    ----------
    series
        Rows of getSeries by study and series UID.
    counts
        ``SeriesCount`` by study, as getPatientStudy states it.
    owners
        PatientID by study.
    patients
        PatientIDs that getPatient names.
    short
        Why studies are short, when all tries ended with no other contradiction than that.
    """

    series: dict[str, Row] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    short: IncompleteError | None = None

    def short_studies(self) -> frozenset[str]:
        """Return the studies of which fewer series were named than the server counts."""
        there = dict.fromkeys(self.counts, 0)
        for name in self.series:
            study = name.partition("/")[0]
            there[study] = there.get(study, 0) + 1
        return frozenset(study for study, count in self.counts.items() if there[study] < count)

    def check_names(self) -> None:
        """Raise Fault when one list names a study or a patient that another lacks."""
        studies = {name.partition("/")[0] for name in self.series}
        unlisted = len(studies - self.counts.keys())
        if unlisted:
            raise Fault(f"found series of {counted(unlisted, 'study', 'studies')} that getPatientStudy does not name")
        absent = len(self.patients - set(self.owners.values()))
        if absent:
            raise Fault(f"found {counted(absent, 'patient')} in getPatient of whom getPatientStudy names no study")


def list_collection(ask: Ask, name: str, *, source: str, host: str) -> Collection:
    """Return the series of a collection, once three lists agree twice in a row.

    ``getSeries`` states no length. ``getPatientStudy`` counts the series of each study, and ``getPatient`` names the
    patients, so that a list that is short contradicts the others, and all are asked for again.

    Raises
    ------
    IncompleteError
        When the lists name different studies or patients after all tries. Where they only name fewer series of a study
        than are counted, the error is kept in ``short`` instead, and concerns that study alone.
    """
    found = Collection()
    only_short = False

    def attempt() -> Mapping[str, Row]:
        nonlocal only_short
        only_short = False
        _take(found, ask, f"Collection={quote(name)}&format=json")
        found.check_names()
        if short := len(found.short_studies()):
            only_short = True
            raise Fault(f"found fewer series of {counted(short, 'study', 'studies')} than SeriesCount states")
        return dict(found.series)

    try:
        confirmed(lambda: persist(attempt, source=source, host=host), source=source, host=host)
    except IncompleteError as error:
        if not only_short:
            raise
        found.short = error
    return found


def uid(row: Row, *names: str) -> str:
    """Return the first of some fields that exists. It must be a UID, because it becomes part of paths. Raises Fault."""
    value = next((row[name] for name in names if isinstance(row.get(name), str)), "")
    if not value or not set(value) <= set("0123456789."):
        raise Fault(f"found a row without a UID in {names[0]}, expected one in each")
    return value


def name_of(row: Row) -> str:
    """Return study and series UID of a row of getSeries. Raises Fault."""
    return f"{uid(row, 'StudyInstanceUID')}/{uid(row, 'SeriesInstanceUID')}"


def _take(found: Collection, ask: Ask, query: str) -> None:
    found.series.update({name_of(row): row for row in ask(f"getSeries?{query}")})
    for row in ask(f"getPatientStudy?{query}"):
        study, stated = uid(row, "StudyInstanceUID"), str(row.get("SeriesCount"))
        found.counts[study] = int(stated) if stated.isascii() and stated.isdigit() else 0  # 0: nothing is stated
        found.owners[study] = _patient(row)
    found.patients |= {patient for row in ask(f"getPatient?{query}") if (patient := _patient(row))}


def _patient(row: Row) -> str:
    return next((str(row[name]) for name in _PATIENT if row.get(name)), "")
