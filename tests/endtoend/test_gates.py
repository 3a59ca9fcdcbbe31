"""The last gates before publishing: what fails one of them is not published, and what was published stays."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pydicom
import pytest

from builder.errors import LayoutError, PrivacyError
from builder.publishing import accounts, finish
from builder.publishing.ledger import Fate, image_ledger
from builder.publishing.privacy import release
from builder.run.pipeline import build
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

PATIENT = "QZX4471"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    ct_series(folder, patient_id=PATIENT, slices=4, shape=(16, 16), padding=0)
    return folder


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def make_spec(archive: Path, **options: Any) -> DatasetSpec:
    document = {
        "name": "gates",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(archive), "site": "here"}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "samples": {"kind": "volumes"},
    }
    return DatasetSpec.model_validate({**document, **options})


def published(dataset: Path) -> bytes | None:
    """The pointer that readers follow; None when nothing was published."""
    pointer = dataset / "CURRENT"
    return pointer.read_bytes() if pointer.exists() else None


def test_an_identifier_in_anything_that_leaves_stops_the_publishing(archive: Path, tmp_path: Path) -> None:
    """A Patient ID typed into the description would reach the report and the catalog: only the last scan sees it."""
    dataset = tmp_path / "dataset"
    with pytest.raises(PrivacyError, match="nothing is published") as refused:
        build(make_spec(archive, description=f"The scan of patient {PATIENT.lower()}"), to=dataset)
    assert PATIENT.lower() not in str(refused.value).lower()
    assert published(dataset) is None
    build(make_spec(archive, description="The scan of a patient"), to=dataset)
    before = published(dataset)
    assert before is not None
    with pytest.raises(PrivacyError):
        build(make_spec(archive, description=f"Seen again: {PATIENT}"), to=dataset)
    assert published(dataset) == before


def test_an_identifier_in_any_file_that_leaves_stops_the_publishing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of file is searched by itself, whatever the manifest and the tables hold."""
    spoilt = []

    def try_each(plan: Any, roster: Any, tables: Any, files: Any, **options: Any) -> Any:
        for name, data in files.items():
            if name.endswith((".json", ".html", ".md", ".jsonld")) and b"gates" in data:
                changed = {name: data.replace(b"gates", PATIENT.encode(), 1)}
                with pytest.raises(PrivacyError, match="nothing is published") as refused:
                    release(plan, roster, {}, changed, **options)
                assert PATIENT not in str(refused.value)
                spoilt.append(name)
        return release(plan, roster, tables, files, **options)

    monkeypatch.setattr(finish, "release", try_each)
    build(make_spec(archive), to=tmp_path / "dataset")
    assert {Path(name).suffix for name in spoilt} >= {".json", ".html"}
    assert len(spoilt) > 2


def test_words_of_sentences_in_a_field_for_names_do_not_stop_the_publishing(tmp_path: Path) -> None:
    """Catalog and datasheet say "not stated" and "read by" themselves."""
    for number, name in enumerate(("NOT^STATED", "read by HIBBERT^JULIUS", "TO BE ASSIGNED", "Not available")):
        home = tmp_path / "archive" / str(number)
        ct_series(home, patient_id=f"QZX447{number}", slices=4, shape=(16, 16))
        for path in sorted(home.rglob("*.dcm")):
            dataset = pydicom.dcmread(path)
            dataset.ReferringPhysicianName = name
            dataset.save_as(path)
    build(make_spec(tmp_path / "archive", leaks={"pixels": "off"}), to=tmp_path / "dataset")
    assert published(tmp_path / "dataset") is not None


def test_a_listed_file_without_a_row_in_the_ledger_stops_the_publishing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_a_row(*arguments: Any, **options: Any) -> pa.Table:
        return image_ledger(*arguments, **options).slice(1)

    monkeypatch.setattr(accounts, "image_ledger", lose_a_row)
    with pytest.raises(LayoutError, match="found 3 rows, expected 4"):
        build(make_spec(archive), to=tmp_path / "dataset")
    assert published(tmp_path / "dataset") is None


def test_a_ledger_that_disagrees_with_the_shards_stops_the_publishing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_fate", lambda *_: Fate("excluded", "cohort", "rule"))
    with pytest.raises(LayoutError, match=r"found 0 used instances, expected 4"):
        build(make_spec(archive), to=tmp_path / "dataset")
    assert published(tmp_path / "dataset") is None
