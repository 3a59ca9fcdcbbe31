"""The registry of a dataset keeps everybody, lists each person once, and notices another archive's persons."""

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.split.registry import (
    NAMED_BY_ID,
    NAMED_BY_NAMESPACE,
    Group,
    carry,
    check_people,
    faults,
    from_splits,
    join_registries,
    known_elsewhere,
    pinned,
    recognise,
)
from builder.split.registry_rows import REGISTRY_SCHEMA

NAMES = ("registry.parquet", "splits.parquet")


def row(person: str, split: str, *members: str, **more: object) -> dict[str, object]:
    base = {"moved_from": [], "present": True, "named_by": NAMED_BY_NAMESPACE, "birth_key": None, "sex_key": None}
    names = {"person_key": person, "members": sorted({person, *members}), "bare": []}
    return {**names, "split": split, **base, **more}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=REGISTRY_SCHEMA)


def with_studies(
    known: pa.Table, members: dict[str, tuple[str, ...]], dealt: dict[str, str], studies: dict[str, tuple[str, ...]]
) -> pa.Table:
    found = recognise(known, members, {}, studies)
    return carry(known, found, members, dealt, nothing, studies=studies)


def nothing(person: str, bound_to: str) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(), frozenset()


def facts_of(births: dict[str, str], sexes: dict[str, str] | None = None):
    """Facts that are bound to the row they are compared with."""

    def facts(person: str, bound_to: str) -> tuple[frozenset[str], frozenset[str]]:
        said = [(births or {}).get(person), (sexes or {}).get(person)]
        found = [frozenset() if value is None else frozenset({f"{bound_to}:{value}"}) for value in said]
        return found[0], found[1]

    return facts


def splits(**homes: str) -> pa.Table:
    return pa.table({"person_key": list(homes), "split": list(homes.values())})


def as_dict(registry: pa.Table) -> dict[str, tuple[str, bool, tuple[str, ...]]]:
    return {r["person_key"]: (r["split"], r["present"], tuple(r["members"])) for r in registry.to_pylist()}


def next_version(known: pa.Table, members: dict[str, tuple[str, ...]], dealt: dict[str, str], former=None) -> pa.Table:
    found = recognise(known, members, former or {})
    return carry(known, found, members, dealt, nothing)


def test_absent_persons_stay_as_tombstones_and_return_to_their_split():
    first = next_version(table(), {"a": ("a", "a1"), "b": ("b",)}, {"a": "test", "b": "train"})
    assert as_dict(first) == {"a": ("test", True, ("a", "a1")), "b": ("train", True, ("b",))}
    second = next_version(first, {"b": ("b",), "c": ("c",)}, {"b": "train", "c": "train"})
    assert as_dict(second)["a"] == ("test", False, ("a", "a1"))
    third = next_version(second, {"z": ("a1", "z")}, {})
    assert as_dict(third) == {
        "z": ("test", False, ("a", "a1", "z")),  # in the archive under another id, but not in the version
        "b": ("train", False, ("b",)),
        "c": ("train", False, ("c",)),
    }
    assert recognise(third, {"a": ("a",)}, {}) == {"a": (2,)}


def test_the_next_registry_is_the_same_when_nothing_changed():
    members = {"a": ("a", "a1"), "b": ("b",), "d": ("d",)}
    first = next_version(table(row("old", "test", present=False)), members, {"a": "test", "b": "train"})
    assert next_version(first, members, {"a": "test", "b": "train"}).equals(first)
    assert "d" not in as_dict(first), "who was never dealt is not in the registry"


def test_separated_persons_keep_the_split_and_every_name_is_kept():
    known = table(row("a", "test", "b", "c"))
    parted = next_version(known, {"a": ("a",), "b": ("b",)}, {"a": "test", "b": "test"})
    assert as_dict(parted) == {
        "a": ("test", True, ("a",)), "b": ("test", True, ("b",)), "c": ("test", False, ("c",)),
    }  # fmt: skip
    again = next_version(parted, {"a": ("a", "b", "c")}, {"a": "test"})
    assert as_dict(again) == {"a": ("test", True, ("a", "b", "c"))}


