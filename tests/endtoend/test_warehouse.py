"""Cases and controls out of the phantom's warehouse: FHIR and OMOP against the answer key, and a dataset of them."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.errors import SpecError
from builder.phantom.warehouse import warehouse
from builder.reader import open_dataset
from builder.run.pipeline import build, plan
from tests.conftest import ROOT
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

SPEC = ROOT / "specs" / "lung-cancer-within-a-year.yaml"
COLUMN = "cancer_within_a_year"


@pytest.fixture(scope="module")
def made() -> Any:
    """The warehouse of fourteen persons, the ninth of whom came again after the diagnosis."""
    days = {n: ["20190301", "20190801"] if n == 9 else ["20190301"] for n in range(1, 15)}
    return warehouse([
        {"visits": [{"study_uid": f"1.2.{n}.{d}", "date": d, "patient_ids": [f"PH-{n:04d}"]} for d in dates]}
        for n, dates in days.items()
    ])  # fmt: skip


@pytest.fixture(scope="module")
def phantom(made, tmp_path_factory) -> Path:
    """The warehouse beside a small CT series of each study."""
    folder = tmp_path_factory.mktemp("phantom")
    for path, data in {**made.files, "aliases.csv": b"id,alias\nPH-0001,PH-8001\n"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for number, uid in enumerate(made.truth):
        _, _, person, date = uid.split(".")
        named = {"patient_id": f"PH-{int(person):04d}", "series": uid, "date": date}
        voxels = np.random.default_rng(number).integers(-900, 900, (20, 16, 16)).astype(float)
        options = {"slices": 20, "shape": (16, 16), "voxels": voxels, "attributes": {"StudyInstanceUID": uid}}
        ct_series(folder / "archive" / uid, **options, **named)
    return folder


@pytest.fixture(scope="module")
def truth(made) -> dict[str, bool | None]:
    """Study to what its person is."""
    assert Counter(made.truth.values()) == {False: 6, True: 4, None: 5}
    return dict(made.truth)


@pytest.fixture(scope="module")
def dataset(phantom, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("warehouse") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(SPEC, to=target, parameters={"phantom": str(phantom)})
    return target


@pytest.fixture(scope="module")
def planned_at(tmp_path_factory) -> Path:
    """Where all plans go, so that the archive is indexed once."""
    return tmp_path_factory.mktemp("plans") / "data"


def told(planned: Any) -> dict[str, bool | None]:
    """What a plan says of each study, by its keyed name."""
    rows = planned.plan.cohort.select(["study_key", COLUMN]).to_pylist()
    return {row["study_key"]: row[COLUMN] for row in rows}


@pytest.mark.parametrize("kind", ["fhir", "omop"])
def test_the_phenotype_equals_the_answer_key(phantom, truth, planned_at, kind, monkeypatch, tmp_path):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    spec = SPEC
    if kind == "omop":
        text = SPEC.read_text().split("  - extract:")
        text[1] = text[1].replace("kind: fhir", "kind: omop, table: condition_occurrence").replace("/fhir", "/omop")
        text[1] = text[1].replace(', resource: Condition, identifier: "urn:oid:2.25.1001"', "")
        text[1] = text[1].replace("person_id: person", "person_id: person_source_value")
        text[1] = text[1].replace('"http://hl7.org/omop/sid/icd-10"', "PHANTOM")
        text[2] = text[2].replace("kind: fhir", "kind: omop, table: image_occurrence").replace("/fhir", "/omop")
        text[2] = text[2].replace(', resource: ImagingStudy, identifier: "urn:oid:2.25.1001"', "")
        text[2] = text[2].replace("from: status", "from: modality_concept_id").replace("[available]", '["0"]')
        spec = tmp_path / "omop.yaml"
        spec.write_text("  - extract:".join(text))
    planned = plan(spec, to=planned_at, parameters={"phantom": str(phantom)})
    assert told(planned) == {planned.plan.key.name("study", uid): value for uid, value in truth.items()}
    assert all(planned.plan.cohort["in_warehouse"].to_pylist())


def test_the_dataset_holds_cases_and_controls_and_says_how_they_were_told(dataset, truth):
    found = Counter(open_dataset(dataset, split=None).table[COLUMN].to_pylist())
    assert None not in found
    assert set(found) == {True, False}
    report = json.loads(next(dataset.glob("versions/*/report/report.json")).read_text())
    facts = report["clinical"][0]["phenotypes"][COLUMN]
    counts = Counter(value for value in truth.values())
    assert facts["counts"]["case"] == counts[True]
    assert facts["counts"]["control"] == counts[False]
    assert facts["counts"]["a code before the window"] + facts["counts"]["a code without a day"] == counts[None]
    assert facts["rule"]["to_days"] == 365
    page = next(dataset.glob("versions/*/report/index.html")).read_text()
    row = page[page.index("<td>cancer_within_a_year</td>") :]
    assert (
        re.sub(r"<[^>]+>|\s+", " ", row[: row.index("</tr>")]).split()
        == (
            f"cancer_within_a_year {counts[True]} {counts[False]} a code before the window 3, a code without a day 2 "
            "http://hl7.org/fhir/sid/icd-10: C34* 0 to 365 days from study, none before unstated"
        ).split()
    )
    certificate = json.loads(next(dataset.glob("versions/*/leaks.json")).read_text())
    assert certificate["known"] == [
        {"table": 1, "column": COLUMN, "how": "outcome", "values": 10, "after_study": None},
        {"table": 2, "column": "in_warehouse", "how": "timeless", "values": 15, "after_study": None},
    ]
    manifest = json.loads(next(dataset.glob("versions/*/dataset.json")).read_text())
    assert [line.split()[0] for line in manifest["lock"]["clinical"]] == ["fhir", "fhir"]
    assert "2.25.1001" not in json.dumps(manifest["spec"])


def test_codes_that_no_row_has_stop_the_plan(phantom, planned_at, monkeypatch, tmp_path):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SPEC.read_text().replace("hl7.org/fhir/sid", "hl7.org/fhir/side"))
    with pytest.raises(SpecError, match="cancer_within_a_year: found none of its codes in any row"):
        plan(wrong, to=planned_at, parameters={"phantom": str(phantom)})
