"""When a list of unstated length, or of stated counts, is believed."""

from collections.abc import Callable, Mapping

import pytest

from builder.errors import IncompleteError
from builder.sources.counted import confirmed, enough_studies
from builder.sources.patience import Fault


def answers(*lists: str) -> Callable[[], Mapping[str, object]]:
    """Give one list after another, the last for ever; each letter is a member."""
    left = list(lists)
    return lambda: dict.fromkeys(left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(
    ("lists", "times", "believed"),
    [
        (("abc",), 2, "abc"),
        (("ab", "abc", "abc"), 2, "abc"),
        (("abc", "ab", "ab", "abc"), 2, "abc"),  # what is shorter than an earlier answer never counts
        (("ab", "ab", "abc"), 3, "abc"),
        (("",), 2, ""),
        (("a", "b", "ab"), 2, "ab"),
    ],
)
def test_a_list_is_believed_when_it_comes_again(lists: tuple[str, ...], times: int, believed: str) -> None:
    found = confirmed(answers(*lists), source="tcia", host="here", times=times)
    assert set(found) == set(believed)


def test_a_list_that_stays_short_after_a_longer_one_stops_the_run() -> None:
    with pytest.raises(IncompleteError, match="differs each time"):
        confirmed(answers("abc", "ab"), source="tcia", host="here")


def test_a_patient_has_as_many_studies_as_are_counted() -> None:
    found = {"1.1": 0, "1.2": 0}
    assert enough_studies(found, [("p", 2), ("p", 2)], {}) is found
    assert enough_studies(found, [("p", None), ("q", None)], {}) is found  # nothing is stated
    assert enough_studies(found, [("", 9), ("", 9)], {}) is found  # nobody knows whose they are
    for query in ({}, {"PatientID": "p"}, {"00100020": "p"}):
        with pytest.raises(Fault, match="fewer studies of 1 patients"):
            enough_studies(found, [("p", 3), ("p", None)], query)
    assert enough_studies(found, [("p", 3), ("p", 3)], {"StudyDate": "2020"}) is found  # the others do not match
