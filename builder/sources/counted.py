"""Decide whether a list that a server sent is whole."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Final, TypeVar

from builder.errors import IncompleteError
from builder.sources.patience import Fault

Listing = TypeVar("Listing", bound=Mapping[str, object])
Members = TypeVar("Members", bound=Sized)

UNLISTED: Final = "incomplete"
"""Stamp of the entry that stands for a study which could not be listed whole."""

_TIMES = 8
_PATIENT_KEYS = {"PatientID", "00100020"}


def enough(found: Members, expected: int | None) -> Members:
    """Return a list that has at least as many members as the server counts. Raises Fault."""
    if expected is not None and len(found) < expected:
        raise Fault(f"found a list of {len(found)}, expected {expected} as the server counts")
    return found


def enough_studies(found: Members, patients: Iterable[tuple[str, int | None]], query: Iterable[str]) -> Members:
    """Return a list of studies in which no patient has fewer than the server counts. Raises Fault.

    Parameters
    ----------
    patients
        For each study its PatientID and NumberOfPatientRelatedStudies (0020,1200), if the server states it.
    query
        Keys of the query. The count is of all studies of a patient, so it says nothing where others choose studies.
    """
    listed: Counter[str] = Counter()
    stated: dict[str, int] = {}
    for patient, count in patients:
        listed[patient] += 1
        stated[patient] = max(stated.get(patient, 0), count or 0)
    short = sum(listed[patient] < count for patient, count in stated.items() if patient)
    if short and set(query) <= _PATIENT_KEYS:
        raise Fault(f"found fewer studies of {short} patients than the server counts")
    return found


def confirmed(ask: Callable[[], Listing], *, source: str, host: str, times: int = 2) -> Listing:
    """Return a list of unknown length once the server has given it ``times`` times in a row.

    One answer that is short by chance, or empty, would remove persons without a trace. What one answer named must be in
    every later one, so that a short list is never believed after a longer one. Raises IncompleteError when not enough
    answers in a row agree.
    """
    named: set[str] = set()
    agreed = 0
    for _ in range(_TIMES):
        found = ask()
        missing, new = named - found.keys(), found.keys() - named
        named |= new
        agreed = 0 if missing else 1 if new else agreed + 1
        if agreed == times:
            return found
    raise IncompleteError(
        f"{source} at {host}: found a list that differs each time (tried {_TIMES} times); wait until nothing is "
        "being stored on the server, and run the same command again",
        host=host,
    )