def test_persons_who_merge_are_noted_with_the_split_they_left():
    known = table(row("a", "test"), row("b", "train"))
    merged = next_version(known, {"a": ("a", "b")}, {"a": "train"}).to_pylist()
    assert [(r["person_key"], r["split"], r["moved_from"], r["members"]) for r in merged] == [
        ("a", "train", ["test"], ["a", "b"])
    ]
    again = next_version(pa.Table.from_pylist(merged, schema=REGISTRY_SCHEMA), {"a": ("a", "b")}, {"a": "train"})
    assert again.to_pylist() == merged, "the note stays"


def test_merged_persons_outside_the_version_keep_their_own_rows():
    known = table(row("a", "test"), row("b", "train"))
    out = next_version(known, {"a": ("a", "b")}, {})
    assert as_dict(out) == {"a": ("test", False, ("a",)), "b": ("train", False, ("b",))}


def test_registries_of_older_releases_know_persons_by_their_former_names():
    old = from_splits(pa.table({"person_key": ["001"], "members": [["001", "002"]], "split": ["test"]}))
    assert old["named_by"].to_pylist() == [NAMED_BY_ID]
    members: dict[str, tuple[str, ...]] = {"n1": ("n1",), "s1": ("s1",), "002": ("002",)}
    former: dict[str, tuple[str, ...]] = {"n1": ("001",), "s1": ("001",)}
    assert recognise(old, members, former) == dict.fromkeys(members, (0,))
    new = next_version(old, members, {"n1": "test", "s1": "test", "002": "test"}, former)
    assert as_dict(new) == {
        "001": ("test", False, ("001",)),
        "002": ("test", True, ("002",)),
        "n1": ("test", True, ("n1",)),
        "s1": ("test", True, ("s1",)),
    }
    assert recognise(new, {"t1": ("t1",)}, {"t1": ("001",)}) == {"t1": (0,)}, "who comes later is known too"
    assert recognise(new, {"t1": ("t1",)}, {"t1": ("n1",)}) == {}, "new rows are not known by former names"


def test_a_row_of_an_older_release_without_bare_names_is_found_by_its_members():
    old = from_splits(pa.table({"person_key": ["001"], "members": [["001", "002"]], "split": ["test"]}))
    old = old.set_column(old.schema.get_field_index("bare"), "bare", pa.nulls(1, old.schema.field("bare").type))
    assert known_elsewhere(old, {}, {"new": ("002",), "other": ("003",)}, nothing) == {"new": (0,)}


def test_a_former_name_does_not_join_a_row():
    old = from_splits(pa.table({"person_key": ["001"], "members": [["001", "x"]], "split": ["test"]}))
    new = next_version(old, {"n1": ("n1",)}, {"n1": "test"}, {"n1": ("001",)})
    assert as_dict(new) == {"001": ("test", False, ("001", "x")), "n1": ("test", True, ("n1",))}
    kept = next_version(old, {"001": ("001", "norm")}, {"001": "test"})
    assert as_dict(kept) == {"001": ("test", True, ("001", "norm", "x"))}


def test_the_spec_decides_conflicts():
    groups = {"a": Group(("a",), ("train",)), "b": Group(("b", "c"), ("test", "train")), "n": Group(("n",), ())}
    with pytest.raises(LayoutError, match="found 1 person who was dealt to several splits before, for instance b to"):
        pinned(groups, on_merge="stop")
    assert pinned(groups, on_merge="train").to_pylist() == [
        {"person_key": "a", "split": "train"}, {"person_key": "b", "split": "train"},
    ]  # fmt: skip
    assert pinned({"n": groups["n"]}, on_merge="stop").num_rows == 0


def test_an_archive_without_any_known_person_is_refused():
    known = table(row("a", "test"), row("b", "train", present=False))
    with pytest.raises(LayoutError, match="found none of the registry's 2 persons among the 3 persons"):
        check_people(known, {}, 3, nothing)
    check_people(known, {"b": (1,)}, 3, nothing)
    check_people(table(), {}, 3, nothing)
    check_people(known, {}, 0, nothing)


