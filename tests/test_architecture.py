"""docs/architecture.md says what is there: its tree, its import rule and the files it names."""

import re
import tomllib
from pathlib import Path

from tests.spec_walk import climbs, read_code

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


def test_the_walk_of_the_spec_climbs_back_at_most_as_often_as_the_page_says():
    stated = re.search(r"climbs back up (\d+) times", section("Import rule"))
    layers = re.findall(r"```\n(.*?)```", section("Import rule"), re.DOTALL)[0].split("\n")
    found = climbs(read_code(ROOT / "builder"), layers[: layers.index("spec") + 1])
    assert stated is not None
    assert int(stated[1]) <= 8
    assert len(found) == int(stated[1]), sorted(found)


def test_a_walk_that_climbs_is_noticed(tmp_path):
    files = {
        "top.py": "from it.low import f, h\nfrom it.spec import DatasetSpec\n"
        "def go(spec: DatasetSpec): f(spec); g(spec); h(spec.name)\ndef g(spec: DatasetSpec): ...",
        "low.py": "from it.spec import DatasetSpec\ndef f(spec: DatasetSpec): ...\ndef h(name: str): ...",
        "spec.py": "class DatasetSpec: ...",
    }
    (tmp_path / "it").mkdir()
    for name, text in files.items():
        (tmp_path / "it" / name).write_text(text)
    code = read_code(tmp_path / "it")
    assert climbs(code, ["top", "low", "spec"]) == {("it.low.f", "it.top.g")}
    assert climbs(code, ["low", "top", "spec"]) == {("it.top.go", "it.low.f")}
