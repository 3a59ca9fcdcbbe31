"""What an install brings: every dependency is imported by the project, every import is declared, each once."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from builder.planning.lock import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: {Requirement(text).name for text in texts} for name, texts in PROJECT["optional-dependencies"].items()}
NOT_FOR_USERS = ("test", "peers", "docs")
NOT_IMPORTED = {"pylibjpeg": "pydicom decodes JPEG 2000 through it"}
NEEDED_BY_OTHERS = {"llvmlite": "numba", "markupsafe": "jinja2", "packaging": "dask"}
"""Imported, and installed with a dependency."""
ELSEWHERE = {"private-set-intersection": "the environment that a site's policy names under patients.python"}


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def imported() -> dict[str, Path]:
    """Top-level modules that the project imports from elsewhere, with a file that does."""
    found = {}
    for path in sorted((ROOT / "builder").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top != "builder" and top not in sys.stdlib_module_names:
                    found.setdefault(top, path)
    return found


def distributions() -> dict[str, set[str]]:
    return {module: {normal(name) for name in names} for module, names in packages_distributions().items()}


def declared() -> list[str]:
    return [Requirement(text).name for text in PROJECT["dependencies"]]


def test_each_dependency_is_declared_once() -> None:
    assert len(declared()) == len({normal(name) for name in declared()})


def test_every_dependency_is_imported() -> None:
    known = distributions()
    used = {name for module in imported() for name in known.get(module, set())}
    assert {normal(name) for name in declared()} - used == set(NOT_IMPORTED)


def test_every_import_is_declared_or_an_extra() -> None:
    known = distributions()
    offered = {normal(name) for name in declared()}
    offered |= {normal(name) for extra, names in EXTRAS.items() if extra not in NOT_FOR_USERS for name in names}
    for module, path in imported().items():
        names = known.get(module, {normal(module)})
        assert names & (offered | set(NEEDED_BY_OTHERS) | set(ELSEWHERE)), (
            f"{path} imports {module}, which nothing installs"
        )


def test_the_lock_names_only_what_an_install_brings() -> None:
    """Another version of a package that no build imports must not rename a dataset."""
    assert set(PACKAGES) - {"medical-dataset-builder"} <= set(declared())


def missing_extras() -> list[tuple[str, list[str]]]:
    """What every ``MissingExtra(...)`` in the project says, by file."""
    found = []
    for path in sorted((ROOT / "builder").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtra":
                stated = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if len(stated) == len(node.args):
                    found.append((path.stem, [str(value) for value in stated]))
    return found


@pytest.mark.parametrize(("where", "said"), missing_extras(), ids=str)
def test_the_extra_a_message_names_installs_the_package(where: str, said: list[str]) -> None:
    package, *extra = said
    if extra:
        assert package in EXTRAS[extra[0]]
    else:
        assert package in declared()
