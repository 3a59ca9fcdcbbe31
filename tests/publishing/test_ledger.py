"""A ledger row says of its own file what the file's row says, whatever its neighbours share or lack."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from builder.model.keyed import Key
from builder.model.tables import INSTANCES, LEDGER
from builder.persons import Naming, Persons
from builder.publishing.ledger import OF_FILES, Fate, Fates, Totals, annotation_ledger

KEY = Key(b"0123456789abcdef")
SOME = st.sampled_from([None, "", "1.2.3", "1.2.4", " A "])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **{name: SOME for name in OF_FILES if name.endswith(("_uid", "_id"))},
            "source": st.integers(0, 2),
            "path": st.sampled_from(["a", "b/c"]),
            "member": st.sampled_from(["", "d"]),
        }
    ),
    max_size=12,
)
FATES = {(0, "a", ""): Fate("label", shard="f" * 32), (1, "a", "d"): Fate("quarantined", "shard", "broken")}


def named(kind: str, value: str | None) -> str | None:
    return KEY.name(kind, value) if value else None


@given(ROWS)
def test_every_row_by_itself(rows: list[dict]) -> None:
    who = [Naming().identity(r["patient_id"], r["issuer_of_patient_id"], r["study_uid"]) for r in rows]
    persons = Persons({one: KEY.name("patient", *one) for one in who}, {}, ())
    table = pa.Table.from_pylist(rows, schema=pa.schema([INSTANCES.field(name) for name in OF_FILES]))
    found = annotation_ledger(table, Fates({}, FATES), persons=persons, key=KEY)
    assert found.schema.equals(LEDGER, check_metadata=True)
    for row, one, cells in zip(rows, who, found.to_pylist(), strict=True):
        place = (row["source"], row["path"], row["member"])
        fate = FATES.get(place, Fate("excluded", "labels", "not_selected"))
        assert cells == {
            "object_key": named("object", row["sop_instance_uid"]) or KEY.name("file", *map(str, place)),
            "series_key": named("series", row["series_uid"]),
            "study_key": named("study", row["study_uid"]),
            "person_key": KEY.name("patient", *one) if row["study_uid"] or row["patient_id"] else None,
            "status": fate.status,
            "stage": fate.stage or None,
            "reason": fate.reason or None,
            "shard": fate.shard,
        }


def test_a_series_has_the_strongest_status_of_its_objects_whatever_their_order() -> None:
    rows = [("a", "excluded"), ("a", "used"), ("b", "duplicate"), ("a", "excluded"), ("b", "label"), (None, "used")]
    for order in (rows, rows[::-1]):
        table = pa.Table.from_pylist([{"series_key": k, "status": s} for k, s in order], schema=LEDGER)
        totals = Totals()
        totals.add(table, instances=True)
        assert totals.by_level()["series"] == {"used": 1, "label": 1}
        assert totals.by_level()["instances"] == {"used": 2, "label": 1, "excluded": 2, "duplicate": 1}
