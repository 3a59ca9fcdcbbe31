"""What became of every file of a small archive that holds one of each: worked out by hand, down to the last count."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.errors import LayoutError, Reason
from builder.model.keyed import Key
from builder.model.layout import EXCLUSIONS, LEDGER
from builder.model.tables import INSTANCES
from builder.persons import Naming, Persons
from builder.publishing.accounts import account, keep_accounts
from builder.publishing.ledger import Totals, check_totals

KEY = Key(b"0123456789abcdef")
SHARD, OTHER = "f" * 32, "e" * 32


def rows_of(*rows: dict[str, Any]) -> pa.Table:
    empty = {"source": 0, "path": "", "member": "", "patient_id": "P1", "study_uid": "1.1", "series_uid": "1.1.1"}
    return pa.Table.from_pylist([{**empty, **row} for row in rows], schema=INSTANCES)


def image(uid: str, series: str = "1.1.1", **more: Any) -> dict[str, Any]:
    return {"path": uid, "sop_instance_uid": uid, "series_uid": series, "status": "image", **more}


def stack(case: str, series: str, holders: list[int], counts: list[int], **more: Any) -> dict[str, Any]:
    decided = {"included": True, "rule": None, "reason": None, "detail": None}
    named = {"series_key": f"k{series}", "person_key": "person", "case_key": case, "series_uid": series}
    return {**named, "holders": holders, "holder_instances": counts, **decided, **more}


COHORT = [
    stack("used", "1", [0], [2]),
    stack("lost", "2", [0], [1]),
    stack("sheared", "3", [0], [1], included=False, rule="geometry", reason="gap", detail="a gap"),
    # a second stack of the same object, unused as well: the first decides
    stack("sheared too", "3", [0], [1], included=False, rule="image", reason="not_selected"),
    stack("unwanted", "4", [0], [1], included=False, rule="image", reason="not_selected"),
    # three stacks share one multi-frame object (number 0): the second is the first that is used, and decides
    stack("first", "5", [0], [1], included=False, rule="image", reason="not_selected"),
    stack("second", "5", [0, 1], [1, 2]),
    stack("third", "5", [0], [1]),
]
CHUNK = [
    *(image(uid, "1") for uid in ("a1", "a2")),
    image("b1", "2"),
    image("c1", "3"),
    image("d1", "4"),
    *(image(uid, "5") for uid in ("e0", "e1", "e2")),
    image("n1", "6"),
    image("n2", "6"),
]
MEMBERS = [("1", 0), ("1", 0), ("2", 0), ("3", 0), ("4", 0), ("5", 0), ("5", 1), ("5", 1), ("6", 0), ("6", 0)]
NOTES: list[dict[str, Any]] = [
    {"path": "label", "sop_instance_uid": "l1"},
    {"path": "label of a lost case", "sop_instance_uid": "l2"},
    {"path": "label of both", "sop_instance_uid": "l3"},
    {"path": "of nobody.nii", "patient_id": None, "study_uid": None, "series_uid": None},
]
LINKS = [(0, "used"), (0, "third"), (1, "lost"), (2, "lost"), (2, "second"), (2, "lost")]
LEFT: list[dict[str, Any]] = [
    {"path": "again", "sop_instance_uid": "a1", "status": "duplicate", "reason": "same_content"},
    {"path": "broken", "status": "quarantined", "study_uid": None, "patient_id": None},
]


@dataclass
class World:
    """Stands for inventory, survey and plan."""

    files: int = len(CHUNK) + len(NOTES) + len(LEFT)
    chunks: tuple[str, ...] = ("only",)
    withdrawn: tuple[()] = ()
    chunk_rows: list[dict[str, Any]] = field(default_factory=lambda: CHUNK)

    def chunk(self, number: int, *, columns: Any) -> pa.Table:
        return rows_of(*self.chunk_rows).select(columns)

    def annotations(self, *, columns: Any) -> pa.Table:
        return rows_of(*NOTES).select(columns)

    def leftovers(self, *, columns: Any) -> pa.Table:
        return rows_of(*LEFT).select(columns)

    def membership(self, number: int) -> pa.Table:
        return pa.table({"series": [s for s, _ in MEMBERS], "stack": [n for _, n in MEMBERS]})


def plan() -> Any:
    named = Naming()
    keys = {named.identity(p, None, s, 0): f"person {p}" for p, s in (("P1", "1.1"), (None, "1.1"))}
    cases = [SimpleNamespace(case_key=name) for name in ("used", "lost", "second")]
    return SimpleNamespace(
        cohort=pa.Table.from_pylist(COHORT),
        shards=[
            SimpleNamespace(fingerprint=SHARD, cases=cases),
            SimpleNamespace(fingerprint=OTHER, cases=[SimpleNamespace(case_key="third")]),
        ],
        links=pa.table({"annotation": [n for n, _ in LINKS], "case_key": [c for _, c in LINKS]}),
        annotations=rows_of(*NOTES),
        persons=Persons(keys, {}, ()),
        key=KEY,
    )


def receipts() -> Any:
    lost = SimpleNamespace(case_key="lost", reason=Reason.TOO_LARGE, detail="too large")
    return {SHARD: SimpleNamespace(excluded=(lost,)), OTHER: SimpleNamespace(excluded=())}


def test_every_file_has_one_fate() -> None:
    world: Any = World()
    found = account(plan(), receipts(), world, world)
    fates = {
        row["object_key"]: (row["status"], row["stage"], row["reason"], row["shard"])
        for row in found.ledger.to_pylist()
        if row["status"] != "duplicate"
    }
    used = ("used", None, None, SHARD)
    label = ("label", None, None, SHARD)
    assert fates == {
        **{KEY.name("object", uid): used for uid in ("a1", "a2", "e0", "e1", "e2")},
        KEY.name("object", "b1"): ("quarantined", "shard", "too_large", None),
        KEY.name("object", "c1"): ("quarantined", "cohort", "gap", None),
        KEY.name("object", "d1"): ("excluded", "cohort", "not_selected", None),
        **{KEY.name("object", uid): ("excluded", "survey", "not_an_image", None) for uid in ("n1", "n2")},
        KEY.name("object", "l1"): label,
        KEY.name("object", "l2"): ("quarantined", "shard", "too_large", None),
        KEY.name("object", "l3"): label,
        KEY.name("file", "0", "of nobody.nii", ""): ("excluded", "labels", "not_selected", None),
        KEY.name("file", "0", "broken", ""): ("quarantined", "index", None, None),
    }
    again = [row["reason"] for row in found.ledger.to_pylist() if row["status"] == "duplicate"]
    assert again == ["same_content"]
    assert found.ledger.num_rows == world.files
    keys = list(zip(*(found.ledger.column(name).to_pylist() for name in ("object_key", "status")), strict=True))
    assert keys == sorted(keys)


def test_images_of_sets_twins_and_files_that_nothing_reads() -> None:
    """A partner that another case uses is used; a twin is a duplicate; a volume that no layout knows says so."""
    out: dict[str, Any] = {"included": False, "serves": []}
    cohort = [
        stack("used", "1", [0], [2], serves=["used"]),
        stack("lost", "2", [0], [1], serves=["lost"]),
        stack("sheared", "3", [0], [1], rule="geometry", reason="gap", **out),
        stack("twin", "4", [0], [1], rule="twins", reason="duplicate_format", **out),
        stack("partner", "5", [0, 1], [1, 2], **{**out, "serves": ["lost", "used"]}),
    ]
    planned = plan()
    planned.cohort = pa.Table.from_pylist(cohort)
    planned.links = pa.table({"annotation": [0, 1], "case_key": ["used", "lost"]})
    planned.shards = [SimpleNamespace(fingerprint=SHARD, cases=[SimpleNamespace(case_key=n) for n in ("used", "lost")])]
    planned.annotations = rows_of(*({**row, "format": "nifti" if "nii" in row["path"] else "dicom"} for row in NOTES))
    world: Any = World()
    found = account(planned, {SHARD: receipts()[SHARD]}, world, world)
    fates = {row["object_key"]: (row["status"], row["reason"]) for row in found.ledger.to_pylist()}
    assert {fates[KEY.name("object", uid)] for uid in ("e0", "e1", "e2", "a2")} == {("used", None)}
    assert fates[KEY.name("object", "d1")] == ("duplicate", "duplicate_format")
    assert fates[KEY.name("object", "b1")] == ("quarantined", "too_large")
    left = {r["key"]: (r["rule"], r["instances"]) for r in found.exclusions.to_pylist()}
    assert left["lost"] == ("prepare", 1)  # its partner stays, for another case
    assert left[KEY.name("file", "0", "of nobody.nii", "")] == ("read_nifti", 0)


def test_totals_count_files_instances_and_what_they_belong_to() -> None:
    world: Any = World()
    totals = account(plan(), receipts(), world, world).totals
    assert totals["files"] == {"used": 5, "label": 2, "quarantined": 4, "excluded": 4, "duplicate": 1}
    assert totals["instances"] == {"used": 5, "label": 2, "quarantined": 3, "excluded": 3, "duplicate": 1}
    assert totals["series"] == {"used": 2, "label": 1, "quarantined": 2, "excluded": 2}
    assert totals["studies"] == {"used": 1}
    assert totals["persons"] == {"used": 1}
    assert list(totals) == ["files", "instances", "series", "studies", "persons"]


def test_every_exclusion_names_its_stage_rule_and_instances() -> None:
    world: Any = World()
    table = account(plan(), receipts(), world, world).exclusions
    found = {
        (r["level"], r["key"], r["stage"], r["rule"], r["reason"], r["detail"], r["instances"])
        for r in table.to_pylist()
    }
    assert found == {
        ("series", "k3", "cohort", "geometry", "gap", "a gap", 1),
        ("series", "k3", "cohort", "image", "not_selected", None, 0),
        ("series", "k4", "cohort", "image", "not_selected", None, 1),
        ("series", "k5", "cohort", "image", "not_selected", None, 0),
        ("series", KEY.name("series", "6"), "survey", "image", "not_an_image", None, 2),
        ("case", "lost", "shard", "prepare", "too_large", "too large", 1),
        ("file", KEY.name("file", "0", "again", ""), "index", "duplicate", "same_content", None, 1),
        ("file", KEY.name("file", "0", "broken", ""), "index", "readable", "unreadable", None, 0),
        ("file", KEY.name("file", "0", "of nobody.nii", ""), "labels", "linked", "not_selected", None, 0),
    }
    assert table.num_rows == len(found)
    order = [(r["level"], r["key"]) for r in table.to_pylist()]
    assert order == sorted(order)


def test_ledger_and_exclusions_are_kept_with_the_plan(tmp_path: Path) -> None:
    world: Any = World()
    made = account(plan(), receipts(), world, world)
    folder = tmp_path / "plan"
    planned: Any = SimpleNamespace(url=str(folder))
    keep_accounts(planned, made)
    assert pq.read_table(folder / LEDGER).equals(made.ledger)
    assert pq.read_table(folder / EXCLUSIONS).equals(made.exclusions)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("lost", [{"files": 16 + 1}, {"files": 16 - 1}])
def test_a_file_too_many_or_too_few_is_refused(lost: dict[str, Any]) -> None:
    world: Any = World(**lost)
    with pytest.raises(LayoutError, match=f"found 16 rows, expected {lost['files']}"):
        account(plan(), receipts(), world, world)


def test_instances_used_must_be_those_of_the_shards() -> None:
    totals = Totals()
    totals.files["used"] = totals.instances["used"] = 3
    check_totals(totals, files=3, published={"instances": 3})
    for wrong in (2, 4):
        with pytest.raises(LayoutError, match=f"found 3 used instances, expected {wrong}"):
            check_totals(totals, files=3, published={"instances": wrong})
