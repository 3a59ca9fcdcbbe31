"""Days from an image to its labels: none from a date that many persons share, in whichever labels they have it."""

from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from builder.cohort import Cohort
from builder.deid import Deid
from builder.deid.dates import SHARED, Lifetime, shared_dates
from builder.planning.offsets import LABEL_DATES, label_days, made_on, visit_days
from builder.split import TRUE_DATE

CAMPAIGN = date(2020, 6, 2)


def days(labels: list[str], made: date = CAMPAIGN) -> dict[tuple[str, str], int]:
    """The days of persons who were scanned 1, 2, ... days before and have one label each."""
    persons = [f"p{n}" for n in range(len(labels))]
    scans = [made - timedelta(days=n + 1) for n in range(len(labels))]
    cohort = pa.table({"case_key": persons, "person_key": persons, TRUE_DATE: scans})
    links = pa.table({"case_key": persons, "label": labels, "annotation": list(range(len(labels)))})
    dates: dict[str, Any] = {name: [made.strftime("%Y%m%d")] * len(labels) for name in LABEL_DATES}
    return label_days(
        cohort, dict.fromkeys(persons, Lifetime()), links=links, annotations=pa.table(dates), shared={},
        deid=Deid(patient_key="${env:BUILDER_KEY}", retain=("days_after_image",)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "leave"),
    [
        (["tumor"] * (SHARED - 1), True),
        (["tumor"] * SHARED, False),
        (["tumor"] * (SHARED - 2) + ["node"] * 2, False),
        (["tumor", "node"] * 2, True),
    ],
)
def test_a_date_of_many_persons_is_nobodys_whatever_label_they_have(labels: list[str], leave: bool) -> None:
    expected = {(f"p{n}", label): n + 1 for n, label in enumerate(labels)} if leave else {}
    assert days(labels) == expected


def test_a_campaign_counts_whom_the_cohort_leaves_out_and_objects_that_a_later_one_replaced() -> None:
    """Two persons of a campaign of five are in the cohort; without the others, theirs would look like own dates."""
    persons, day = ["p0", "p1"], CAMPAIGN.strftime("%Y%m%d")
    scans = [CAMPAIGN - timedelta(days=n + 1) for n in range(2)]
    cohort = pa.table({"case_key": persons, "person_key": persons, TRUE_DATE: scans})
    links = pa.table({"case_key": persons, "label": ["tumor"] * 2, "annotation": [0, 1]})

    def found(owners: list[str | None]) -> dict[tuple[str, str], int]:
        annotations = pa.table({name: [day] * len(owners) for name in LABEL_DATES})
        return label_days(
            cohort, dict.fromkeys(persons, Lifetime()), links=links, annotations=annotations,
            shared=shared_dates(made_on(annotations, owners)),
            deid=Deid(patient_key="${env:BUILDER_KEY}", retain=("days_after_image",)),
        )  # fmt: skip

    assert found(["p0", "p1", "p2", "p3", "p4"]) == {}
    assert found(["p0", "p1", "p2", "p3", "p3", None]) == {("p0", "tumor"): 1, ("p1", "tumor"): 2}


@pytest.mark.parametrize("made", [date(2020, 1, 1), date(1900, 1, 1), date(9999, 12, 31)])
def test_a_placeholder_gives_no_days(made: date) -> None:
    assert days(["tumor"], made) == {}


def between_visits(
    *dates: tuple[date | None, date | None], life: Lifetime | None = None, **deid: Any
) -> list[int | None]:
    """The days that leave of persons with a first and a later visit."""
    rows: list[dict[str, Any]] = []
    for number, (first, later) in enumerate(dates):
        keys = {"person_key": f"p{number}"}
        rows += [
            {**keys, "stack_key": f"a{number}", TRUE_DATE: first,
             "partners": [{"image": "b.t1", "stack_key": f"b{number}", "matrix": []}]},
            {**keys, "stack_key": f"b{number}", TRUE_DATE: later, "partners": []},
        ]  # fmt: skip
    lives = {f"p{number}": life or Lifetime() for number in range(len(dates))}
    cohort = Cohort.model_validate(
        {"case": "person", "visits": {"names": ["a", "b"]}, "images": {"t1": {"select": "true"}}}
    )
    options = Deid.model_validate({"patient_key": "${env:BUILDER_KEY}", "retain": ["delta_days"], **deid})
    found = visit_days(pa.Table.from_pylist(rows), lives, options=cohort, deid=options)
    return found["b.delta_days"].to_pylist()[::2] if found else []


def test_days_between_visits_follow_the_rules_of_other_times() -> None:
    first, later = date(2020, 3, 4), date(2020, 9, 1)
    assert between_visits((first, later)) == [181]
    assert between_visits((first, later), retain=[]) == []  # off by default
    assert between_visits((first, None), (None, later)) == [None, None]
    assert between_visits((first, later), most_days=100) == [101]  # "longer", whatever it is
    assert between_visits((first, later), life=Lifetime(born=date(1930, 5, 1))) == [None]  # 90 at the later visit
    assert between_visits((date(1900, 1, 1), later)) == [None]  # stands for nothing
    placeholders = [(date(2000 + n, 1, 1), date(2000 + n, 6, 2)) for n in range(SHARED)]
    assert between_visits(*placeholders) == [None] * SHARED
