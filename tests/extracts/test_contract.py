"""What every extract promises, whichever it is."""

import pickle

import pytest
from pydantic import TypeAdapter, ValidationError

from builder.extracts import EXTRACTS, AnyExtract
from builder.protocols import Extract

ADAPTER = TypeAdapter(AnyExtract)
BLOCKS = [
    {"kind": "sql", "url": "postgresql://localhost/clinic", "query": "SELECT 1"},
    {"kind": "fhir", "url": "bundles", "resource": "Condition"},
    {"kind": "omop", "url": "extract", "table": "measurement"},
    {"kind": "gdc", "url": "clinical.json", "entity": "diagnoses"},
    {"kind": "pdc", "url": "answers", "entity": "diagnoses"},
]


def test_every_extract_of_the_table_is_here():
    assert {block["kind"] for block in BLOCKS} == set(EXTRACTS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["kind"])
def test_is_its_own_frozen_options(block):
    extract = ADAPTER.validate_python(block)
    assert type(extract) is EXTRACTS[block["kind"]]
    assert isinstance(extract, Extract)
    assert extract.VERSION >= 1
    assert block["kind"] in extract.title
    assert pickle.loads(pickle.dumps(extract)) == extract  # noqa: S301 - our own bytes
    with pytest.raises(ValidationError, match="surprise"):
        ADAPTER.validate_python(block | {"surprise": 1})
    with pytest.raises(ValidationError):
        setattr(extract, "kind", "another")  # noqa: B010 (mypy knows that it is frozen)
