"""Every option of the JSON Schema says what it does."""

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel
from ruamel.yaml import YAML

from builder.spec import DatasetSpec
from builder.specfile.schema import described_schema, descriptions
from tests.conftest import ROOT

SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}


def options(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for block, definition in {DatasetSpec.__name__: schema, **schema["$defs"]}.items():
        for name, option in definition.get("properties", {}).items():
            yield f"{block}.{name}", option


def test_every_option_is_described() -> None:
    found = dict(options(described_schema(DatasetSpec)))
    assert len(found) > 400
    assert [name for name, option in found.items() if len(option.get("description", "")) < 8] == []
    assert "never the secret" in found["Deid.patient_key"]["description"].lower()
    assert "(slice, row, column)" in found["Patches.shape"]["description"]


def test_every_option_has_a_valid_example_and_what_is_not_required_a_default() -> None:
    schema = described_schema(DatasetSpec)
    for block, definition in {DatasetSpec.__name__: schema, **schema["$defs"]}.items():
        for name, option in definition.get("properties", {}).items():
            assert option.get("examples"), f"{block}.{name} has no example: add one to builder/specfile/examples.yaml"
            for example in option["examples"]:
                Draft202012Validator({**option, "$defs": schema["$defs"]}).validate(example)
            required = [n for one in (definition, *definition.get("anyOf", ())) for n in one.get("required", ())]
            assert "default" in option or name in required, f"{block}.{name}"
    found = dict(options(schema))
    assert (found["Resample.spacing_mm"]["x-unit"], found["Splits.ratios"]["default"]) == ("mm", SPLITS)
    written = YAML(typ="safe").load((ROOT / "builder" / "specfile" / "examples.yaml").read_text())
    assert not set(written) - set(found), "examples of options that are gone"


SHORT = """
sources:
  - {kind: folder, url: ./images, layout: bids}
  - {kind: folder, url: "s3://bucket/images", layout: {table: images.csv, path: file, labels: mask}}
  - {kind: folder, url: ./drawings, layout: {pattern: "{patient}.png"}}
persons: {aliases: aliases.csv}
labels:
  organs: {kind: mask, match: "{structure}.nii.gz", empty_file: absent, structures: [liver, spleen]}
  lungs: {kind: mask, match: "{structure}.nii.gz", empty_file: absent, structures: {lungs: left, both: [left, right]}}
"""


def test_the_schema_takes_every_spec_and_short_form_that_the_parser_takes() -> None:
    schema = Draft202012Validator(described_schema(DatasetSpec))
    read = YAML(typ="safe").load
    specs = {path.name: read(path.read_text()) for path in ROOT.glob("specs/*.yaml")}
    assert len(specs) > 10
    smallest = read((ROOT / "specs" / "phantom.yaml").read_text())
    specs["short"] = {**smallest, **read(SHORT)}
    DatasetSpec.model_validate({**specs["short"], "samples": {"kind": "volumes"}, "clinical": [], "transforms": []})
    refused = {
        name: [(list(e.absolute_path), e.message[:200]) for e in schema.iter_errors(spec)]
        for name, spec in specs.items()
    }
    assert not any(refused.values()), refused
    assert list(schema.iter_errors({**smallest, "persons": {"aliases": 3}}))


class _Parent(BaseModel):
    """A parent.

    Parameters
    ----------
    first, second
        Two numbers
        on two lines.
    third
        Another.

    This is no option.
    """

    first: int
    second: int
    third: int


class _Child(_Parent):
    """A child of its parent."""

    kind: str = "child"
    third: int
    """Its own ``third``."""
    fourth: int


def test_texts_come_from_the_class_its_parents_and_below_the_option() -> None:
    assert descriptions(_Child) == {
        "kind": "A child of its parent.",
        "first": "Two numbers on two lines.",
        "second": "Two numbers on two lines.",
        "third": "Its own `third`.",
    }
