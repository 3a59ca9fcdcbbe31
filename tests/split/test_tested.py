"""Persons who may not be tested on are dealt to the other splits by their ratios."""

from collections import Counter

import pyarrow as pa
import pytest

from builder.errors import SpecError
from builder.split import Splits, deal_elsewhere

PEOPLE = pa.table({"person_key": [f"p{n:02}" for n in range(20)]})
BARRED = PEOPLE["person_key"].to_pylist()[:17]


def splits(**options: object) -> Splits:
    return Splits.model_validate({"stratify": [], "tested": {"labels": "any"}, **options})


def test_barred_persons_are_dealt_by_the_ratios_of_the_other_splits() -> None:
    dealt = deal_elsewhere(PEOPLE, BARRED, splits(), previous=None)
    assert dealt is not None
    assert sorted(dealt["person_key"].to_pylist()) == BARRED
    assert Counter(dealt["split"].to_pylist()) == {"train": 14, "validation": 3}


def test_persons_of_earlier_versions_stay_and_nothing_changes_without_newcomers() -> None:
    before = pa.table({"person_key": BARRED, "split": ["test"] * 17})
    assert deal_elsewhere(PEOPLE, BARRED, splits(), previous=before) is before
    assert deal_elsewhere(PEOPLE, [], splits(), previous=None) is None
    more = deal_elsewhere(PEOPLE, BARRED, splits(), previous=before.slice(0, 16))
    assert more is not None
    assert more["split"].to_pylist()[:16] == ["test"] * 16
    assert more["split"].to_pylist()[16] != "test"


def test_a_spec_without_another_split_is_refused() -> None:
    with pytest.raises(SpecError, match="17 persons who may not be tested on"):
        deal_elsewhere(PEOPLE, BARRED, splits(ratios={"test": 1.0}), previous=None)


def test_the_registry_is_not_trusted_unless_the_spec_says_so() -> None:
    assert (splits().trust_registry, splits().fresh) == (False, False)