@pytest.mark.parametrize(
    ("wrong", "of", "refused"), [(1, 1, False), (1, 3, False), (2, 7, False), (2, 6, True), (3, 10, True)]
)
def test_other_people_under_the_same_ids_are_refused(wrong: int, of: int, refused: bool):
    people = [f"p{i:02}" for i in range(of)]
    known = table(*(row(p, "train", birth_key=f"{p}:1950", sex_key=f"{p}:F") for p in people))
    now = facts_of({p: "1970" if i < wrong else "1950" for i, p in enumerate(people)}, dict.fromkeys(people, "M"))
    found = recognise(known, {p: (p,) for p in people}, {})
    if refused:
        with pytest.raises(LayoutError, match=f"found another birth date or sex for {wrong} of {of} persons"):
            check_people(known, found, of, now)
    else:
        check_people(known, found, of, now)


def test_sex_is_compared_if_the_birth_date_is_missing_and_nothing_if_both_are():
    people = ["a", "b", "c", "d"]
    known = table(*(row(p, "train", sex_key=f"{p}:F") for p in people))
    found = recognise(known, {p: (p,) for p in people}, {})
    check_people(known, found, 4, facts_of({}, dict.fromkeys(people, "F")))
    check_people(known, found, 4, nothing)
    with pytest.raises(LayoutError, match="for 4 of 4"):
        check_people(known, found, 4, facts_of({}, dict.fromkeys(people, "M")))


def test_facts_are_bound_to_the_person_and_stay_when_the_archive_loses_them():
    facts = facts_of({"a": "1950"}, {"a": "F"})
    first = carry(table(), {}, {"a": ("a",)}, {"a": "test"}, facts).to_pylist()[0]
    assert (first["birth_key"], first["sex_key"]) == ("a:1950", "a:F")
    later = carry(table(first), {"a": (0,)}, {"a": ("a",)}, {"a": "test"}, nothing).to_pylist()[0]
    assert (later["birth_key"], later["sex_key"]) == ("a:1950", "a:F")
    gone = carry(table(row("a", "test", "b", birth_key="a:1950")), {"a": (0,), "b": (0,)}, {"a": ("a",), "b": ("b",)},
                 {"b": "test"}, nothing).to_pylist()  # fmt: skip
    assert [(r["person_key"], r["birth_key"]) for r in gone] == [("a", "a:1950"), ("b", None)]


def test_a_study_tells_who_somebody_is_under_another_id():
    first = with_studies(table(), {"a": ("a",)}, {"a": "test"}, {"a": ("s", "t")})
    corrected = with_studies(first, {"b": ("b",)}, {"b": "test"}, {"b": ("t", "u")})
    assert as_dict(corrected) == {"b": ("test", True, ("a", "b"))}
    assert corrected["studies"].to_pylist() == [["s", "t", "u"]]
    assert recognise(corrected, {"c": ("c",)}, {}, {"c": ("s",)}) == {"c": (0,)}
    assert recognise(corrected, {"c": ("c",)}, {}, {"c": ("x",)}) == {}


def test_a_study_that_goes_over_to_somebody_else_is_theirs_alone():
    known = table(row("a", "test", studies=["s", "t"]), row("b", "test", studies=["u"]))
    here: dict[str, tuple[str, ...]] = {"a": ("t",), "b": ("s",)}
    members: dict[str, tuple[str, ...]] = {"a": ("a",), "b": ("b",)}
    assert recognise(known, members, {}, here) == {"a": (0,), "b": (0, 1)}
    later = with_studies(known, members, dict.fromkeys(members, "test"), here)
    assert as_dict(later) == {"a": ("test", True, ("a",)), "b": ("test", True, ("b",))}
    assert later["studies"].to_pylist() == [["t"], ["s", "u"]]
    one = table(row("a", "test", "b", studies=["s", "t", "v"]))
    apart = with_studies(one, members, dict.fromkeys(members, "test"), {"b": ("t",)})
    assert apart["studies"].to_pylist() == [["s", "v"], ["t"]], "whoever has the row's name keeps what nobody has now"
    parted = with_studies(known, {"c": ("c",)}, {"c": "test"}, {"c": ("u",)})
    assert parted["studies"].to_pylist() == [["s", "t"], ["u"]], "who is absent keeps the studies"


