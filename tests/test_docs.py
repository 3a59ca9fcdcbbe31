"""What README and docs name is there: commands and their options, make targets, scripts, fields, columns, files."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from builder.cli import app

ROOT = Path(__file__).resolve().parent.parent
AT_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in AT_TOP), *sorted((ROOT / "docs").rglob("*.md"))]
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t)(.+)$", re.MULTILINE)
COMMAND = re.compile(r"(?:^|[\s(/])builder ((?:(?:bench|site|federate) )?[a-z][a-z-]*)((?: [^|;&#]*)?)")
NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
"""Words with an underscore are names of the code; plain words may be English."""

ELSEWHERE = {
    "prometheus_client": "a package somebody may install",
    "lung_l": "a structure in an example",
    "reader_b": "a reader in an example",
    "clinical_patient_kirc": "a file of TCGA's",
    "nsclc_radiomics": "a collection of TCIA's",
    "template_overrides": "an option of dask-jobqueue's",
    "csv_of_paths": "a folder of an example",
    "image_t1": "a column of an example",
    "lung_lower_lobe_left": "a file of TotalSegmentator's",
    "lung_lower_lobe_right": "a file of TotalSegmentator's",
    "ntry_2017_subset": "the end of a file of the NIH's",
    "binary_cross_entropy": "a function of PyTorch",
    "persistent_workers": "an option of PyTorch's DataLoader",
    **dict.fromkeys(("a_max", "a_min", "b_max", "b_min", "spatial_axis"), "arguments of MONAI's transforms"),
}
"""Names that are not ours."""


def pieces(page: Path) -> Iterator[str]:
    """Every piece of code on a page, line by line."""
    text = page.read_text()
    for block in (*FENCE.findall(text), *INDENTED.findall(text), *SPAN.findall(FENCE.sub("", text))):
        yield from block.splitlines()


@cache
def commands() -> dict[str, set[str]]:
    """Each command of ``builder`` (``bench read`` too), with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, path: str) -> None:
        found[path] = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{path} {name}".strip())

    walk(typer.main.get_command(app), "")
    return found


@cache
def words() -> set[str]:
    """Every word in the code, its tables, templates, example specs, tests and scripts."""
    folders = ("builder", "tests", "benchmarks", "specs", "examples", "cluster")
    kinds = {".py", ".csv", ".tsv", ".jinja", ".yaml", ".txt", ".sh", ".toml"}
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in kinds]
    text = "\n".join(p.read_text(errors="replace") for p in (*files, ROOT / "pyproject.toml", ROOT / "Makefile"))
    named = {part for p in files for part in p.relative_to(ROOT).with_suffix("").parts}
    return set(re.findall(r"\w+", text)) | named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
class TestPage:
    def test_commands_and_options(self, page: Path):
        for line in pieces(page):
            for match in COMMAND.finditer(line):
                name, rest = match[1], match[2]
                assert name in commands(), f"`builder {name}` is not a command: {line!r}"
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
                    assert option in commands()[name], f"`builder {name}` has no {option}: {line!r}"

    def test_make_targets(self, page: Path):
        makefile = (ROOT / "Makefile").read_text()
        for line in pieces(page):
            for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", line):
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}: {line!r}"

    def test_scripts_and_files(self, page: Path):
        for line in pieces(page):
            for name in re.findall(r"(?<![\w/.])((?:builder|tests|benchmarks|specs|examples)/[\w/.-]+\.\w+)", line):
                assert (ROOT / name).exists(), f"{name} is not there: {line!r}"
            script = re.search(r"(benchmarks/\w+\.py)(.*)", line)
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", script[2]) if script else ():
                assert option in (ROOT / script[1]).read_text(), f"{script[1]} has no {option}: {line!r}"

    def test_names_of_fields_and_columns(self, page: Path):
        unknown = {name for line in pieces(page) for name in NAME.findall(line)} - words() - set(ELSEWHERE)
        assert not unknown, sorted(unknown)

    def test_links(self, page: Path):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", FENCE.sub("", page.read_text())):
            assert (page.parent / target).exists(), target


def test_the_citation_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
