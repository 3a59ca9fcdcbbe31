"""The lines of a plan and a build are sentences whose numbers and words agree."""

import pytest

from builder.run.outcomes import _names_line, _report_lines


@pytest.mark.parametrize(
    ("names", "missed", "words"),
    [
        (2, 0, "every name in the label objects was matched (2 names)"),
        (1, 0, "every name in the label objects was matched (1 name)"),
        (5, 4, "4 of the 5 names in the label objects matched no pattern of the label: label-names.csv"),
        (0, 0, "the label objects state no names"),
    ],
)
def test_what_became_of_names_is_a_sentence(names: int, missed: int, words: str) -> None:
    assert _names_line({"names": names, "names_taken_by_none": missed}).startswith(words)


def test_balance_says_what_is_off_what() -> None:
    balance = {"strata": {"number": 3, "worst_persons": 0.5}, "worst_level_persons": 0.25}
    report = {"balance": balance, "associations": [], "missingness": [], "baseline": [], "power": {"outcomes": []}}
    assert list(_report_lines(report)) == [
        "  balance: of 3 strata the worst is 0.50 persons off its share, the worst single value 0.25"
    ]
