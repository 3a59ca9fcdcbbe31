"""Identity resolution: order-free, never more or less than the evidence says, and never silent about doubt."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.persons import (
    PLACEHOLDERS,
    Aliases,
    AliasIds,
    Naming,
    Persons,
    alias_ids,
    group_persons,
    lookup_names,
    normal_id,
)
from builder.planning.people import read_aliases

KEY = Key(b"0123456789abcdef")
COLUMNS = ("patient_id", "issuer_of_patient_id", "study_uid", "patient_sex", "patient_birth_date")


def table(rows: Sequence[tuple[str | int | None, ...]]) -> pa.Table:
    """Rows of (patient_id, issuer, study[, sex, birth date[, source]])."""
    full = [dict(zip((*COLUMNS, "source"), (*row, *[None] * (5 - len(row)), 0)[:6], strict=True)) for row in rows]
    for made, row in zip(full, rows, strict=True):
        made["source"] = row[5] if len(row) > 5 else 0
    return pa.Table.from_pylist(full, schema=pa.schema([*((c, pa.string()) for c in COLUMNS), ("source", pa.int32())]))


def ids(*names: str) -> pa.Table:
    """One study for each PatientID."""
    return table([(name, None, str(number)) for number, name in enumerate(names)])


def joined(*rows: tuple[str, ...], site: str | None = None) -> list[AliasIds]:
    return [AliasIds(site, tuple(enumerate(rows, start=2)))]


def person_of(persons: Persons, name: str, *, issuer: str | None = None, source: int = 0) -> str:
    return persons.keys[persons.naming.identity(name, issuer, "none", source)]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_ids_have_the_form_that_any_other_text_has(text: str) -> None:
    """An invisible character more makes the text take the way of all Unicode."""
    assert normal_id(text) == normal_id(text + "\u200b") == normal_id("\u200b" + text)


rows = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C", "D", "", None]), st.sampled_from([None, "H"]), st.sampled_from("123456")),
    min_size=1,
    max_size=25,
)


@given(rows=rows, order=st.randoms(use_true_random=False))
def test_persons_are_the_connected_components_in_any_order(rows, order):
    graph = nx.Graph()
    for patient, issuer, study in rows:
        who = Naming().identity(patient, issuer, study)
        graph.add_node(who)
        graph.add_edge(who, ("study", study, ""))
        if who[0] == "h" and ("", who[1]) in {Naming().identity(*row) for row in rows}:
            graph.add_edge(who, ("", who[1]))  # the only issuer of that id
    expected = {frozenset(n for n in part if len(n) == 2) for part in nx.connected_components(graph)}
    shuffled = list(rows)
    order.shuffle(shuffled)
    one, other = group_persons(table(rows), key=KEY), group_persons(table(shuffled), key=KEY)
    groups: dict[str, set] = {}
    for who, person in one.keys.items():
        groups.setdefault(person, set()).add(who)
    assert {frozenset(g) for g in groups.values()} == expected
    assert one == other
    assert all(person in names for person, names in one.members.items())
    names = [name for found in one.members.values() for name in found]
    assert len(names) == len(set(names)), "a name of two persons"


def test_objects_without_patient_id_are_their_study_own_person():
    persons = group_persons(table([("", None, "1"), (None, None, "2"), (" ", None, "1")]), key=KEY)
    assert len(persons.members) == 2


@pytest.mark.parametrize("name", ["ANONYMOUS", "0", "unknown", "Anonymized", " N/A ", "\uff35\uff2eknown"])
def test_a_placeholder_names_nobody(name: str):
    found = table([(name, None, "1"), (name, None, "2"), (name, "H", "1"), ("00", None, "3"), ("00", None, "4")])
    persons = group_persons(found, key=KEY)
    assert len(persons.members) == 3
    assert persons.counts()["placeholder_ids"] == 1
    assert persons.counts()["studies_under_them"] == 2
    asked = group_persons(found, key=KEY, naming=Naming(placeholders=frozenset()))
    assert len(asked.members) == 2, "the spec says that it is somebody"
    assert "placeholder_ids" not in asked.counts()


def test_no_number_but_zero_is_a_placeholder():
    assert [name for name in PLACEHOLDERS if name.isdigit()] == ["0"]


SPELLINGS = {
    "NFC and NFD": (unicodedata.normalize("NFC", "MÜL-1"), unicodedata.normalize("NFD", "MÜL-1")),
    "case": ("ab1", "AB1"),
    "sharp s": ("Straße", "STRASSE"),
    "blanks at the ends": ("A1", "  A1 "),
    "no-break space": ("A1", "A1\u00a0"),
    "NUL padding": ("A1", "A1\0\0"),
    "full width": ("A1", "\uff21\uff11"),
    "zero width": ("A1", "A\u200b1"),
    "byte order mark": ("A1", "\ufeffA1"),
    "soft hyphen": ("AB1", "A\u00adB1"),
    "two blanks within": ("A 1", "A  1"),
    "tab within": ("A 1", "A\t1"),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_one_id_written_in_two_ways_is_one_id(kind: str):
    persons = group_persons(ids(*SPELLINGS[kind]), key=KEY)
    assert persons.counts()["persons"] == persons.counts()["patient_ids"] == 1
    stripped = len({text.strip() for text in SPELLINGS[kind]}) > 1
    assert persons.counts().get("spelling", 0) == int(stripped), "told, where more than blanks at the ends differs"


@pytest.mark.parametrize("two", [("A1", "A2"), ("A-1", "A1"), ("A1", "A 1"), ("Ä1", "A1"), ("0", "O"), ("1", "l")])
def test_other_ids_are_other_persons(two: tuple[str, str]):
    assert len(group_persons(ids(*two), key=KEY, naming=Naming(placeholders=frozenset())).members) == 2


def test_a_patient_id_belongs_to_its_issuer():
    found = table([("1", "NORTH", "a"), ("1", "SOUTH", "b"), ("1", "north ", "c")])
    assert len(group_persons(found, key=KEY).members) == 2


def test_a_blank_issuer_is_the_only_issuer_of_that_id_at_the_site():
    persons = group_persons(table([("1", None, "a"), ("1", "H", "b"), ("2", None, "c")]), key=KEY)
    assert len(persons.members) == 2
    assert persons.counts()["blank_issuer"] == 1
    apart = table([("1", None, "a", None, None, 0), ("1", "H", "b", None, None, 1)])
    assert len(group_persons(apart, key=KEY, naming=Naming(sites=("north", "south"))).members) == 2


def test_a_blank_issuer_of_several_is_dealt_with_all_of_them():
    persons = group_persons(table([("1", None, "a"), ("1", "H", "b"), ("1", "K", "c"), ("2", "K", "d")]), key=KEY)
    assert len(persons.members) == 4
    assert persons.together == (tuple(sorted(person_of(persons, "1", issuer=i) for i in (None, "H", "K"))),)
    assert persons.counts()["unclear_issuer"] == 1


def test_sites_that_both_count_from_one_have_other_patients():
    found = table([(f"{n:03}", None, f"{source}.{n}", None, None, source) for n in range(1, 7) for source in (0, 1)])
    persons = group_persons(found, key=KEY, naming=Naming(sites=("north", "south")))
    assert len(persons.members) == 12
    assert not persons.conflicts
    one = group_persons(found, key=KEY, naming=Naming(sites=("north", "North ")))
    assert len(one.members) == 6, "one site, written in two ways"


Homes = tuple[tuple[str, str | None, int], ...]
"""PatientID, issuer and source of studies, one each."""
BOTH_FROM_ONE: dict[str, tuple[Homes, dict[str, Any], int]] = {
    "two sites": ((("001", None, 0), ("001", None, 1)), {"sites": ("north", "south")}, 2),
    "three sites": ((("001", None, 0), ("001", None, 1), ("001", None, 2)), {"sites": ("n", "s", "w")}, 3),
    "two sources of one site": ((("001", None, 0), ("001", None, 1)), {"sites": ("north", "north")}, 1),
    "a site written in two ways": ((("001", None, 0), ("001", None, 1)), {"sites": ("Süd", "SU\u0308D ")}, 1),
    "one site stated, one not": ((("001", None, 0), ("001", None, 1)), {"sites": ("north", None)}, 2),
    "one issuer at two sites": ((("001", "H", 0), ("001", "h ", 1)), {"sites": ("north", "south")}, 1),
    "two issuers at one site": ((("001", "H", 0), ("001", "K", 0)), {"sites": ("north",)}, 2),
    "an issuer at one site alone": ((("001", "H", 0), ("001", None, 1)), {"sites": ("north", "south")}, 2),
    "an issuer that is called like a site": ((("001", "south", 0), ("001", None, 1)), {"sites": ("north", "south")}, 2),
    "another case at the other site": ((("a1", None, 0), ("A1", None, 1)), {"sites": ("north", "south")}, 2),
    "zeros joined within a site alone": (
        (("001", None, 0), ("1", None, 0), ("1", None, 1)),
        {"sites": ("north", "south"), "leading_zeros": "join"},
        2,
    ),
    "placeholders are nobody anywhere": ((("ANON", None, 0), ("ANON", None, 1)), {"sites": ("north", "south")}, 2),
    "shared ids do not open sites": (
        (("001", None, 0), ("001", None, 1)),
        {"sites": ("north", "south"), "shared_ids": True},
        2,
    ),
    "no site, shared on request": (
        (("001", None, 0), ("001", None, 1)),
        {"sites": (None, None), "shared_ids": True},
        1,
    ),
}


@pytest.mark.parametrize("kind", BOTH_FROM_ONE)
def test_hospitals_that_both_count_from_one(kind: str):
    homes, options, persons = BOTH_FROM_ONE[kind]
    rows = [(name, issuer, f"study {n}", None, None, source) for n, (name, issuer, source) in enumerate(homes)]
    found = group_persons(table(rows), key=KEY, naming=Naming(**options))
    assert len(found.members) == persons
    assert len(group_persons(table(rows[::-1]), key=KEY, naming=Naming(**options)).members) == persons


def test_sources_without_site_share_ids_only_if_the_spec_says_so():
    found = table([("1", None, "a", None, None, 0), ("1", None, "b", None, None, 1), ("2", None, "c", None, None, 1)])
    with pytest.raises(SpecError, match=r"found 1 PatientID in several of the sources 0, 1 .*shared_ids: true"):
        group_persons(found, key=KEY, naming=Naming(sites=(None, None)))
    shared = group_persons(found, key=KEY, naming=Naming(sites=(None, None), shared_ids=True))
    assert len(shared.members) == 2
    assert len(group_persons(found, key=KEY, naming=Naming(sites=(None, "south"))).members) == 3
    same = table([("1", None, "a", None, None, 0), ("1", None, "a", None, None, 1), ("1", None, "b", None, None, 1)])
    proved = group_persons(same, key=KEY, naming=Naming(sites=(None, None)))
    assert len(proved.members) == 1, "a study in both sources proves it"
    with pytest.raises(SpecError, match="sources 0, 1"):  # but not one that is named after the patient
        group_persons(same, key=KEY, naming=Naming(sites=(None, None), named_studies=frozenset({0, 1})))
    three = table([("1", None, s, None, None, n) for n, s in ((0, "a"), (1, "a"), (1, "b"), (2, "b"))])
    assert len(group_persons(three, key=KEY, naming=Naming(sites=(None, None, None))).members) == 1
    broken = table([("1", None, s, None, None, n) for n, s in ((0, "a"), (1, "a"), (2, "b"))])
    with pytest.raises(SpecError, match="sources 0, 1, 2"):
        group_persons(broken, key=KEY, naming=Naming(sites=(None, None, None)))


def test_lost_zeros_are_counted_and_merged_only_if_the_spec_says_so():
    found = ids("0017", "17", "018", "A07", "A7")
    persons = group_persons(found, key=KEY)
    assert len(persons.members) == 5
    assert persons.counts()["differ_in_leading_zeros"] == 1
    joined = group_persons(found, key=KEY, naming=Naming(leading_zeros="join"))
    assert len(joined.members) == 4
    assert "differ_in_leading_zeros" not in joined.counts()
    assert joined.counts()["leading_zeros"] == 1
    assert "differ_in_leading_zeros" not in group_persons(found, key=KEY, naming=Naming(leading_zeros="distinct")).notes


def test_aliases_merge_over_any_number_of_hops_and_are_reported():
    found = table([("A", None, "1"), ("B", "H", "2"), ("C", None, "3"), ("D", None, "4"), ("E", None, "5")])
    chain = joined(("A", "x1"), ("x1", "x2"), ("B", "x3"), ("x3", "x2"), ("D", "E"))
    persons = group_persons(found, aliases=chain, key=KEY)
    assert len(persons.members) == 3
    assert person_of(persons, "A") == person_of(persons, "B", issuer="H")
    assert persons.counts()["unknown_aliases"] == 3
    assert persons.counts()["alias"] == 2
    assert persons.counts()["patient_ids"] == 5
    assert len(persons.members[person_of(persons, "A")]) > 4, "ids without images are names of the person too"


def test_an_alias_id_without_images_is_recognised_under_the_names_it_had():
    before = group_persons(ids("OLD", "Z"), key=KEY)
    after = group_persons(ids("NEW", "Z"), aliases=joined(("OLD", "NEW")), key=KEY)
    assert set(before.members[person_of(before, "OLD")]) <= set(after.members[person_of(after, "NEW")])
    sites = Naming(sites=("north",))
    before = group_persons(ids("OLD"), key=KEY, naming=sites)
    after = group_persons(ids("NEW"), aliases=joined(("old", "NEW")), key=KEY, naming=sites)
    assert set(before.members[person_of(before, "OLD")]) & set(after.members[person_of(after, "NEW")])


def test_an_alias_that_means_two_persons_stops_and_its_site_tells():
    found = table([("1", None, "a", None, None, 0), ("1", None, "b", None, None, 1), ("N", None, "c", None, None, 0)])
    sites = Naming(sites=("north", "south"))
    with pytest.raises(SpecError, match=r"table 1: found 1 PatientID that several persons have.*site: NAME"):
        group_persons(found, aliases=joined(("1", "N")), key=KEY, naming=sites)
    persons = group_persons(found, aliases=joined(("1", "N"), site="North"), key=KEY, naming=sites)
    assert person_of(persons, "1") == person_of(persons, "N") != person_of(persons, "1", source=1)


def test_an_alias_that_lost_its_zeros_or_knows_nobody_stops():
    found = ids("0017", "N-9")
    with pytest.raises(SpecError, match=r"found 1 id .* with other leading zeros \(first in row 2\)"):
        group_persons(found, aliases=joined(("17", "N-9")), key=KEY)
    told = group_persons(found, aliases=joined(("17", "N-9")), key=KEY, naming=Naming(leading_zeros="distinct"))
    assert len(told.members) == 2
    with pytest.raises(SpecError, match="found 2 ids of which the archive has none"):
        group_persons(found, aliases=joined(("ZZZ", "YYY")), key=KEY)
    before = group_persons(ids("zzz"), key=KEY)
    remembered = [name for names in before.members.values() for name in names]
    absent = group_persons(found, aliases=joined(("ZZZ", "YYY")), key=KEY, remembered=remembered)
    assert absent.counts()["unknown_aliases"] == 2, "people of an earlier version, who are absent now"


KNOWN = {"0017", "n-9", "n-8"}
GOOD = {frozenset(("0017", "n-9")), frozenset(("0017", "n-8"))}
TABLES: dict[str, Any] = {
    "two columns": (("id", "alias"), [("0017", "N-9"), ("0017", "N-8")]),
    "any headings": (("Fall", "frueher"), [("0017", "N-9"), ("0017", "N-8")]),
    "no heading": (("0017", "N-9"), [("0017", "N-8")]),
    "a note": (("id", "alias", "note"), [("0017", "N-9", "same"), ("0017", "N-8", "same")]),
    "a name": (("Patient ID", "Patient Name", "MRN"), [("0017", "X", "N-9"), ("0017", "X", "N-8")]),
    "blank pair": (("id", "alias"), [("", ""), ("0017", "N-9"), ("0017", "N-8")]),
    "no second": (("id", "alias"), [("0017", ""), ("0017", "N-9"), ("0017", "N-8")]),
    "placeholder": (("id", "alias"), [("0017", "UNKNOWN"), ("N-8", "unknown"), ("0017", "N-9"), ("0017", "N-8")]),
    "short rows": (("id", "alias", "alias2"), [("0017", "N-9"), ("0017", "N-8")]),
    "case": (("id", "alias"), [("0017", "n-9"), ("0017", "n-8")]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_row_of_an_alias_table_is_used_or_counted(kind: str):
    headings, written = TABLES[kind]
    rows = list(enumerate(written, start=2))
    placeholders = Naming().placeholders
    found = alias_ids(headings, rows, options=Aliases(url="t"), placeholders=placeholders, known=KNOWN)
    assert {frozenset(i.casefold() for i in row) for _, row in found.rows} == GOOD
    assert len(found.lone) == {"no second": 1, "placeholder": 2}.get(kind, 0)
    assert found.columns_left == {"a note": ("note",), "a name": ("Patient Name",)}.get(kind, ())


def test_a_wide_alias_table_joins_whole_rows():
    rows = [(2, ("0017", "N-9", "N-8")), (3, ("18", "N-7", ""))]
    found = alias_ids(("id", "alias1", "alias2"), rows, options=Aliases(url="t"), placeholders=(), known=KNOWN)
    assert [row for _, row in found.rows] == [("0017", "N-9", "N-8"), ("18", "N-7")]


def test_columns_of_an_alias_table_must_be_certain():
    rows = [(2, ("a", "b", "c"))]
    wide = ("id", "y", "z")
    for headings, columns in ((("one",), ()), (("x", "y", "z"), ()), (wide, ("id", "w")), (wide, ("id",))):
        with pytest.raises(SpecError, match="found the columns"):
            alias_ids(headings, rows, options=Aliases(url="t", columns=columns), placeholders=(), known=())
    chosen = alias_ids(("x", "y", "z"), rows, options=Aliases(url="t", columns=("x", "z")), placeholders=(), known=())
    assert [row for _, row in chosen.rows] == [("a", "c")]


def test_one_id_with_two_sexes_is_reported_not_divided():
    persons = group_persons(table([("A", None, "1", "F", "19500101"), ("A", None, "2", "M", "19600101")]), key=KEY)
    assert len(persons.members) == 1
    assert {(c.kind, c.count) for c in persons.conflicts} == {("sex", 2), ("birth_date", 2)}


def test_the_key_changes_every_name_and_no_name_shows_the_id():
    rows = table([("SECRET", None, "1")])
    one = group_persons(rows, key=KEY)
    other = group_persons(rows, key=Key(b"another key 0123"))
    assert set(one.members).isdisjoint(other.members)
    assert "SECRET" not in str(one.members)
    assert one.spellings == {"SECRET"}, "what leaves is searched for it"


def test_names_of_older_releases_stay_where_no_site_is_stated():
    rows = table([("P1", None, "1"), ("P2", "H", "2"), ("P3", None, "3", None, None, 1), ("", None, "4")])
    persons = group_persons(rows, key=KEY, naming=Naming(sites=(None, "north")))
    old = {name: KEY.name("patient", *name) for name in (("", "P1"), ("H", "P2"), ("", "P3"), ("\0study", "4"))}
    assert {old["", "P1"], old["H", "P2"], old["\0study", "4"]} < set(persons.members)
    assert person_of(persons, "P3", source=1) not in old.values()
    assert persons.former == {person_of(persons, "P3", source=1): (old["", "P3"],)}


@pytest.mark.parametrize(("typed", "issuer"), [("P3", ""), ("p3", ""), (" P3", ""), ("P2", "H"), ("P1", "")])
def test_a_patient_id_is_looked_up_as_somebody_types_it(typed: str, issuer: str):
    rows = table([("P1", None, "1"), ("P2", "H", "2"), ("P3", None, "3", None, None, 1)])
    persons = group_persons(rows, key=KEY, naming=Naming(sites=(None, "north")))
    wanted = {"1": person_of(persons, "P1"), "2": person_of(persons, "P2", issuer="H")}
    wanted["3"] = person_of(persons, "P3", source=1)
    names = lookup_names(KEY, typed, (None, "north"), issuer)
    hits = {person for person, members in persons.members.items() if names & set(members)}
    assert hits == {wanted[typed.strip()[1]]}


def test_a_stack_that_names_its_patient_by_parts_is_its_study_person():
    persons = group_persons(table([("A", None, "1"), (None, "H", "1"), ("B", None, "2")]), key=KEY)
    asked = table([("A", "H", "1"), (None, None, None), ("B", None, None), ("never", None, "2")])
    a, b = person_of(persons, "A"), person_of(persons, "B")
    assert persons.keys_of(asked) == [a, None, b, b]


ALIASES = "id,alias,note\nŁódź-7,A1,ö\nA1,B1,ö\n"
IDS = frozenset(("łódź-7", "a1", "b1"))


@pytest.mark.parametrize(
    ("encoding", "stated", "joined_rows"),
    [
        ("utf-8", False, 2),
        ("utf-8-sig", False, 2),
        ("utf-16", False, 2),
        ("utf-16-le", False, 2),
        ("utf-16-be", False, 2),
        ("cp1250", True, 2),
        ("iso8859_2", True, 2),
        ("cp1250", False, 0),
    ],
)
def test_an_alias_table_is_read_in_any_encoding_or_refused_by_its_name(
    tmp_path: Path, encoding: str, stated: bool, joined_rows: int
) -> None:
    (tmp_path / "alias.csv").write_bytes(ALIASES.encode(encoding))
    options = Aliases(url=str(tmp_path / "alias.csv"), encoding=encoding if stated else None)
    if not joined_rows:
        with pytest.raises(SpecError, match=r"persons.aliases, table 1 \(alias.csv\): found bytes .* encoding"):
            read_aliases(options, 1, Naming(), IDS)
        return
    found = read_aliases(options, 1, Naming(), IDS)
    assert found.rows == ((2, ("Łódź-7", "A1")), (3, ("A1", "B1")))
    assert found.columns_left == ("note",)
    persons = group_persons(ids("ŁÓDŹ-7", "a1", "B1", "C1"), key=KEY, aliases=[found])
    assert len(persons.members) == 2


def test_an_alias_table_of_a_western_office_is_read_as_windows_1252(tmp_path: Path) -> None:
    (tmp_path / "alias.csv").write_bytes("id;alias\nMüller-1;P1\n".encode("cp1252"))
    found = read_aliases(Aliases(url=str(tmp_path / "alias.csv")), 1, Naming(), {"müller-1", "p1"})
    assert found.rows == ((2, ("Müller-1", "P1")),)


def test_an_alias_table_in_an_encoding_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alias.csv").write_bytes(ALIASES.encode())
    with pytest.raises(SpecError, match=r"alias.csv\): found the encoding 'utf-88', expected a name such as cp1250"):
        read_aliases(Aliases(url=str(tmp_path / "alias.csv"), encoding="utf-88"), 1, Naming(), IDS)
