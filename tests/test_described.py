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
            assert "default" in option or name in definition.get("required", ()), f"{block}.{name}"
    found = dict(options(schema))
    assert (found["Resample.spacing_mm"]["x-unit"], found["Splits.ratios"]["default"]) == ("mm", SPLITS)
    written = YAML(typ="safe").load((ROOT / "builder" / "specfile" / "examples.yaml").read_text())
    assert not set(written) - set(found), "examples of options that are gone"


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
