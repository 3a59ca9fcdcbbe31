"""``builder volumes`` on every folder of the corpus: a golden table, and what the corpus' catalogue says of each."""

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import Reason
from builder.imaging.stacks.spacing import Verdict
from builder.library.volumes import write_volumes
from tests.imaging.bounds import bounded

Corpus = Callable[[str], Path]
HERE = Path(__file__).parent
GOLDEN, CATALOG = HERE / "verdicts.csv", HERE / "catalog.csv"
FIELDS = (
    *("archive", "folder", "place", "series", "stack", "modality", "split_rule", "verdict", "detail", "domain"),
    *("dtype", "notes", "findings", "reason", "reason_detail"),
)
PATIENTS = ("STS_003", "STS_008", "STS_041")
"""Of 34 patients of the sarcoma cohort these stand for all: with PET alone, and with CT and MR."""

FOLDERS = (
    *(("geometry", name) for name in (
        *("ct_ge_tilt18", "ct_philips_head_with_localizer", "d2n_awkward", "enhanced_mr", "fmri4d_ge"),
        *("mosaic_siemens", "multiecho_qt2", "orthanc_brainix", "orthanc_knix_localizer", "patient_positions"),
        "toshiba_mr_adc",
    )),
    *(("segmentation", name) for name in (
        *("dcmqi_seg_sr_pm", "highdicom_seg_sr", "lidc_0314_slab", "qin_hn_0024_pet_seg", "qin_prostate_adc_seg"),
        *("rtutils_ct_rtstruct", "ucsf_br06_dce4d"),
    )),
    *(("odd", name) for name in (
        *("dcmjs_misc", "deid_phi", "encapsulated_fragments", "odd_singles", "one_image_9_transfer_syntaxes"),
        "xray_mammo",
    )),
    ("sts", "sts001_raw"),
    *(("sts", f"sts_cohort/{patient}") for patient in PATIENTS),
)  # fmt: skip


def rows_of(path: Path, destination: Path, *, archive: str, folder: str) -> list[dict[str, str]]:
    """The verdicts of a folder as rows of the golden table."""
    table = write_volumes(path, destination).to_pylist()
    return [{name: _cell(row, name) for name in FIELDS} | {"archive": archive, "folder": folder} for row in table]


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get("folder" if name == "place" else name)
    return "; ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def golden() -> list[dict[str, str]]:
    with GOLDEN.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def catalog() -> list[dict[str, str]]:
    with CATALOG.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize(("archive", "folder"), FOLDERS)
def test_every_corpus_folder_has_its_golden_verdicts(archive: str, folder: str, corpus: Corpus, tmp_path: Path) -> None:
    found = rows_of(corpus(archive) / folder, tmp_path, archive=archive, folder=folder)
    assert found == [row for row in golden() if (row["archive"], row["folder"]) == (archive, folder)]
    verdicts, reasons = {v.value for v in Verdict}, {"", *(r.value for r in Reason)}
    assert all(row["verdict"] in verdicts and row["reason"] in reasons for row in found)
    assert all(row["domain"] or row["reason"] for row in found)


@pytest.mark.parametrize("entry", catalog(), ids=lambda entry: entry["folder"])
def test_the_golden_verdicts_are_what_the_catalogue_describes(entry: dict[str, str]) -> None:
    rows = [r["verdict"] for r in golden() if (r["archive"], r["folder"]) == (entry["archive"], entry["folder"])]
    wanted = {}
    for part in entry["verdicts"].split("; "):
        name, _, number = part.partition(" ")
        wanted[name] = int(number or 1)
    assert Counter(rows) == wanted


def test_every_malformed_file_ends_in_a_volume_or_a_reason(corpus: Corpus, tmp_path: Path) -> None:
    files = sorted(p for p in (corpus("odd") / "malformed").rglob("*") if p.is_file() and p.suffix != ".json")
    assert len(files) == 82
    ends: Counter[str] = Counter()
    for number, path in enumerate(files):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        shutil.copy(path, folder)
        with bounded():
            rows = write_volumes(folder, tmp_path / "out" / f"{number:03d}").to_pylist()
        fates = (tmp_path / "out" / f"{number:03d}" / "files.json").read_text(encoding="utf-8")
        assert all(row["file"] or (row["reason"] and row["reason_detail"]) for row in rows)
        assert rows or '"reason": "' in fates
        ends[rows[0]["reason"] if rows else "quarantined"] += 1
    # the file they are all made from has no position: tests/imaging/test_malformed.py gives them one
    assert ends == {
        "unknown_geometry": 66, "quarantined": 12, "not_an_image": 2, "undecodable_pixels": 1, "too_large": 1,
    }  # fmt: skip
