"""Every option of the JSON Schema says what it does."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from builder.spec import DatasetSpec
from builder.specfile.schema import described_schema, descriptions


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
