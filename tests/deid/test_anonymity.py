"""Compare k, l and t with counts by DuckDB, and check what happens to groups that fall short."""

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid.anonymity import Anonymity, distance, protect
from builder.errors import PrivacyError

RELEASED = ("sex", "age_years", "age_band", "site", "vendor", "grade", "person_key")


def cohort(rows: list[tuple]) -> pa.Table:
    """Rows of (person, sex, age, site, grade)."""
    names = ("person_key", "sex", "age_years", "site", "grade")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    schema = pa.schema([("person_key", pa.string()), ("sex", pa.string()), ("age_years", pa.float64()),
                        ("site", pa.string()), ("grade", pa.string())])  # fmt: skip
    return table.cast(schema)


PEOPLE = st.lists(
    st.tuples(
        st.sampled_from(["F", "M", None]), st.sampled_from([34.0, 61.0, 88.0, 93.0, None]),
        st.sampled_from(["north", "south"]), st.sampled_from(["low", "high"]),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@given(PEOPLE)
def test_k_and_l_agree_with_an_independent_count(people: list[tuple]):
    table = cohort([(f"p{i}", *row) for i, row in enumerate(people)])
    _, found = protect(table, Anonymity(k=3, sensitive=("grade",), least_values=1), released=RELEASED)
    capped = "case when age_years > 90 then 90 else age_years end"
    query = f"select count(*), count(distinct grade) from people group by sex, {capped}, site"
    counted = duckdb.from_arrow(table).query("people", query).fetchall()
    assert found.columns == ("sex", "age_years", "site")
    assert found.groups == len(counted)
    assert found.k == min(n for n, _ in counted)
    assert found.below == sum(n for n, _ in counted if n < 3)
    assert found.distinct == {"grade": min(values for _, values in counted)}


@given(PEOPLE)
def test_suppression_leaves_no_small_group(people: list[tuple]):
    table = cohort([(f"p{i}", *row) for i, row in enumerate(people)])
    options = Anonymity(k=3, below="suppress")
    safe, found = protect(table, options, released=RELEASED)
    assert found.k == 0 or found.k >= 3
    assert found.below == 0
    assert found.suppressed + found.persons == len(people)
    capped = "case when age_years > 90 then 90 else age_years end"
    seen = "sex is not null or age_years is not null or site is not null"
    query = f"select count(*) from people where {seen} group by sex, {capped}, site"
    known = duckdb.from_arrow(safe).query("people", query).fetchall()
    assert all(n >= 3 for (n,) in known)
    assert safe.column("grade").equals(table.column("grade"))


def test_a_person_with_several_series_counts_once():
    rows = [(person, "F", 40.0, "north", "low") for person in ("a", "a", "a", "b")]
    _, found = protect(cohort(rows), Anonymity(k=3), released=RELEASED)
    assert (found.persons, found.k, found.below) == (2, 2, 2)
    assert found.smallest == ({"values": {"sex": "F", "age_years": "40", "site": "north"}, "persons": 2},)


def test_generalising_makes_groups_larger_and_releases_no_age():
    rows = [(f"p{i}", "F", 40.0 + i, "north" if i % 2 else "south", "low") for i in range(6)]
    options = Anonymity(k=6, age_bands=20, groups={"site": {"north": "all", "south": "all"}}, below="stop")
    safe, found = protect(cohort(rows), options, released=RELEASED)
    assert set(safe.column("age_band").to_pylist()) == {"40-59"}
    assert safe.column("age_years").null_count == 6
    assert (found.k, found.below) == (6, 0)


def test_bands_of_ages_count_where_ages_are_retained_too():
    """Bands once did not count beside ages, though the ages were withheld."""
    rows = [(f"p{i}", "F", 30.0 if i < 5 else 70.0, "north", "low") for i in range(6)]
    safe, found = protect(cohort(rows), Anonymity(k=2, age_bands=20), released=(*RELEASED, "age_band"))
    assert sorted(safe["age_band"].to_pylist()) == ["20-39"] * 5 + ["60-79"]
    assert (found.columns, found.k, found.below) == (("sex", "age_band", "site"), 1, 1)


@pytest.mark.parametrize(("age", "band"), [(0.4, "0-19"), (89.9, "80-89"), (90.0, "90+"), (104.0, "90+")])
def test_no_band_reveals_an_age_above_89(age: float, band: str):
    safe, _ = protect(cohort([("a", "F", age, "north", "low")]), Anonymity(age_bands=20), released=RELEASED)
    assert safe.column("age_band").to_pylist() == [band]


def test_the_spec_may_stop_the_build():
    with pytest.raises(PrivacyError, match="found 1 person in groups that fall short"):
        protect(cohort([("a", "F", 40.0, "north", "low")]), Anonymity(below="stop"), released=RELEASED)
    _, found = protect(cohort([("a", "F", 40.0, "north", "low")]), Anonymity(below="stop"), released=("person_key",))
    assert (found.columns, found.k, found.below) == ((), 0, 0)


def test_a_uniform_group_falls_short_of_l_and_t():
    rows = [(f"a{i}", "F", 40.0, "north", "high") for i in range(5)] + [
        (f"b{i}", "M", 40.0, "north", "low" if i else "high") for i in range(5)
    ]
    options = Anonymity(k=5, sensitive=("grade",), least_values=2)
    _, found = protect(cohort(rows), options, released=RELEASED)
    assert (found.k, found.below, found.distinct) == (5, 5, {"grade": 1})
    _, found = protect(cohort(rows), Anonymity(k=5, sensitive=("grade",), most_distance=0.3), released=RELEASED)
    assert found.distance == {"grade": 0.4}
    assert found.below == 10


def test_everybody_alike_is_at_no_distance():
    assert distance([5, 5], [5, 5, 5]) == 0
    assert distance(["a"], ["a", "a"]) == 0


def test_a_distance_is_stated_to_six_places():
    grades = ["high"] * 4 + ["low"] * 2
    table = cohort([(f"p{i}", "FM"[i // 3], 40.0, "north", grade) for i, grade in enumerate(grades)])
    _, found = protect(table, Anonymity(k=2, sensitive=("grade",)), released=RELEASED)
    assert found.distance == {"grade": 0.333333}


def test_distance_is_that_of_the_papers_example():
    """Li 2007, section 5: salaries 3k to 11k; the groups {3k, 4k, 5k} and {6k, 8k, 11k}."""
    everybody = list(range(3, 12))
    assert distance([3, 4, 5], everybody) == pytest.approx(0.375)
    assert distance([6, 8, 11], everybody) == pytest.approx(0.167, abs=5e-4)


def makers(rows: list[tuple]) -> pa.Table:
    """Rows of (person, site, source, vendor, manufacturer, model, vendor of the PET)."""
    names = ("person_key", "site", "source", "vendor", "manufacturer", "manufacturer_model", "pet.vendor")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    return table.append_column("pet.manufacturer_model", pa.array([f"{row[-1]} PET" for row in rows]))


MAKERS = makers(
    [(f"p{i}", "north", 0, "A", "A", "A1", "A") for i in range(4)] + [("q", "south", 1, "B", "B", "B1", "A")]
)
RELEASED_MAKERS = (*MAKERS.column_names,)


def test_values_that_reveal_a_withheld_value_are_withheld_too():
    """The maker reveals the vendor and the position of the source reveals the site, in every image of the case."""
    safe, found = protect(MAKERS, Anonymity(k=3, below="suppress"), released=RELEASED_MAKERS)
    assert found.columns == ("site", "source", "vendor", "pet.vendor")
    assert (found.k, found.suppressed) == (4, 1)
    last = safe.to_pylist()[-1]
    assert {name: value for name, value in last.items() if value is not None} == {"person_key": "q"}
    assert safe.slice(0, 4).equals(MAKERS.slice(0, 4))


def test_columns_that_reveal_the_grouped_values_are_hidden():
    options = Anonymity(k=5, groups={"site": {"north": "all", "south": "all"}, "vendor": {"A": "any", "B": "any"}})
    safe, found = protect(MAKERS, options, released=[n for n in RELEASED_MAKERS if n != "source"])
    assert (found.k, found.below) == (5, 0)
    told = {str(value) for row in safe.to_pylist() for name, value in row.items() if name != "person_key"}
    assert told == {"all", "any", "None"}


def test_images_of_one_case_count_together():
    """Every person shares each vendor with four others, but has a unique pair of vendors."""
    pairs = [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    table = makers([(f"p{i}{j}", "north", 0, a, a, "m", b) for i, (a, b) in enumerate(pairs) for j in range(2)])
    _, found = protect(table, Anonymity(k=4), released=("vendor", "pet.vendor"))
    assert (found.k, found.groups, found.below) == (2, 4, 8)


def test_bands_replace_the_ages_of_all_images():
    table = cohort([(f"p{i}", "F", 40.0 + i, "north", "low") for i in range(4)])
    table = table.append_column("later.age_years", pa.array([41.0 + i for i in range(4)]))
    safe, found = protect(table, Anonymity(age_bands=10), released=(*RELEASED, "later.age_years", "later.age_band"))
    assert safe["later.age_years"].null_count == safe["age_years"].null_count == 4
    assert set(safe["later.age_band"].to_pylist()) == {"40-49"}
    assert found.k == 4


def test_a_cohort_of_nobody_is_at_no_distance():
    nobody = MAKERS.slice(0, 0).append_column("grade", pa.array([], pa.string()))
    _, found = protect(nobody, Anonymity(k=5, sensitive=("grade",)), released=RELEASED_MAKERS)
    assert (found.persons, found.distinct, found.distance) == (0, {"grade": 0}, {"grade": 0.0})


def test_the_line_says_who_is_withheld_and_how_many_fall_short():
    _, found = protect(MAKERS, Anonymity(k=3, below="suppress"), released=RELEASED_MAKERS)
    assert found.line(3) == (
        "k-anonymity: 1 group of 4 persons by site, source, vendor, pet.vendor, of 1 more person they are withheld; "
        "the smallest has 4, 0 persons are in groups below 3"
    )
    _, found = protect(MAKERS.slice(0, 4), Anonymity(k=3, below="suppress"), released=RELEASED_MAKERS)
    assert "withheld" not in found.line(3)
