"""The attack on a built dataset: who knows one person's scan date learns nobody else's from what is published."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.model.parquet import read_parquet
from builder.run.pipeline import build
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series, rtstruct

CAMPAIGN, END = date(2015, 11, 17), date(2020, 6, 29)
SCANS = [date(2011, 3, 5) + timedelta(days=d) for d in (0, 37, 113, 222, 391, 505, 777, 1021)]
BIRTHS = [date(1951, 2, 3) + timedelta(days=977 * n) for n in range(8)]
OWN = {6: SCANS[6] + timedelta(days=19), 7: SCANS[7] + timedelta(days=44)}
"""Two persons' labels were drawn when they were treated; the others' in one campaign."""
PLACEHOLDERS = [date(1900, 1, 1), date(1970, 1, 1), date(1582, 10, 15), date(1858, 11, 17)]
SPEC = """
name: dates
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
clinical:
  - url: "{archive}.csv"
    person_id: id
    columns:
      birth: {{from: Birth, type: date}}
      seen: {{from: Seen, type: date}}
      relapse: {{from: Relapse, type: date}}
labels: {{tumor: {{kind: rtstruct, roi: {{lesion: "(?i)gtv"}}}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [{retain}], most_days: 3653}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0, outcomes: [seen, relapse]}}
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight persons: scans on days of their own, labels of one campaign but for two, one day on which all were seen."""
    folder = tmp_path_factory.mktemp("attack") / "archive"
    square = np.array([(x, y, -9.0) for x, y in ((-8.0, -8.0), (8.0, -8.0), (8.0, 8.0), (-8.0, 8.0))])
    rows = ["id,Birth,Seen,Relapse"]
    for number, scan in enumerate(SCANS):
        made = ct_series(folder / str(number), slices=4, shape=(16, 16), patient_id=f"P{number}", date=f"{scan:%Y%m%d}")
        structures = rtstruct(made, {"GTV": [square]})
        structures.StructureSetDate = structures.SeriesDate = f"{OWN.get(number, CAMPAIGN):%Y%m%d}"
        structures.save_as(folder / str(number) / "structures.dcm", enforce_file_format=True)
        rows.append(f"P{number},{BIRTHS[number]},{END},{scan + timedelta(days=100 + 31 * number)}")
    folder.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    return folder


def published(archive: Path, name: str, retain: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[int, float]]:
    """Column to person to the number that is published, of every table."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec = archive.parent / f"{name}.yaml"
    spec.write_text(SPEC.format(archive=archive, retain=retain))
    target = archive.parent / name
    build(spec, to=target)
    found: dict[str, dict[int, float]] = {}
    persons = _persons(target)
    for path in sorted(target.rglob("*.parquet")):
        table = read_parquet(path.read_bytes())
        if "person_key" in table.column_names:
            for column, person, value in _numbers(table, persons):
                found.setdefault(column, {})[person] = value
    return found


def _persons(target: Path) -> dict[str, int]:
    """Person key to number: the attacker of this test is told who is who, which is more than a real one knows."""
    private = target.with_name(f"{target.name}.private")
    names = {}
    for path in private.rglob("cohort.parquet"):
        rows = read_parquet(path.read_bytes())
        for key, day in zip(rows["person_key"].to_pylist(), rows["study_date"].to_pylist(), strict=True):
            names[key] = SCANS.index(day)
    assert len(names) == len(SCANS)
    return names


def _numbers(table: pa.Table, persons: dict[str, int]) -> Iterator[tuple[str, int, float]]:
    for field in table.schema:
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            for key, value in zip(table["person_key"].to_pylist(), table[field.name].to_pylist(), strict=True):
                if value is not None and float(value).is_integer() and abs(value) < 200_000:
                    yield field.name, persons[key], value


def recovered(found: dict[str, dict[int, float]], *, known: int | None) -> set[int]:
    """The persons one of whose dates follows from the numbers of a column and one known date, or a placeholder."""
    hit = set()
    for values in found.values():
        if known is None:
            anchors = PLACEHOLDERS
        elif known in values:
            anchors = [day + sign * timedelta(days=values[known]) for day in (SCANS[known], BIRTHS[known])
                       for sign in (1, -1)]  # fmt: skip
        else:
            continue
        for person, value in values.items():
            guesses = {a + sign * timedelta(days=value) for a in anchors for sign in (1, -1) if _fits(a, sign * value)}
            if value and guesses & {SCANS[person], BIRTHS[person]}:
                hit.add(person)
    return hit


def _fits(day: date, days: float) -> bool:
    return 0 < day.toordinal() + days < date.max.toordinal()


def test_by_default_nobody_is_recovered(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = published(archive, "default", "", monkeypatch)
    assert not [c for c in found if "day" in c or c in ("birth", "seen", "relapse")]
    (index,) = (archive.parent / "default").rglob("index.parquet")
    told = pq.read_table(index)
    for name in ("birth", "seen", "relapse"):
        assert told[name].null_count == told.num_rows, "declared, and told as nulls with a note"
        assert told.schema.field(name).metadata[b"note"] == b"not retained: name it in deid.retain and build again"
    assert recovered(found, known=None) == set()
    for person in range(len(SCANS)):
        assert recovered(found, known=person) <= {person}


def test_with_offsets_retained_nobody_but_the_known_person_is(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retain = "study_day, days_after_image, birth, seen, relapse"
    found = published(archive, "retained", retain, monkeypatch)
    assert found["evidence.tumor.days_after_image"] == {6: 19, 7: 44}
    assert found["relapse"] == {n: 100 + 31 * n for n in range(8)}
    assert set(found.get("birth", {}).values()) <= {-3654.0}  # "more than ten years before", for whom it is said at all
    assert not found.get("seen")
    assert recovered(found, known=None) == set()
    for person in range(len(SCANS)):
        assert recovered(found, known=person) <= {person}


def test_the_attack_works_where_days_to_a_campaign_are_published() -> None:
    days = {"days": {n: float((CAMPAIGN - scan).days) for n, scan in enumerate(SCANS)}}
    assert recovered(days, known=3) == set(range(8))
    since = {n: float((scan - PLACEHOLDERS[0]).days) for n, scan in enumerate(SCANS)}
    assert recovered({"days": since}, known=None) == set(range(8))
