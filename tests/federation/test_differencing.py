"""What a site tells in several versions does not add up to a small number."""

import numpy as np
import pytest

from builder.errors import PrivacyError
from builder.federation.differencing import Told, check_differences, tell
from builder.federation.suppression import suppress
from builder.federation.tables import ANY, Column, Counts, Disclosed, count

SEX = Column("sex", ("F", "M"))
GRADE = Column("grade", ("high", "low", "missing"))


def told(numbers, people="v1", question="q", ledger=(), k=5):
    cells: dict[tuple[str, ...], int] = {(level,): n for level, n in zip(GRADE.levels, numbers, strict=True)}
    return tell(Counts((GRADE,), cells), k, people=people, question=question, ledger=ledger)


def test_the_same_archive_may_be_offered_again_and_says_the_same():
    first = told((9, 20, 31))
    assert told((9, 20, 31), ledger=[first]).table == first.table
    second = told((2, 20, 31))
    assert told((2, 20, 31), ledger=[second]).table == second.table


def test_a_few_newcomers_do_not_show_between_two_versions():
    first = told((9, 20, 31))
    second = told((9, 22, 31), people="v2", ledger=[first])
    assert ("low",) not in second.table.shown
    assert (ANY,) not in second.table.shown  # 62 after 60 would tell it too
    with pytest.raises(PrivacyError, match="narrow a change down to less than 5 persons"):
        check_differences(Told("v2", "q", Disclosed((GRADE,), 5, {(ANY,): 62}, ())), [first])


def test_many_newcomers_may_be_told():
    first = told((9, 20, 31))
    assert told((9, 26, 31), people="v2", ledger=[first]).table.shown[("low",)] == 26


def test_a_second_offer_tells_less_rather_than_nothing():
    """Forty newcomers in forty cells change most of them by a few: margins are left, or the total."""
    random = np.random.default_rng(0)
    columns = (SEX, Column("age", tuple("abcde")))
    rows = list(zip(random.choice(list("FM"), 160).tolist(), random.choice(list("abcde"), 160).tolist(), strict=True))
    first = tell(count(columns, rows[:120]), 5, people="v1", question="q")
    second = tell(count(columns, rows), 5, people="v2", question="q", ledger=[first])
    assert second.table.shown[ANY, ANY] == 160
    check_differences(second, [first])


def test_a_later_table_of_fewer_columns_is_compared_in_what_both_say():
    counts = Counts((SEX, GRADE), {("F", "low"): 30, ("F", "high"): 12, ("M", "low"): 20, ("M", "high"): 14})
    first = tell(counts, 5, people="v1", question="q")
    later = tell(Counts((SEX,), {("F",): 42, ("M",): 41}), 5, people="v2", question="q", ledger=[first])
    assert later.table.shown == {("F",): 42, ("M",): 41, (ANY,): 83}
    few = tell(Counts((SEX,), {("F",): 42, ("M",): 37}), 5, people="v3", question="q", ledger=[first])
    assert few.table.shown == {("F",): 42}


def test_newcomers_of_hidden_cells_are_found_by_their_sum():
    """60 and 52 leave 8 for two hidden cells, 61 and 52 leave 9: one person came, although no cell told it."""
    before = Told("v1", "q", Disclosed((GRADE,), 5, {(ANY,): 60, ("low",): 52}, (("high",), ("missing",))))
    after = Told("v2", "q", Disclosed((GRADE,), 5, {(ANY,): 65, ("low",): 56}, (("high",), ("missing",))))
    with pytest.raises(PrivacyError, match="narrow a change"):
        check_differences(after, [before])


def test_another_rule_of_the_cohort_must_not_single_out_who_it_excludes():
    """Equal numbers under another rule tell that the rule excludes nobody; one less tells of one person."""
    first = told((9, 20, 31))
    for numbers in ((9, 20, 31), (9, 20, 30)):
        with pytest.raises(PrivacyError, match="nothing else to tell"):
            told(numbers, people="other", question="with a rule more", ledger=[first])


def test_two_versions_must_not_hide_different_cells_of_an_unchanged_archive():
    """As two offers of one archive in which somebody left and somebody came: the totals and cells agree."""
    first = Told("v1", "q", Disclosed((GRADE,), 5, {(ANY,): 43, ("low",): 20}, (("high",), ("missing",))))
    second = Told("v2", "q", Disclosed((GRADE,), 5, {(ANY,): 43, ("missing",): 21}, (("high",), ("low",))))
    with pytest.raises(PrivacyError, match="narrow a hidden number"):
        check_differences(second, [first])
    with pytest.raises(PrivacyError, match="narrow a hidden number"):  # in three steps as in two
        check_differences(second, [first, Told("v1b", "q", Disclosed((GRADE,), 5, {(ANY,): 43}, ()))])


def test_an_archive_that_grew_and_shrank_is_judged_by_what_follows_without_assumptions():
    first = told((40, 40, 40))
    assert told((30, 50, 40), people="v2", ledger=[first]).table.shown[("high",)] == 30
    with pytest.raises(PrivacyError, match="narrow a change"):
        check_differences(Told("v2", "q", Disclosed((GRADE,), 5, {("high",): 30, ("low",): 42}, ())), [first])


def test_a_ledger_of_crossed_columns_is_checked_as_one():
    counts = Counts((SEX, GRADE), {("F", "low"): 30, ("F", "high"): 3, ("M", "low"): 20, ("M", "high"): 14})
    first = tell(counts, 5, people="v1", question="q", asked=[(), ("sex",)])
    second = tell(counts, 5, people="v1", question="q", asked=[(), ("grade",), ("sex", "grade")], ledger=[first])
    assert suppress(counts, 5, told=[first.table, second.table]).k == 5
    assert not set(second.table.shown) & {("F", "high")}


def test_more_tables_than_can_be_proved_are_refused():
    fine = Column("day", tuple(map(str, range(1500))))
    tables = [Told(f"v{n}", "q", Disclosed((fine,), 5, {(ANY,): 100 * n}, ())) for n in range(6)]
    with pytest.raises(PrivacyError, match="found 6 different tables told, of 1,500 cells each"):
        check_differences(tables[-1], tables[:-1])
