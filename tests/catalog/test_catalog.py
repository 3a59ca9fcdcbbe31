"""Catalog records against the validators of their makers; nothing in them that nobody stated."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.catalog.checklists import checklists
from builder.catalog.cmimi import cmimi
from builder.catalog.croissant import croissant
from builder.catalog.documents import catalog
from builder.catalog.facts import (
    Amounts,
    ColumnFacts,
    DistributionFacts,
    Facts,
    LabelFacts,
    LeftFacts,
    PeriodFacts,
    ProcedureFacts,
    RangeFacts,
    ShardFacts,
    SourceFacts,
    SplitFacts,
    TableFacts,
    ValueCount,
    facts_document,
    parse_facts,
    todos,
)
from builder.catalog.figures import FigureFacts, OverlapFacts
from builder.catalog.page import page
from builder.catalog.statement import Annotation, Governance, HealthCatalogue, Statement, UseCase
from builder.errors import LayoutError
from builder.model.licenses import (
    CREATIVE_COMMONS,
    allows_commercial_use,
    combine,
    conflicts,
    forbids_commercial_use,
    license_url,
    normal,
)
from builder.model.tables import EXCLUSIONS

INDEX = pa.table(
    {
        "sample_key": ["s1", "s2", "s3"],
        "split": ["train", "train", "test"],
        "row": pa.array([0, 1, 0], pa.int64()),
        "age_years": pa.array([50.5, None, 61.0], pa.float64()),
        "smoker": [True, False, None],
        "affine": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64())),
        "findings": pa.array([["a"], ["a", "b"], ["c"]], pa.list_(pa.string())),
        "label.tumor.grade": ["high", "low", None],
    }
)

TRIPOD = {
    3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc",
}  # fmt: skip
STARD = {15: "abcd", 16: "abc", 17: "ab", 26: "ab", 40: "ab"}
"""Numbered items that have letters."""

RECORDS = {
    "facts.json", "croissant.json", "datacite.json", "ro-crate-metadata.json", "c-mimi.json", "fair.json",
    "claim.json", "checklists.json", "healthdcat-ap.json", "use-case.json", "terms.json", "datasheet.md", "index.html",
}  # fmt: skip


def columns(schema):
    units = {"age_years": ("a", "0010,1010")}
    return tuple(ColumnFacts(f.name, str(f.type), *units.get(f.name, (None, None))) for f in schema)


SOMEBODY = {"name": "A hospital", "homepage": "https://hospital.example.org", "email": "data@hospital.example.org"}
HEALTH = HealthCatalogue.model_validate(
    {
        "access": "non_public", "contact": SOMEBODY, "body": SOMEBODY,
        "holder": {**SOMEBODY, "type": "https://example.org/hospital", "note": "treats patients", "trusted": True},
        "place": "http://publications.europa.eu/resource/authority/country/FRA",
        "purposes": ["https://w3id.org/dpv#AcademicResearch"], "categories": ["https://example.org/images"],
        "themes": ["http://www.wikidata.org/entity/Q12136"], "kind": "https://example.org/kinds/images",
        "sample": "https://hospital.example.org/sample",
    }
)  # fmt: skip

FULL: dict[str, Any] = {
    "description": "PET of sarcoma, for segmentation of tumours.",
    "usage": "commercial",
    "governance": Governance(
        owner="a", responsible="b", contact="c", access="open", costs="none", ethics_approval="d", maintenance="e"
    ),
    "use_case": UseCase(
        task="t", clinical_question="q", users="u", setting="s", intended_use=("f",), out_of_scope=("g",),
        limitations=("h",),
    ),
    "statement": Statement(
        title="Sarcoma <b>", creators=("McGill University",), publisher="Example", published="2026-01-31",
        identifier="10.5281/zenodo.1", page="https://example.org/sarcoma", citation="Someone: Sarcoma. 2026.",
        keywords=("sarcoma",), context="a trial", years="ranges", pathologies=("tumor",),
        annotation=Annotation(protocol="p", rationale="r", annotators="two", tools="x", agreement="0.9"),
        collection="all of one year", collected_by="a clinic", original_purpose="care", assumptions="none",
        mitigation="none", social_impact="some", synthetic=False, legal_basis="consent", retention="ten years",
        quality_management="a plan, audited",
        use_conditions=("DUO_0000042", "DUO_0000046"), health_catalogue=HEALTH,
    ),
    "sources": (
        SourceFacts("TCIA sarcoma", "image", 3, "CC BY 3.0", "Vallieres 2015", "10.7937/x", "https://example.org/tcia"),
        SourceFacts("TCIA sarcoma", "label", 3, "CC-BY-3.0", None, "10.7937/x"),
        SourceFacts("clinical", "clinical", 0, "CC0-1.0", None, None, "https://example.org/table"),
    ),
    "shards": ShardFacts(2, 1000, ("../../../data/" + "a" * 32, "../../../data/" + "b" * 32)),
    "arrays": {"image": "float32 (channel, slice, row, column), SUVbw", "tumor": "uint8"},
    "labels": {"tumor": LabelFacts("rtstruct", ("gtv",))},
    "images": {"modality": (ValueCount("PT", 3),), "manufacturer": (ValueCount("GE", 3),)},
    "people": {"sex": (ValueCount("F", 1), ValueCount(None, 1)), "site": (ValueCount("north", 2),)},
    "ranges": {"age_years": RangeFacts(50, 55, 61, "a")},
    "source_files": 10,
    "source_bytes": 100,
    "splits": (SplitFacts("train", 1, 2, 2), SplitFacts("test", 1, 1, 1)),
    "strata": 4,
    "disjoint": True,
    "left": (LeftFacts("time_series", "series", 2), LeftFacts("not_dicom", "file", 2)),
    "findings": ("race is unknown for 25.0 % of the persons",),
    "outcomes": ("x: 1 yes and 0 no in test",),
    "sampling": "patches",
    "preprocessing": ("resampled to 3 mm",),
    "deidentification": ("identifiers replaced by keyed hashes",),
    "annotation": ("contours of one reader",),
    "procedures": ProcedureFacts(3, 2, 1, (("RPID34", "PET", 2),)),
    "amounts": Amounts(
        3, 3, 120, (30, 50), (ValueCount("JPEG 2000", 2), ValueCount(None, 1)), ("all fields: lz4",),
        {"demographic": ("sex", "age_years"), "timeline": ("study_day",)},
    ),
    "periods": (PeriodFacts(None, "test", 2009, 2009, 7), PeriodFacts("north", "train", 2004, 2011, 9)),
    "figures": (
        FigureFacts("completeness", "values known", 3, 4), FigureFacts("validity", "valid", 9, 10),
        FigureFacts("uniqueness", "no copy", 10, 10), FigureFacts("consistency", "agree", None, 3),
        FigureFacts("timeliness", "from the last study to the publication", 15, None, "a"),
        FigureFacts("coverage", "mean time from the first to the last study of a person", 25, None, "d"),
    ),
    "independence": (OverlapFacts("person", "train", "test", 0, 1, 1, 0),),
    "distribution": DistributionFacts(4, 1, 2, (ValueCount("tumor / gtv", 2),)),
}  # fmt: skip


def facts(bare, **more):
    return Facts(name="sarcoma", version="1.0.0", license="CC-BY-4.0", **bare, **more)


# mlcroissant calls what rdflib and pandas are about to drop
OTHERS = pytest.mark.filterwarnings("ignore::Warning")


@OTHERS
def test_croissant_validates_and_its_records_are_the_rows(stored):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    folder, bare = stored
    record = folder / "croissant.json"
    record.write_text(json.dumps(croissant(facts(bare, **FULL))))
    dataset = mlcroissant.Dataset(jsonld=str(record))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert dataset.metadata.ctx.is_v1_1()
    rows = [
        {k.removeprefix("index/"): v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
        for row in dataset.records("index")
    ]
    assert [row["sample_key"] for row in rows] == ["s1", "s2", "s3"]
    assert [row["row"] for row in rows] == [0, 1, 0]
    assert rows[0]["age_years"] == 50.5
    assert list(rows[2]["affine"]) == [5.0, 6.0]


@OTHERS
def test_the_responsible_ai_fields_are_understood(stored):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    folder, bare = stored
    record = folder / "croissant.json"
    record.write_text(json.dumps(croissant(facts(bare, **FULL))))
    understood = mlcroissant.Dataset(jsonld=str(record)).metadata
    assert understood.data_biases == ["race is unknown for 25.0 % of the persons"]
    assert understood.data_use_cases == ["f"]
    assert understood.data_annotation_platform == ["x"]
    assert understood.data_release_maintenance_plan == "e"


@OTHERS
def test_a_record_of_which_nothing_is_stated_still_validates_but_for_what_is_missing(stored):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    folder, bare = stored
    record = folder / "croissant.json"
    record.write_text(json.dumps(croissant(facts(bare))))
    assert not mlcroissant.Dataset(jsonld=str(record)).metadata.ctx.issues.errors


def test_the_tables_of_the_project_have_a_type_a_column(stored):
    _, bare = stored
    more = TableFacts("../exclusions.parquet", 0, columns(EXCLUSIONS))
    sets = {r["name"]: r for r in croissant(facts({**bare, "tables": (*bare["tables"], more)}))["recordSet"]}
    assert [f["name"] for f in sets["exclusions"]["field"]] == EXCLUSIONS.names
    kinds = {f["name"]: f["dataType"] for f in sets["index"]["field"]}
    assert kinds == {
        "sample_key": "sc:Text", "split": "sc:Text", "row": "cr:Int64", "age_years": "cr:Float64",
        "smoker": "sc:Boolean", "affine": "cr:Float64", "findings": "sc:Text",
        "label.tumor.grade": ["sc:Text", "cr:Label"],
    }  # fmt: skip
    age = next(f for f in sets["index"]["field"] if f["name"] == "age_years")
    assert age["description"] == "unit a (UCUM), DICOM attribute (0010,1010)"
    lists = {f["name"] for f in sets["index"]["field"] if f.get("isArray")}
    assert lists == {"affine", "findings"}


def test_everything_stated_leaves_no_todo(stored):
    _, bare = stored
    texts = catalog(facts(bare, **FULL))
    assert set(texts) == RECORDS
    for name, text in texts.items():
        left = todos(json.loads(text) if name.endswith(".json") else text.partition("<nav>")[2] or text)
        # what a training run reports comes after the version is published
        assert len(left) == {"c-mimi.json": 1}.get(name, 0), (name, left)
    assert "race is unknown for 25.0 %" in texts["datasheet.md"]
    assert "Name the authors of every source" in texts["datasheet.md"]
    assert "time series: 2 series, not dicom: 2 files" in texts["datasheet.md"]


def test_completeness_counts_the_answered_items(stored):
    _, bare = stored
    none = cmimi(facts(bare))
    assert [i["item"] for i in none["items"]] == list(range(1, 17))
    assert none["completeness"] == none["answered"] / 16 == len([i for i in none["items"] if not todos(i)]) / 16
    half = cmimi(facts(bare, governance=Governance(owner="a", access="b"), statement=Statement(log_of_use=False)))
    told = {i["item"]: i["answer"] for i in half["items"]}
    assert told[12] == "a"
    assert told[13] == "TODO: state who is responsible for the data (spec: governance.responsible)"
    assert told[15] == "access: b; TODO: state costs (spec: governance)"
    assert told[11] == "TODO: state the log of use (spec: catalog.log_of_use)"
    full = cmimi(facts(bare, **FULL))
    assert full["completeness"] == 1.0
    assert [i["about"] for i in full["beyond"] if not i["answered"]] == ["deep-learning parameters of training runs"]
    done = cmimi(facts(bare, **FULL), uses=3, runs=("unet: Dice 0.8",))
    assert all(i["answered"] for i in done["beyond"])
    assert "3 read sessions" in done["items"][10]["answer"]


def test_the_sixteen_items_are_those_of_the_whitepaper_in_its_order(stored):
    """Kohli, Summers, Geis 2017, Table 2: what each item asks for, and the answer to it."""
    _, bare = stored
    items = {i["item"]: i for i in cmimi(facts(bare, **FULL))["items"]}
    about = [
        "image types", "examinations", "sources", "acquisition", "storage", "annotation", "context", "ground truth",
        "associated data", "date range", "log of use", "owns", "responsible", "usage", "access", "distribution",
    ]  # fmt: skip
    assert [word in items[number]["about"] for number, word in enumerate(about, start=1)] == [True] * 16
    assert items[1]["answer"].endswith("120 images in 3 series, 30 to 50 a series")
    assert items[2]["answer"] == "3 studies of 2 persons; 3 cases, 3 samples"
    assert items[5]["answer"] == (
        "source: JPEG 2000 (2), not known (1), 100 bytes; stored: all fields: lz4, 1000 bytes"
    )
    assert items[9]["answer"] == "demographic: sex, age years; timeline: study day"
    assert items[10]["answer"] == "test: 2009; north, train: 2004 to 2011"
    assert items[16]["answer"] == "1 of 4 cases normal (25.0 %), 2 abnormal, 1 not known; tumor / gtv: 2"


def test_the_page_shows_every_value_escaped_and_loads_nothing(stored):
    _, bare = stored
    text = page(facts(bare, **FULL), runs=["<i>unet</i>"])
    assert "Sarcoma &lt;b&gt;" in text
    assert "<b>" not in text.replace("<b>not met</b>", "")
    assert "&lt;i&gt;unet" in text
    for word in ("<script", "<img", "<link", "src="):
        assert word not in text


def test_masked_counts_are_not_told(stored):
    _, bare = stored
    masked = {"people": {"sex": (ValueCount("F", None), ValueCount(None, None))}}
    texts = catalog(facts(bare, **{**FULL, **masked}))
    assert "sex: F, not known" in texts["datasheet.md"]
    assert "None" not in texts["datasheet.md"] + texts["use-case.json"] + texts["c-mimi.json"]


def test_nothing_is_invented(stored):
    _, bare = stored
    texts = catalog(facts(bare))
    assert "TODO" in texts["datasheet.md"]
    assert "TODO" in texts["datacite.json"]
    page = texts["index.html"]
    assert "TODO" not in page
    gaps = page.partition('id="gaps"')[2].partition("</section>")[0]
    asked = {*re.findall(r"spec: [a-z_.]+", "".join(text for name, text in texts.items() if name != "index.html"))}
    asked |= {f"spec: catalog.{name}" for name in ("page", "published", "publisher", "identifier", "citation")}
    assert asked <= {*re.findall(r"spec: [a-z_.]+", gaps)}, "each gap of the records is in the list"
    assert gaps.count("<tr>") - 1 == int(re.search(r"All ([0-9]+)", gaps)[1])
    assert page.index('id="facts"') < page.index('id="gaps"') < page.index('id="use-case"')
    met = {row["principle"]: row["met"] for row in json.loads(texts["fair.json"])}
    assert not any(met[p] for p in ("F1", "F3", "F4", "A1", "A1.2", "A2", "I3", "R1", "R1.2"))
    assert len(met) == 15
    assert "datePublished" not in json.loads(texts["croissant.json"])
    assert texts == catalog(facts(bare))


def test_facts_are_read_back_as_they_were(stored):
    _, bare = stored
    one = facts(bare, **FULL)
    text = catalog(one)["facts.json"]
    assert parse_facts(json.loads(text)) == one
    assert catalog(parse_facts(json.loads(text))) == catalog(one)
    with pytest.raises(LayoutError, match="expected 1; build the dataset again"):
        parse_facts({**facts_document(one), "facts_version": 0})
    with pytest.raises(LayoutError, match="1 entry that does not fit"):
        parse_facts({**facts_document(one), "files": "none"})


def test_datacite_is_valid(stored):
    schema = pytest.importorskip("datacite.schema45", reason="pip install datacite")
    _, bare = stored
    record = json.loads(catalog(facts(bare, **FULL))["datacite.json"])
    assert [error.message for error in schema.validator.iter_errors(record)] == []
    assert [r["relatedIdentifier"] for r in record["relatedIdentifiers"]] == ["10.7937/x"]


def test_ro_crate_is_read_by_its_library(stored):
    rocrate = pytest.importorskip("rocrate.rocrate", reason="pip install rocrate")
    folder, bare = stored
    text = catalog(facts(bare, **FULL))["ro-crate-metadata.json"]
    (folder / "ro-crate-metadata.json").write_text(text)
    (folder / "data").mkdir()
    crate = rocrate.ROCrate(folder)
    assert crate.name == "Sarcoma <b>"
    assert {e.id for e in crate.data_entities} == {"index.parquet", "data/"}
    assert crate.dereference("index.parquet")["sha256"] == bare["files"][0].sha256
    assert crate.dereference("https://doi.org/10.7937/x")["license"] == CREATIVE_COMMONS["CC-BY-3.0"]


def test_citations_name_each_source_once(stored):
    _, bare = stored
    terms = json.loads(catalog(facts(bare, **FULL))["terms.json"])
    assert terms["citations"] == [
        "Vallieres 2015 https://doi.org/10.7937/x",
        "clinical. https://example.org/table",
    ]
    assert terms["commercial_use"] == "allowed by every licence"
    unstated = replace(facts(bare, **FULL), sources=(SourceFacts("folder north"),))
    terms = json.loads(catalog(unstated)["terms.json"])
    assert terms["commercial_use"] == "not proven"
    assert len(todos(terms)) == 2


@pytest.mark.parametrize(
    ("licenses", "commercial", "says"),
    [
        (["CC-BY-4.0", "CC0-1.0"], True, "name the authors"),
        (["CC-BY-NC-4.0", "CC-BY-3.0"], False, "commercial use is not allowed"),
        (["CC BY-ND 4.0"], False, "adaptations must not be shared"),
        (["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"], False, "contradict"),
        (["CC-BY-4.0", None], False, "read by a person"),
        (["Restricted"], False, "read by a person"),
        (["MIT", "ODbL-1.0"], True, "shared under ODbL-1.0"),
    ],
)
def test_licences_combine(licenses, commercial, says):
    assert allows_commercial_use(licenses) is commercial
    assert any(says in sentence for sentence in combine(licenses))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CC BY 3.0", "CC-BY-3.0"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        ("Creative Commons Attribution 3.0 Unported License", "CC-BY-3.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International License", "CC-BY-NC-4.0"),
        ("http://creativecommons.org/licenses/by/3.0/", "CC-BY-3.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0/legalcode", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        # what cannot be read is not judged: a word may forbid something
        ("Creative Commons Attribution Non Commercial 3.0", None),
        ("CC BY", None),
        ("National Library of Medicine Terms and Conditions; May 21, 2019", None),
        ("", None),
        (None, None),
    ],
)
def test_licences_have_one_name(name, expected):
    assert normal(name) == expected


@given(st.sampled_from(sorted(CREATIVE_COMMONS)), st.sampled_from(["{}", "{}legalcode"]))
def test_every_creative_commons_licence_is_known_by_its_address(name, form):
    assert normal(form.format(CREATIVE_COMMONS[name])) == name
    assert normal(name.replace("-", " ", 1).replace("-", " ")) == name
    assert (forbids_commercial_use(name) is None) == ("NC" not in name and "ND" not in name)


def test_a_dataset_may_not_grant_more_than_its_sources():
    assert conflicts("CC-BY-3.0", ["CC-BY-3.0", "CC0-1.0", None]) == ()
    assert "authors to be named" in conflicts("CC0-1.0", ["CC BY 3.0"])[0]
    assert "no commercial use" in conflicts("CC-BY-4.0", ["CC-BY-NC-4.0"])[0]
    assert "shared alike" in conflicts("CC-BY-4.0", ["CC-BY-SA-4.0"])[0]
    assert "adaptations" in conflicts("CC-BY-ND-4.0", ["CC-BY-ND-4.0"])[0]
    assert conflicts("see the agreement", ["CC-BY-ND-4.0"]) == ()


def test_addresses_of_licences():
    assert license_url("CC-BY-NC-SA-4.0") == "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    assert license_url("CC BY 3.0") == "https://creativecommons.org/licenses/by/3.0/"
    assert license_url("Apache-2.0") == "https://spdx.org/licenses/Apache-2.0"
    assert license_url("see the agreement") == "see the agreement"


def test_checklists_cover_every_item_of_their_sources(stored):
    """The numbers of the items are those of the published lists: answered by a dataset, or of the study."""
    _, bare = stored
    tables = checklists(facts(bare, **FULL))
    assert [name for name, table in tables.items() if table["answered"] < table["of"]] == []
    letters = {"claim_2024": (44, {}), "tripod_ai": (27, TRIPOD), "stard_ai": (40, STARD)}
    for name, (last, parts) in letters.items():
        official = [f"{n}{part}" for n in range(1, last + 1) for part in parts.get(n, ("",))]
        listed = [*(item["item"] for item in tables[name]["items"]), *map(str, tables[name]["of_the_study"])]
        assert sorted(listed) == sorted(official), name
    law = [item["item"].partition(",")[0] for item in tables["ai_act"]["items"]]
    assert set(law) == {*(f"10(2)({letter})" for letter in "abcdefgh"), "IV 2(d)"}
    assert {item["item"][:3] for item in tables["ehds"]["items"]} - {"bes"} == {f"({letter})" for letter in "abcdef"}
    quality = {item["about"] for item in tables["ehds"]["items"] if item["item"].startswith("(b)")}
    assert quality >= {"completeness", "uniqueness", "validity", "consistency", "timeliness"}
    assert "values known: 3 of 4 (75.0 %)" in json.dumps(tables["ehds"])
    assert all(i["item"].startswith("rai:") or i["item"].startswith("prov:") for i in tables["neurips_2026"]["items"])


def test_one_key_of_the_spec_is_one_gap_whoever_asks(stored):
    _, bare = stored
    gaps = catalog(facts(bare))["index.html"].partition('id="gaps"')[2].partition("</section>")[0]
    keys = re.findall(r"\(spec: ((?:governance|use_case|catalog)\.[a-z_.]+)\)", gaps)
    assert len(keys) == len(set(keys)) > 20
    row = next(part for part in gaps.split("<tr>") if "(spec: governance.access)" in part)
    assert {"governance", "CLAIM", "TRIPOD+AI", "STARD-AI", "datasheet"} <= {*re.findall(r"[A-Za-z+-]+", row)}


def test_purpose_without_users_is_open(stored):
    _, bare = stored
    half = {**FULL, "use_case": FULL["use_case"].model_copy(update={"users": None})}
    items = {i["item"]: i for i in checklists(facts(bare, **half))["tripod_ai"]["items"]}
    assert items["3b"]["answer"].startswith("f; TODO: state who would act on the answer")
    assert not items["3b"]["answered"]


def test_where_years_are_too_few_to_tell_the_owner_may_say_when(stored):
    _, bare = stored
    said = FULL["statement"]
    for acquired, answer in (("2009 to 2011", "2009 to 2011"), (None, "TODO: state when the images were made")):
        statement = said.model_copy(update={"acquired": acquired})
        one = facts(bare, **{**FULL, "statement": statement, "periods": ()})
        assert cmimi(one)["items"][9]["answer"].startswith(answer)
        assert {i["answer"] for i in checklists(one)["ehds"]["items"] if "period" in i["item"]} >= {
            cmimi(one)["items"][9]["answer"]
        }


def test_what_nobody_stated_is_one_gap_in_all_checklists(stored):
    _, bare = stored
    tables = checklists(facts(bare))
    wanted = [i["answer"] for table in tables.values() for i in table["items"] if "catalog.mitigation" in i["answer"]]
    assert len(wanted) == 2
    assert len(set(wanted)) == 1
    gaps = page(facts(bare)).partition('id="gaps"')[2].partition("</section>")[0]
    assert gaps.count("catalog.mitigation") == 1
    assert "TRIPOD+AI, EU AI Act" in gaps


@OTHERS
def test_the_entry_of_a_health_catalogue_fits_the_shapes(stored):
    pyshacl = pytest.importorskip("pyshacl", reason="pip install pyshacl")
    shapes = str(Path(__file__).with_name("healthdcat_ap_shapes.ttl"))
    _, bare = stored
    record = json.loads(catalog(facts(bare, **FULL))["healthdcat-ap.json"])

    def faults(document):
        text = json.dumps(document)
        fits, _, told = pyshacl.validate(
            text, data_graph_format="json-ld", shacl_graph=shapes, shacl_graph_format="turtle"
        )
        return "" if fits else told

    assert faults(record) == ""
    assert record["healthdcatap:numberOfUniqueIndividuals"]["@value"] == "2"
    assert record["healthdcatap:minTypicalAge"]["@value"] == "50"
    for name in ("dct:accessRights", "healthdcatap:hdab", "dct:identifier", "dcat:distribution"):
        assert faults({k: v for k, v in record.items() if k != name}), name
    wrong = {**record, "healthdcatap:numberOfRecords": {"@type": "xsd:string", "@value": "3"}}
    assert "numberOfRecords" in faults(wrong)
    assert "accessRights" in faults(json.loads(catalog(facts(bare))["healthdcat-ap.json"])), "nothing is invented"
