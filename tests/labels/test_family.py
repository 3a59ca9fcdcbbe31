"""The family of label readers as a whole: the table, the union, and a contract test for each kind."""

import re
from pathlib import Path

from pydantic import TypeAdapter

from builder.labels import LABELS, AnyLabel


def test_the_table_is_sorted_and_the_union_knows_every_kind() -> None:
    assert list(LABELS) == sorted(LABELS)
    schema = TypeAdapter(AnyLabel).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(LABELS)
    for kind, reader in LABELS.items():
        assert reader.model_fields["kind"].default == kind


def test_every_kind_has_a_contract_test() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    classes = [part for text in texts for part in re.findall(r"\(LabelReaderContract\):.*?@pytest", text, re.DOTALL)]
    tested = {match for part in classes for match in re.findall(r'"kind": "(\w+)"', part)}
    assert tested == set(LABELS)
