"""What was known when the image was made: no value of a later day gets into an input, and the certificate says so."""

import datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from builder.clinical import ClinicalTable, Images, check_known, join, read_rows
from builder.clinical.known import how_known, own_days, until_study, when_known
from builder.errors import LayoutError
from builder.publishing.leaks import known_of
from tests.clinical.making import declared

DAY = datetime.date(2020, 6, 1)
STUDIES = (0, 40)
"""Days of the two studies of the one person."""
VALUE = {"score": {"from": "score", "type": "integer"}}
DATES = {**VALUE, "day": {"from": "day", "type": "date"}}
TAKES = ("min", "max", "nearest", "first_after", "last_before")
TABLES: list[dict[str, Any]] = [
    {"columns": DATES, "timeless": ["score"]}, {"columns": VALUE, "dated_by": "day"},
    *({"by": {"day": "date"}, "person_id": "id", "columns": VALUE, "within_days": n} for n in (0, 5)),
    *(
        {"cardinality": "many", "pick": {"by": "day", "take": take}, "columns": columns, **dated}
        for take in TAKES
        for columns in (VALUE, DATES)
        for dated in ({}, {"dated_by": "day"})
    ),
]  # fmt: skip
ROWS = st.lists(st.one_of(st.none(), st.integers(-60, 100), st.sampled_from([0, 1, 40, 41])), min_size=1, max_size=6)


def stacks(table: ClinicalTable) -> Images:
    """One stack of each study, as a plan would have them."""
    dates = [DAY + datetime.timedelta(n) for n in STUDIES]
    reach = range(-table.within_days, table.within_days + 1)
    near = [tuple((date + datetime.timedelta(n)).isoformat() for n in reach) for date in dates]
    return Images(
        persons=["p", "p"], units=["p", "p"], keys={"person": [("P",), ("P",)], "date": near}, study_dates=dates,
        first_studies={"p": DAY}, until_study=until_study(table, ()), own_days=own_days(table, ()),
    )  # fmt: skip


@given(st.sampled_from(TABLES), ROWS)
def test_a_value_dated_after_the_study_cannot_get_in_as_an_input(
    options: dict[str, Any], days: list[int | None]
) -> None:
    """Each row's score is its position, so that a value tells the row it came from."""
    table = declared(**{"min_matched": 0, **options})
    undated = [name for name in table.names if how_known(table, name, ()) == "undated"]
    by_day = table.pick is not None and (table.pick.take in ("nearest", "first_after") or "day" in table.columns)
    if undated and (by_day or table.within_days):
        with pytest.raises(ValueError, match="of an unknown date of a row that may lie"):
            check_known([table], (), several_visits=False)
        return
    check_known([table], (), several_visits=False)
    assume("date" not in table.joins.values() or any(day is not None for day in days))
    text = "".join(f"P,{'' if day is None else DAY + datetime.timedelta(day)},{n}\n" for n, day in enumerate(days))
    images = stacks(table)
    joined = join(read_rows(f"id,day,score\n{text}".encode(), table), table, images)
    for study, said in zip(STUDIES, joined.values, strict=True):
        if said is None:
            continue
        if said["score"] is not None and how_known(table, "score", ()) == "dated":
            known_on = days[int(said["score"])]
            assert known_on is not None
            assert known_on <= study
        if said.get("day") is not None:
            assert int(said["day"] or 0) <= study
    firsts = [DAY] * 2
    for known in when_known(table, joined, (), study_dates=images.study_dates, first_studies=firsts):
        assert known.later == 0 or known.how == "undated"
        assert known.how != "dated" or known.latest_days is None or known.latest_days <= 0
        assert known_of([{"known": [known.facts()]}])


def test_what_is_known_when() -> None:
    event = {"dead": {"column": "gone", "happened": ["true"], "time": "when"}}
    columns = {
        **DATES,
        "gone": {"from": "g", "type": "boolean"},
        "when": {"from": "w", "type": "date"},
        "sex": {"from": "s", "type": "text"},
    }
    table = declared(columns=columns, events=event, timeless=["sex"])
    assert {name: how_known(table, name, ["score"]) for name in table.names} == {
        "score": "outcome", "day": "dated", "gone": "outcome", "when": "outcome", "sex": "timeless",
        "dead_event": "outcome", "dead_time": "outcome",
    }  # fmt: skip
    assert how_known(table, "score", ()) == "undated"
    assert own_days(table, ()) == ("day",)
    assert own_days(table, ["day"]) == own_days(declared(columns=DATES, dated_by="d"), ()) == ()
    extract = declared(url=None, extract={"kind": "gdc", "url": "there"}, columns=VALUE)
    with pytest.raises(ValueError, match="found the column 'score' of an unknown date out of a database or export"):
        check_known([extract], (), several_visits=False)
    check_known([extract], ["score"], several_visits=True)
    with pytest.raises(ValueError, match="in a dataset of several visits"):
        check_known([declared(columns=VALUE)], (), several_visits=True)


def test_dates_after_the_study_are_listed_and_events_still_count_from_them() -> None:
    columns = {**DATES, "when": {"from": "day", "type": "date"}, "gone": {"from": "score", "type": "boolean"}}
    event = {"dead": {"column": "gone", "happened": ["true"], "time": "when"}}
    table = declared(columns=columns, events=event)
    joined = join(read_rows(b"id,day,score\nP,2020-06-11,1\n", table), table, stacks(table))
    assert [said and (said["day"], said["when"], said["dead_time"]) for said in joined.values] == [
        (None, 10, 10.0), (10, 10, 10.0),
    ]  # fmt: skip
    assert [(i.row, i.column, i.problem) for i in joined.issues] == [
        (2, "day", "a day after the study of an image of the person")
    ]
    known = {
        k.column: k
        for k in when_known(table, joined, (), study_dates=stacks(table).study_dates, first_studies=[DAY, DAY])
    }
    assert (known["day"].values, known["day"].later, known["day"].latest_days) == (1, 0, -30)
    assert known["when"].facts() == {"column": "when", "how": "outcome", "values": 2, "after_study": None}


def test_nothing_is_published_of_an_input_from_after_the_study() -> None:
    late = {"column": "score", "how": "dated", "values": 4, "after_study": 2}
    with pytest.raises(LayoutError, match="clinical table 1: found 2 values of score from after the study"):
        known_of([{"known": [late]}])
    assert known_of([{"known": []}, {"known": [{**late, "after_study": 0}]}]) == [
        {"table": 2, **late, "after_study": 0}
    ]
