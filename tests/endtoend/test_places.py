"""Site, country and collection as a source states them: columns that persons are held out, dealt and reported by."""

import json
from pathlib import Path

import pytest

import builder
from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

SPEC = (ROOT / "specs" / "phantom.yaml").read_text()
STATED = {
    "north": ("Norway", "trial"),
    "university": ("Norway", "screening"),
    "lakeside": ("Italy", "trial"),
    "city": (None, None),
}
REPORT = "report: {groups: [sex, age_band, race, vendor, site, grade]}"


def stated(text: str) -> str:
    """The spec with what each of its sources states."""
    for site, (country, collection) in STATED.items():
        if country is not None:
            text = text.replace(f"site: {site},", f"site: {site}, country: {country}, collection: {collection},")
    return text


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("places")
    write_archive(top / "phantom", patients=8, seed=20251121)
    text = stated(SPEC)
    for old, new in (
        ("retain: [sex, age_years, site]", "retain: [sex, site, country, collection]"),
        ("stratify: [grade]", "stratify: [collection]\n  hold_out: [{column: country, values: [Italy]}]\n"
                              "  leave_one_out: country"),
        (REPORT, "report: {groups: [country, collection], thumbnails: 0}"),
        ("per_case: 4", "per_case: 1"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (top / "spec.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(top / "spec.yaml", to=top / "dataset", parameters={"phantom": str(top / "phantom")})
    return top / "dataset"


def test_every_sample_has_what_its_source_states(dataset: Path) -> None:
    rows = builder.open_dataset(dataset).table.select(["site", "country", "collection"]).to_pylist()
    assert {r["site"] for r in rows} == set(STATED)
    assert all((r["country"], r["collection"]) == STATED[r["site"]] for r in rows)


def test_a_country_is_held_out_and_left_out(dataset: Path) -> None:
    opened = builder.open_dataset(dataset)
    held = {r["country"] for r in opened.split("external").table.select(["country"]).to_pylist()}
    rest = opened.where("split != 'external'").table.select(["country"]).to_pylist()
    assert held == {"Italy"}
    assert {r["country"] for r in rest} == {"Norway", None}
    left = json.loads((version(dataset) / "exports" / "leave_one_out.json").read_bytes())
    assert {"Norway", "Italy"} <= set(left)


def test_the_report_and_the_records_break_down_by_them(dataset: Path) -> None:
    report = (version(dataset) / "report" / "report.json").read_text()
    assert json.loads(report)["groups"] == ["country", "collection"]
    assert {"Norway", "Italy", "screening"} <= set(report.split('"'))
    facts = json.loads((version(dataset) / "catalog" / "facts.json").read_bytes())
    assert {v["value"] for v in facts["people"]["country"]} == {"Norway", "Italy", None}
    sources = builder.open_dataset(dataset).manifest.spec["sources"]
    assert {s["site"]: (s["country"], s["collection"]) for s in sources} == STATED


def test_they_stay_out_of_a_dataset_that_does_not_retain_them(dataset: Path) -> None:
    from builder.deid.columns import crossing

    assert crossing(["site", "country", "collection", "modality"], retain=("country",)) == ("country", "modality")


def version(dataset: Path) -> Path:
    return dataset / "versions" / (dataset / "CURRENT").read_text().strip()
