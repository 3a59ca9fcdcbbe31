"""Plans of shards in which nothing changed are taken over from the plan before, and no others."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pydicom
import pytest

from builder.model.tables import INSTANCES
from builder.plan import LINKS, CasePlan
from builder.planning.case_plans import Chosen
from builder.planning.kept_plans import KNOWN, Keys
from builder.planning.latest import read_latest
from builder.planning.rows import IncludedStack, Placed
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.stages import gather, planned
from builder.stages.planned import plans_path
from builder.storage import open_store
from tests.endtoend.trees import KEY, tree
from tests.synthetic import box_contours, ct_series, pt_series, rtstruct

SETS: dict[str, Any] = {
    "cohort": {"images": {"ct": {"select": "modality == 'CT'"}, "pet": {"select": "modality == 'PT'"}}},
    "labels": {"tumor": {"kind": "rtstruct", "on": "pet", "roi": {"tumor": "GTV"}}},
    "transforms": [{"kind": "resample", "spacing_mm": [3.0, 1.5, 1.5]}, {"kind": "intensity", "dtype": "float32"}],
}
"""Cases of two images, some of them with a label."""


def write(archive: Path, numbers: Sequence[int]) -> None:
    """A CT, a PET and, of every other person, a tumour on the PET."""
    for number in numbers:
        where, name = archive / f"P{number}", f"P{number}"
        ct_series(where / "ct", patient_id=name, series=f"{number}a", study=f"{number}", frame=f"{number}",
                  slices=3, shape=(8, 8))  # fmt: skip
        found = pt_series(where / "pet", patient_id=name, series=f"{number}b", study=f"{number}", frame=f"{number}",
                          slices=3, shape=(8, 8))  # fmt: skip
        if number % 2:
            rtstruct(found, {"GTV": box_contours(found.geometry, (0, 2, 2), (3, 6, 6))}, directory=where)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write(tmp_path / "archive", range(6))
    return tmp_path / "archive"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of plans hold few lines."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setattr(planned, "FILE_BYTES", 20_000)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[CasePlan, ...]]:
    """The cases of each shard whose line was made, in place of being taken over."""
    made: list[tuple[CasePlan, ...]] = []
    write_line = planned.plan_line

    def noted(fingerprint: str, cases: Sequence[CasePlan], *rest: Any) -> bytes:
        made.append(tuple(cases))
        return write_line(fingerprint, cases, *rest)

    monkeypatch.setattr(gather, "plan_line", noted)
    return made


def made_plan(archive: Path, to: Path, *, cases: int = 1, **blocks: Any) -> tuple[dict[str, str], Any]:
    """The files of a plan, but for its report, and the plan."""
    spec = DatasetSpec.model_validate(
        {
            "name": "kept",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(archive)}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
            "shards": {"cases": cases},
            "splits": {"ratios": {"train": 1.0}},
            **blocks,
        }
    )
    made = plan(spec, to=to).plan
    return {name: sha for name, sha in tree(Path(made.url)).items() if not name.startswith("report")}, made


@pytest.mark.parametrize("blocks", [{}, SETS], ids=["one image", "several images and labels"])
@pytest.mark.parametrize("cases", [1, 7])
def test_only_shards_that_changed_are_made_and_all_equal_those_from_nothing(
    archive: Path, tmp_path: Path, lines: list[Any], cases: int, blocks: dict[str, Any]
) -> None:
    _, before = made_plan(archive, tmp_path / "grown", cases=cases, **blocks)
    assert len(lines) == len(before.shards)
    lines.clear()
    write(archive, [6, 7])
    found, now = made_plan(archive, tmp_path / "grown", cases=cases, **blocks)
    fresh = {s.fingerprint for s in now.shards} - {s.fingerprint for s in before.shards}
    assert len(lines) == len(fresh) > 0
    assert cases > 1 or len(fresh) < len(now.shards)
    anew, made = made_plan(archive, tmp_path / "anew", cases=cases, **blocks)
    assert found == anew
    assert repr(now.shards) == repr(made.shards)


def test_nothing_is_made_of_a_plan_that_is_made_again(archive: Path, tmp_path: Path, lines: list[Any]) -> None:
    first = made_plan(archive, tmp_path / "to", **SETS)
    lines.clear()
    assert made_plan(archive, tmp_path / "to", **SETS)[0] == first[0]
    assert not lines


def other_stamp(archive: Path) -> None:
    os.utime(sorted((archive / "P3/pet").iterdir())[0], (1, 1))


def other_path(archive: Path) -> None:
    (archive / "P3/pet").rename(archive / "P3/moved")


def other_header(archive: Path) -> None:
    path = sorted((archive / "P3/ct").iterdir())[1]
    dataset = pydicom.dcmread(path)
    dataset.SeriesDescription = "other"
    dataset.save_as(path)


def other_label(archive: Path) -> None:
    (path,) = (archive / "P3").glob("*.dcm")
    dataset = pydicom.dcmread(path)
    dataset.StructureSetLabel = "other"
    dataset.save_as(path)


@pytest.mark.parametrize("change", [other_stamp, other_path, other_header, other_label])
def test_a_cell_of_any_kind_that_changed_leads_to_a_new_line(
    archive: Path, tmp_path: Path, lines: list[Any], change: Callable[[Path], None]
) -> None:
    made_plan(archive, tmp_path / "to", **SETS)
    lines.clear()
    change(archive)
    write(archive, [9])  # so that the plan has another name, whatever its shards are called
    found, _ = made_plan(archive, tmp_path / "to", **SETS)
    assert len(lines) == 2
    assert found == made_plan(archive, tmp_path / "anew", **SETS)[0]


def test_another_spec_leads_to_new_lines(archive: Path, tmp_path: Path, lines: list[Any]) -> None:
    made_plan(archive, tmp_path / "to")
    lines.clear()
    made_plan(archive, tmp_path / "to", transforms=[{"kind": "intensity", "dtype": "float32"}])
    assert len(lines) == 6


def cut(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, flipped, None])
@pytest.mark.parametrize(("path", "most"), [(plans_path(0), 6), (KNOWN, 7)])
def test_what_is_damaged_is_made_anew(
    archive: Path, tmp_path: Path, lines: list[Any], damage: Callable[[bytes], bytes] | None, path: str, most: int
) -> None:
    _, before = made_plan(archive, tmp_path / "to")
    store = open_store(before.url)
    if damage is None:
        store.delete(path)
    else:
        store.put(path, damage(store.read(path)))
    lines.clear()
    write(archive, [6])
    found, _ = made_plan(archive, tmp_path / "to")
    assert 2 <= len(lines) <= most
    assert path != KNOWN or len(lines) == most
    lines.clear()
    assert found == made_plan(archive, tmp_path / "anew")[0]
    assert len(lines) == 7


def test_an_earlier_plan_that_is_gone_or_of_an_earlier_release_is_not_needed(
    archive: Path, tmp_path: Path, lines: list[Any]
) -> None:
    for number, name in enumerate((f"{KNOWN}", "")):
        _, before = made_plan(archive, tmp_path / "to")
        for path in list(open_store(before.url).list(name)) if not name else [name]:
            open_store(before.url).delete(path)
        lines.clear()
        write(archive, [6 + number])
        made_plan(archive, tmp_path / "to")
        assert len(lines) == 7 + number


def test_nothing_stays_of_who_is_no_longer_there(archive: Path, tmp_path: Path, lines: list[Any]) -> None:
    _, before = made_plan(archive, tmp_path / "to", cases=7, **SETS)
    gone = {pydicom.dcmread(p).SeriesInstanceUID for p in (archive / "P3").rglob("*.dcm")}
    assert any(uid in text_of(before.url) for uid in gone)
    shutil.rmtree(archive / "P3")
    lines.clear()
    _, now = made_plan(archive, tmp_path / "to", cases=7, **SETS)
    assert len(lines) > 0
    assert not any(uid in text_of(now.url) for uid in (*gone, "P3/"))


def test_rows_without_a_digest_and_other_faces_are_never_taken_for_known() -> None:
    stack = IncludedStack(
        "c", "k", "p", "s", 0, "CT", None, "regular", 2, 4, 4, 1, 1.0, 1.0, 1.0, "int16", True, 1, 2, None
    )
    chosen, case = Chosen({"": stack}, {"": Placed(0, "1.2", (0,), None)}), CasePlan("c", "p", "s", 0, 1, 2, 3)

    def key(*digests: str | None, of: CasePlan = case) -> bytes | None:
        rows = [{"chunk": 0, "series_uid": "1.2", "stack": 0, "rows_digest": digest} for digest in digests]
        return Keys(pa.Table.from_pylist(rows), INSTANCES.empty_table(), LINKS.empty_table(), "spec").of(
            [(of, chosen, ())]
        )

    assert key("a") == key("a", of=replace(case, input_bytes=9, peak_bytes=9, load_bytes=9))
    assert len({key("a"), key("b"), key("a", of=replace(case, face="d"))}) == 3
    assert key(None) is None
    assert key("a", "a") is None, "two stacks that nothing tells apart"


def text_of(url: str) -> str:
    return "".join(path.read_text() for path in sorted(Path(url, "shards").glob("*.jsonl")))


def test_the_latest_plan_is_taken_from(archive: Path, tmp_path: Path, lines: list[Any]) -> None:
    made_plan(archive, tmp_path / "to")
    shutil.move(archive / "P5", tmp_path / "P5")
    _, second = made_plan(archive, tmp_path / "to")
    latest = read_latest(open_store(tmp_path / "to.private"))
    assert latest is not None
    assert second.url.endswith(latest.plan)
    lines.clear()
    shutil.move(tmp_path / "P5", archive / "P5")
    write(archive, [6])
    made_plan(archive, tmp_path / "to")
    assert len(lines) == 2
