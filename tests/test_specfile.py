"""Specs: every fault at once, where it stands, what was expected; and nothing secret in a message."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.model.options import published_rule, withhold_locations, without_locations
from builder.sources.folder import Folder
from builder.spec import DatasetSpec
from builder.specfile import fill_parameters, load_spec, parse_spec
from builder.specfile.messages import PATTERNS_IN_WORDS

ROOT = Path(__file__).resolve().parent.parent
GOOD = """\
name: small
license: CC0-1.0
sources:
  - {kind: folder, url: "${here}/archive"}
cohort:
  image: "modality == 'CT'"
labels:
  tumor: {kind: rtstruct, roi: {tumor: gtv}}
deid: {patient_key: "${env:BUILDER_KEY}"}
transforms:
  - {kind: orient, to: LPS}
samples: {kind: patches, shape: [8, 8, 8], centred_on: tumor}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text.encode(), name="s.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('persons: {aliases: ""}', "persons.aliases"),
        ('persons: {aliases: {url: ""}}', "persons.aliases"),
        ('splits: {previous: ""}', "splits.previous"),
        ('splits: {sequester: {url: ""}}', "splits.sequester.url"),
        ('clinical: [{url: "", person_id: ID, columns: {g: {from: G, type: text}}}]', "clinical.0.url"),
    ],
)
def test_a_place_that_is_empty_is_refused_where_it_stands(more: str, key: str):
    (found,) = faults(f"{GOOD}{more}\n")
    assert found.startswith(f"s.yaml:{len(GOOD.splitlines()) + 1}:")
    assert f" {key}" in found
    assert "found nothing, expected at least 1 character" in found


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path):
    assert load_spec(path).name


def test_all_faults_at_once_each_at_its_place():
    text = GOOD.replace("license", "licence").replace("kind: folder", "kind: foldr").replace("[8, 8, 8]", "[8, 0, 8]")
    text = text.replace("to: LPS", "to: LPS, two: 2").replace("cohort:\n", "cohort:\n  one_pr: person\n")
    found = faults(text)
    lines = text.splitlines()
    for needle, message in (
        ("licence:", "did you mean 'license'"),
        ("kind: foldr", "did you mean 'folder'"),
        ("one_pr:", "did you mean 'one_per'"),
        ("two: 2", "unknown key 'two'"),
        ("[8, 0, 8]", "greater than or equal to 1"),
    ):
        line = next(i for i, content in enumerate(lines, 1) if needle in content)
        hits = [f for f in found if f.startswith(f"s.yaml:{line}:") and message in f]
        assert hits, f"{needle}: {found}"
    zero = next(f for f in found if "greater than or equal" in f)
    line, column = map(int, re.match(r"s\.yaml:(\d+):(\d+):", zero).groups())
    assert lines[line - 1][column - 1] == "0"


def test_fields_to_store_are_fields():
    block = "shards: {fields: {image: {dtype: int16, factor: 0.5}, tumor.left: {codec: small}}}\n"
    assert parse_spec((GOOD + block).encode()).shards.fields["image"].factor == 0.5
    assert "found 'tumour'" in faults(GOOD + "shards: {fields: {tumour: {codec: small}}}\n")[0]
    assert "expected one of int8" in faults(GOOD + "shards: {fields: {image: {factor: 0.5}}}\n")[0]


def test_expressions_and_columns_are_checked_against_what_there_is():
    found = faults(GOOD.replace("modality ==", "modalty ==") + "splits: {stratify: [sexx]}\n")
    assert "did you mean 'modality'" in found[0]
    assert found[0].startswith("s.yaml:6:")
    assert found[1] == "s.yaml:13:21: splits.stratify.0: found the unknown column 'sexx'; did you mean 'sex'?"
    assert "found" in faults(GOOD.replace("modality == 'CT'", "modality == 5"))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "duplicate key"),
        ("a: &x 1\nb: *x\n", "anchor or alias"),
        ('sources: !!python/object/apply:os.system ["true"]\n', "s.yaml:1:10: found a YAML tag"),
        ("- 1\n", "expected a mapping"),
        ("a: [1\n", "s.yaml:"),
        ("a: " + "[" * 40 + "]" * 40, "nesting deeper than 32"),
        ("x: \xff", "found nothing"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str):
    assert message in faults(text)[0]


