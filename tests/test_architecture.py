"""docs/architecture.md says what is there: its tree, its import rule and the files it names."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NOT_ROOMS = {"__init__", "__main__"}


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_tree_names_every_room_and_no_other():
    named = set(re.findall(r"^    (\w+)(?:/|\.py) ", section("Tree"), re.MULTILINE))
    found = (ROOT / "builder").iterdir()
    rooms = {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named == rooms - NOT_ROOMS


def test_the_import_rule_is_the_one_that_is_checked():
    stated = re.findall(r"```\n(.*?)```", section("Import rule"), re.DOTALL)[0].strip().splitlines()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert stated == layers


def test_every_file_it_names_is_there():
    for name in re.findall(r"`(builder/[\w/.]+\.\w+)`", PAGE):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"\]\(([\w/.]+)\)", PAGE):
        assert (ROOT / "docs" / name).exists(), name


def test_no_contract_has_an_exception():
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert not [contract["name"] for contract in linter["contracts"] if "ignore_imports" in contract]
