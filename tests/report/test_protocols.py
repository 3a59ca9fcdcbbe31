"""How every image of a case was acquired, recounted by pandas from the published tables."""

from typing import Any

import numpy as np
import pyarrow as pa

from builder.model.canonical import canonical_json
from builder.report.protocols import protocols
from tests.report.recount import Book, numbers, spoiled
from tests.report.recount import protocols as recount_protocols

VISITS = ("before.ct", "before.pet", "after.ct", "after.pet")
ORDER = ("train", "test")
THICKNESSES = (0.5, 1.0, 1.25, 3.0, 5.0, 6.0, 0.0, -1.0, float("nan"))


def made(people: int = 60) -> tuple[pa.Table, pa.Table]:
    """Index and cohort of persons with three visits, whose middle one serves two cases; some lack a PET."""
    random = np.random.default_rng(11)
    cohort, index = [], []
    for person in range(people):
        cases = [f"case{person}-{n}" for n in range(2)]
        series: dict[tuple[int, str], str | None] = {}
        for visit, serves in enumerate((cases[:1], cases, cases[1:])):
            for image in ("ct", "pet"):
                key = f"{person}/{visit}/{image}"
                if image == "pet" and random.random() < 0.2:
                    series[visit, image] = None
                    continue
                series[visit, image] = key
                facts = {
                    "manufacturer_model": f"Model {random.integers(0, 12)}",
                    "kvp": [80.0, 90.0, 100.0, 120.0, None][random.integers(0, 5)] if image == "ct" else None,
                    "slice_thickness_mm": [0.5, 1.0, 1.25, 3.0, 5.0, 6.0, 0.0, -1.0, float("nan")][
                        random.integers(0, 9)
                    ],
                    "magnetic_field_strength": None,
                }
                cohort.append({"series_key": key, "case_key": key, "person_key": f"p{person}", "image_name": image,
                               "serves": serves, "included": True, **facts})  # fmt: skip
        for number, case in enumerate(cases):
            keys = {f"{v}.{i}.series_key": series[number + n, i] for n, v in enumerate(("before", "after"))
                    for i in ("ct", "pet")}  # fmt: skip
            row = {"case_key": case, "person_key": f"p{person}", "split": ORDER[person % 3 == 0], **keys}
            index += [{**row, "series_key": keys["before.ct.series_key"]}] * 2  # two samples
    table = pa.Table.from_pylist(cohort)
    place = table.schema.get_field_index("magnetic_field_strength")
    unknown = pa.nulls(len(table), pa.float64())
    return pa.Table.from_pylist(index), table.set_column(place, "magnetic_field_strength", unknown)


def document(index: pa.Table, cohort: pa.Table, **options: Any) -> dict[str, Any]:
    found = protocols(index, cohort, VISITS, splits=ORDER, **options)
    canonical_json(found)
    return {"splits": [{"split": split} for split in ORDER], "protocols": found}


def complaints(told: dict[str, Any], index: pa.Table, cohort: pa.Table) -> dict[str, str]:
    book = Book(told)
    recount_protocols(book, index.to_pandas(), cohort.to_pandas())
    return book.complaints()


def test_every_number_is_recounted_and_a_changed_one_is_noticed():
    index, cohort = made()
    told = document(index, cohort)
    assert complaints(told, index, cohort) == {}
    assert [entry["image"] for entry in told["protocols"]] == [*VISITS]
    facts = [[fact["column"] for fact in entry["facts"]] for entry in told["protocols"]]
    assert facts[0] == ["manufacturer_model", "kvp", "slice_thickness_mm"]  # nobody's field strength is known
    assert facts[1] == ["manufacturer_model", "slice_thickness_mm"]
    (model,) = [fact for fact in told["protocols"][1]["facts"] if fact["column"] == "manufacturer_model"]
    assert len(model["levels"]) == 9  # seven models or "several", the others together, and no PET
    changed = spoiled(told)
    every = {path for path, _, _ in numbers(changed)}
    assert len(every) > 300
    assert every <= set(complaints(changed, index, cohort))


def test_bins_hold_their_upper_edge_and_few_persons_are_masked():
    index, cohort = made()
    thin = cohort.slice(0, 0)
    assert protocols(index, cohort, ("ct",), splits=ORDER) == []
    assert all(entry["facts"] == [] for entry in protocols(index, thin, VISITS, splits=ORDER))
    told = document(index, cohort, mask_below=8)
    levels = [row for entry in told["protocols"] for fact in entry["facts"] for row in fact["levels"]]
    shown = [cell["count"] for row in levels for cell in row["cells"].values()]
    assert None in shown
    assert not any(count is not None and 0 < count < 8 for count in shown)
    names = {row["level"] for row in levels}
    assert {"0 to 1 mm", "1 to 2 mm", "3 to 5 mm", "over 5 mm", "50 to 90 kV", "90 to 110 kV"} <= names
