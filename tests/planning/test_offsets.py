"""Days from an image to its labels: none from a date that many persons share, in whichever labels they have it."""

from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from builder.deid import Deid
from builder.deid.dates import SHARED, Lifetime, shared_dates
from builder.planning.offsets import LABEL_DATES, label_days, made_on
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
