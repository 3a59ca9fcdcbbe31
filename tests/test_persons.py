"""Identity resolution: order-free, and never more or less than the evidence says."""

import networkx as nx
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from builder.model.keyed import Key
from builder.persons import group_persons, identity

KEY = Key(b"0123456789abcdef")
COLUMNS = ("patient_id", "issuer_of_patient_id", "study_uid", "patient_sex", "patient_birth_date")


def table(rows: list[tuple[str | None, ...]]) -> pa.Table:
    full = [dict(zip(COLUMNS, (*row, *[None] * (5 - len(row))), strict=True)) for row in rows]
    return pa.Table.from_pylist(full, schema=pa.schema([(c, pa.string()) for c in COLUMNS]))


rows = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C", "D", "", None]), st.sampled_from([None, "H"]), st.sampled_from("123456")
    ),
    min_size=1,
    max_size=25,
)


@given(rows=rows, order=st.randoms(use_true_random=False))
def test_persons_are_the_connected_components_in_any_order(rows, order):
    graph = nx.Graph()
    for patient, issuer, study in rows:
        who = identity(patient, issuer, study)
        graph.add_node(who)
        graph.add_edge(who, ("study", study, ""))
    expected = {
        frozenset(n for n in part if len(n) == 2) for part in nx.connected_components(graph)
    }
    shuffled = list(rows)
    order.shuffle(shuffled)
    one, other = group_persons(table(rows), key=KEY), group_persons(table(shuffled), key=KEY)
    groups: dict[str, set] = {}
    for who, person in one.keys.items():
        groups.setdefault(person, set()).add(who)
    assert {frozenset(g) for g in groups.values()} == expected
    assert one == other


def test_objects_without_patient_id_are_their_study_own_person():
    persons = group_persons(table([("", None, "1"), (None, None, "2"), (" ", None, "1")]), key=KEY)
    assert len(persons.members) == 2


def test_aliases_merge_and_are_reported():
    persons = group_persons(table([("A", None, "1"), ("B", "H", "2"), ("C", None, "3")]), aliases=[("A", "B")], key=KEY)
    assert len(persons.members) == 2
    assert [c.kind for c in persons.conflicts] == ["alias"]


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