def test_size_and_encoding_are_bounded():
    with pytest.raises(SpecError, match="at most 1048576"):
        parse_spec(b"a: " + b"x" * (1 << 20))
    with pytest.raises(SpecError, match="not UTF-8"):
        parse_spec(b"name: \xff\xfe")


def test_yaml_1_2_booleans():
    spec = parse_spec((GOOD + "description: no\n").encode())
    assert spec.description == "no"


@pytest.mark.parametrize("secret", ["hunter2hunter2hunter2", "1234567890123456789012", "[1234567890123456789012]"])
def test_a_secret_is_not_repeated(secret: str):
    quoted = secret if secret[0] != "h" else f'"{secret}"'
    found = "\n".join(faults(GOOD.replace('"${env:BUILDER_KEY}"', quoted)))
    assert secret.strip("[]") not in found
    assert "deid.patient_key: found a" in found


def test_names_of_other_blocks_are_checked_beside_faults_of_structure():
    text = GOOD.replace("license:", "licence:").replace("centred_on: tumor", "centred_on: tumour")
    text = text.replace('"${env:BUILDER_KEY}"}', '"${env:BUILDER_KEY}", retain: [sexx, death_day]}')
    found = faults(text + "shards: {fields: {tumr: {codec: small}}}\n")
    for message in (
        "licence: found the unknown key",
        "deid.retain: found 'sexx', expected names out of",
        "deid.retain: found 'death_day'",
        "samples.centred_on: found 'tumour', expected one of the labels tumor",
        "shards.fields: found 'tumr', expected some of ['image', 'tumor']",
    ):
        assert any(message in fault for fault in found), message
    assert any(fault.endswith("; did you mean 'sex'?") for fault in found)


def test_several_wrong_names_are_all_told():
    found = faults(GOOD.replace('KEY}"}', 'KEY}", retain: [name, birth]}') + "shards: {fields: {x: {codec: small}}}\n")
    assert [re.search("found '(.+?)'", fault)[1] for fault in found] == ["birth", "name", "x"]


def test_days_of_a_table_that_is_not_valid_yet_may_be_retained():
    table = "clinical:\n  - {url: t.csv, person_id: ID, columns: {dx: {from: Dx, type: dat}}}\n"
    found = faults(GOOD.replace('KEY}"}', 'KEY}", retain: [dx]}') + table)
    assert len(found) == 1
    assert "type: found 'dat'" in found[0]


def test_no_message_asks_people_to_read_a_regular_expression():
    schema = json.dumps(DatasetSpec.model_json_schema())
    patterns = {json.loads(f'"{text}"') for text in re.findall(r'"pattern": "((?:[^"\\\\]|\\\\.)*)"', schema)}
    assert patterns == PATTERNS_IN_WORDS.keys()


def test_one_fault_has_one_message():
    assert len(faults(GOOD.replace("kind: folder", "kind: foldr"))) == 1
    assert len(faults(GOOD.replace("kind: folder, ", ""))) == 1
    assert faults(GOOD.replace("centred_on: tumor", "centred_on: tumour")) == [
        "s.yaml:12:56: samples.centred_on: found 'tumour', expected one of the labels tumor"
    ]


def test_structure_and_columns_are_judged_at_once():
    columns = "{grade: {from: G, type: catgory}, age: {from: A, type: number}}"
    table = f"clinical: [{{url: a.csv, person_id: ID, columns: {columns}}}]\n"
    rest = "splits: {stratify: [grade, grad, sexx]}\nreport: {groups: vendor, outcomes: [agee]}\nnme: x\n"
    text = GOOD.replace("modality ==", "age > 3 and grade == 'x' and modalty ==") + table + rest
    found = "\n".join(faults(text))
    for part in (
        "'catgory'",
        "report.groups: found 'vendor', expected a list",
        "did you mean 'name'",
        "'sexx'",
        "'agee'",
    ):
        assert part in found, part
    # what a table declares is there, even while the table is not valid
    assert "column 'grade'" not in found
    assert "column 'grad'" in found
    valid = faults(text.replace("catgory", "category"))
    assert any("'modalty'" in line for line in valid)


