"""Every command and code block of the tutorials works, and prints what the page shows."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, run

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
FAST = ("nifti-to-nnunet",)
"""Run by ``make test``; ``make docs-all`` runs the others, and tests/cluster/test_slurm.py the one that needs Slurm."""


@pytest.mark.parametrize("page", [ROOT / "docs" / "getting-started.md", *TUTORIALS], ids=lambda page: page.stem)
def test_the_page_runs(page: Path, tmp_path: Path, corpus: Callable[[str], Path]) -> None:
    assert list(blocks(page))
    if page.stem == "slurm":
        pytest.skip("make test-cluster runs it")
    if page.stem not in FAST and os.environ.get("BUILDER_DOCS") != "all":
        pytest.skip("make docs-all runs it")
    run(page, tmp_path, corpus)


def test_a_line_that_is_not_printed_and_a_command_that_fails_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho one two\n```\n\n```text\none ...\n```\n")
    run(page, tmp_path, Path)
    page.write_text("```sh\necho one two\n```\n\n```text\nthree\n```\n")
    with pytest.raises(AssertionError, match="three"):
        run(page, tmp_path, Path)
    page.write_text("```sh\nfalse\n```\n")
    with pytest.raises(AssertionError, match="block 0"):
        run(page, tmp_path, Path)
