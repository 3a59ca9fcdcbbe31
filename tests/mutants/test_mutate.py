"""Mutations parse, differ from what was there, and leave texts, annotations and imports alone."""

import ast
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOMS, Room
from tests.mutants.mutate import mutations

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""One < two."""
import os
def f(a: int | None, b: bool = True) -> int | None:
    """a == b"""
    if a is None and not b:
        raise ValueError(f"found {a + 1}")
    check(a)
    return max(a, -2) if b else a // 3
'''


def test_every_kind_of_change_is_made() -> None:
    found = {(m.before, m.after) for m in mutations(SOURCE)}
    assert found == {
        ("True", "False"),
        ("a is None and not b", "True"),
        ("a is None and not b", "False"),
        ("a is None and not b", "(a is None or not b)"),
        ("a is None and not b", "(a is None)"),
        ("a is None", "(a is not None)"),
        ("not b", "(b)"),
        ('raise ValueError(f"found {a + 1}")', "pass"),
        ("check(a)", "pass"),
        ("max(a, -2)", "(min(a, -2))"),
        ("-2", "2"),
        ("2", "3"),
        ("b", "True"),
        ("b", "False"),
        ("a // 3", "(a * 3)"),
        ("3", "4"),
    }


@pytest.mark.parametrize(
    "path", ["builder/storage/leases.py", "builder/model/geometry.py", "builder/publishing/ledger.py"]
)
def test_every_change_of_a_module_parses_and_changes_it(path: str) -> None:
    source = (ROOT / path).read_text()
    tree = ast.dump(ast.parse(source))
    found = mutations(source)
    assert len(found) > 20
    for mutation in found:
        assert ast.dump(ast.parse(mutation.apply(source))) != tree


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_a_room_has_sources_and_tests(room: Room) -> None:
    for pattern in room.sources:
        assert [*(ROOT / "builder").glob(pattern)], pattern
    assert room.tests
    for test in room.tests:
        assert (ROOT / "tests" / test).exists(), test
