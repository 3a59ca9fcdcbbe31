"""Each promise of the README names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
README = (TESTS.parent / "README.md").read_text(encoding="utf-8")
LIST = README.partition("What it promises")[2].partition("## Two commands")[0] + "* "
PROMISES = re.findall(r"^\* \*\*(.*?)\*\*(.*?)(?=^\* )", LIST, flags=re.MULTILINE | re.DOTALL)


def names_in(path: Path) -> set[str]:
    """Names of the tests of a file, those bound by assignment too."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_there_are_promises() -> None:
    assert len(PROMISES) >= 8


@pytest.mark.parametrize(("promise", "text"), PROMISES, ids=[promise for promise, _ in PROMISES])
def test_a_promise_names_tests_that_are_there(promise: str, text: str) -> None:
    held = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text.partition("Held by")[2])
    assert held, promise
    for file, name in held:
        assert (TESTS / file).is_file(), file
        assert not name or name in names_in(TESTS / file), f"{file}::{name}"