def test_a_key_that_cannot_be_read_by_a_program_is_no_traceback():
    assert "expected a name" in faults(GOOD + "? {a: b}\n: c\n")[0]
    assert "expected a name" in faults(GOOD + "1: c\n")[0]


def test_parameters_fill_urls_only_and_are_all_used():
    spec = parse_spec(GOOD.encode())
    (source, *_) = fill_parameters(spec, {"here": "/data"}).sources
    assert isinstance(source, Folder)
    assert source.url == "/data/archive"
    with pytest.raises(SpecError, match="expected --param here=VALUE"):
        fill_parameters(spec, {})
    with pytest.raises(SpecError, match="did you mean here"):
        fill_parameters(spec, {"here": "/data", "hear": "x"})
    for empty in ("", "  "):
        with pytest.raises(SpecError, match="parameter here: found an empty value"):
            fill_parameters(spec, {"here": empty})
    with pytest.raises(SpecError, match=r"sources\.0\.url: found the scheme ftp://"):
        fill_parameters(spec, {"here": "ftp://x"})


def test_locations_are_withheld_and_in_no_fingerprint():
    literal = parse_spec(GOOD.replace("${here}/archive", "/home/doe_jane").encode())
    template = parse_spec(GOOD.encode())
    withheld = [withhold_locations(spec.model_dump(mode="json", by_alias=True)) for spec in (literal, template)]
    assert "doe_jane" not in str(withheld[0])
    assert withheld[1]["sources"][0]["url"] == "${here}/archive"
    assert without_locations(literal) == without_locations(template)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modality == 'CT' and patient_id != '70002'", "modality == 'CT' and patient_id != '(withheld)'"),
        ("t2.patient_id in ['a','b'] or x == 'c'", "t2.patient_id in ['(withheld)','(withheld)'] or x == 'c'"),
        ("patient_id between '1' and '5' and y='k'", "patient_id between '(withheld)' and '(withheld)' and y='k'"),
        ("not (patient_id matches '^A') and y = 'k'", "not (patient_id matches '(withheld)') and y = 'k'"),
        ('"7" == `patient_id` ignoring case', "'(withheld)' == `patient_id` ignoring case"),
        ("study_date in ['2011-03-04'] or x = 'c'", "study_date in ['(withheld)'] or x = 'c'"),
        ("study_date < '2015-01-31' and x = 'c'", "study_date < '2015-01-31' and x = 'c'"),
        ("a patient_id isn't an expression here", "a patient_id isn't an expression here"),
    ],
)
def test_texts_beside_columns_that_identify_are_withheld(text, expected):
    assert published_rule(text) == expected


def test_values_of_a_hold_out_by_a_column_that_identifies_are_withheld():
    rule = {"column": "institution_name", "values": ["St. Elsewhere"], "split": "test", "since": None}
    document = withhold_locations({"sources": [], "splits": {"hold_out": [rule, {**rule, "column": "vendor"}]}})
    days = {"sources": [], "splits": {"hold_out": [{"column": "study_date", "values": [], "since": "2019-01-01"}]}}
    assert withhold_locations(days)["splits"]["hold_out"][0]["since"] == "2019-01-01"
    found = [held["values"] for held in document["splits"]["hold_out"]]
    assert found == [["(withheld)"], ["St. Elsewhere"]]


def test_a_spec_is_frozen_and_survives_json():
    spec = parse_spec(GOOD.encode())
    with pytest.raises(ValueError, match="frozen"):
        setattr(spec, "name", "other")  # noqa: B010 (mypy knows that it is frozen)
    assert DatasetSpec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "sources", "kind", "deid", "labels", "samples", "cohort", "x"]), inner, max_size=4), max_leaves=12))  # fmt: skip  # noqa: E501
def test_whatever_comes_in_is_a_spec_error_with_a_position(document):
    text = yaml.safe_dump(document, allow_unicode=False)
    with pytest.raises(SpecError) as caught:
        parse_spec(text.encode(), name="s.yaml")
    lines = [line for line in str(caught.value).splitlines() if line.startswith("s.yaml")]
    assert all(re.match(r"s\.yaml:\d+:\d+: ", line) for line in lines)
    assert str(caught.value).startswith("s.yaml:")