def test_another_dataset_adds_unknown_persons_and_must_agree_on_known_ones():
    own, other = table(row("a", "test")), table(row("a", "test", "x"), row("b", "train"))
    joined = join_registries(own, other)
    assert as_dict(joined) == {"a": ("test", True, ("a", "x")), "b": ("train", False, ("b",))}
    with pytest.raises(LayoutError, match="found 1 person whom that dataset has in other splits"):
        join_registries(own, table(row("x", "train", "a")))
    assert as_dict(join_registries(table(), other))["a"] == ("test", False, ("a", "x"))
    by_study = join_registries(table(row("a", "test", studies=["s"])), table(row("z", "test", studies=["s", "t"])))
    assert as_dict(by_study) == {"a": ("test", True, ("a", "z"))}
    assert by_study["studies"].to_pylist() == [["s", "t"]]
    with pytest.raises(LayoutError, match="in other splits"):
        join_registries(table(row("a", "test", studies=["s"])), table(row("z", "train", studies=["s"])))


def test_faults_of_a_registry_are_reported():
    sound = table(row("a", "test", "a1"), row("b", "train", present=False))
    assert list(faults(sound, splits(a="test"), named=NAMES)) == []
    cases = {
        "with two persons": (table(row("a", "test", "n"), row("b", "test", "n")), splits(a="test", b="test")),
        "found train for person a": (table(row("a", "train")), splits(a="test")),
        "found nobody for person a": (table(), splits(a="test")),
        "and absent for person a": (table(row("a", "test", present=False)), splits(a="test")),
        "the study s with two persons": (
            table(row("a", "test", studies=["s"]), row("b", "test", studies=["s"])),
            splits(a="test", b="test"),
        ),
        "found person a as present": (table(row("a", "test")), splits()),
        "without the own name": (table({**row("a", "test"), "members": ["b"]}), splits(a="test")),
    }
    for words, (registry, dealt) in cases.items():
        found = list(faults(registry, dealt, named=NAMES))
        assert len(found) == 1, words
        assert words in found[0]


def test_a_patient_id_under_another_site_is_known_unless_facts_contradict_or_the_row_is_taken():
    known = table(
        row("a", "test", bare=["1"], birth_key="a:1950"), row("b", "train", bare=["2"]), row("c", "train", bare=["1"])
    )
    bare = {"a2": ("1",), "b": ("2",), "new": ("3",), "b2": ("2",)}
    found = {"b": (1,)}
    assert known_elsewhere(known, found, bare, nothing) == {"a2": (0, 2)}, "row b knows b, so b2 is somebody else"
    assert known_elsewhere(known, found, bare, facts_of({"a2": "1950"})) == {"a2": (0, 2)}
    assert known_elsewhere(known, found, bare, facts_of({"a2": "1951"})) == {"a2": (2,)}
    kept = carry(known, {"a2": (0,)}, {"a2": ("a2",)}, {"a2": "test"}, nothing, bare=bare).to_pylist()
    assert [(r["person_key"], r["members"], r["bare"]) for r in kept if r["present"] and r["split"] == "test"] == [
        ("a2", ["a", "a2"], ["1"])
    ]


def test_bare_names_are_sorted():
    found = carry(table(), {}, {"a": ("a",)}, {"a": "test"}, nothing, bare={"a": [f"n{n}" for n in range(9, 0, -1)]})
    assert found["bare"].to_pylist() == [[f"n{n}" for n in range(1, 10)]]


def test_a_tombstone_that_takes_another_name_loses_facts_bound_to_the_former():
    known = table(row("a", "test", "b", "c", birth_key="a:1950", sex_key="a:F"))
    left = next_version(known, {"a": ("a",), "b": ("b",)}, {"a": "test", "b": "test"}).to_pylist()[2]
    assert (left["person_key"], left["birth_key"], left["sex_key"]) == ("c", None, None)
    absent = next_version(known, {"z": ("z",)}, {"z": "train"}).to_pylist()[0]
    assert (absent["person_key"], absent["birth_key"], absent["sex_key"]) == ("a", "a:1950", "a:F")
