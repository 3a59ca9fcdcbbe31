"""Tutorials as notebooks: valid, without outputs, and run by Jupyter itself."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tests.docs.pages import NEEDS, ROOT, blocks, lay_out

NOTEBOOKS = runpy.run_path(str(ROOT / "docs" / "site" / "notebooks.py"))


def made(name: str) -> nbformat.NotebookNode:
    text = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text()
    return nbformat.reads(NOTEBOOKS["notebook"](text), as_version=4)


@pytest.mark.parametrize("name", NOTEBOOKS["TUTORIALS"])
def test_a_notebook_holds_every_block_of_its_page_and_no_output(name: str) -> None:
    document = made(name)
    nbformat.validate(document)
    assert not [cell for cell in document.cells if cell.get("outputs") or cell.get("execution_count")]
    sources = "\n".join(cell.source for cell in document.cells)
    for block in blocks(ROOT / "docs" / "tutorials" / f"{name}.md"):
        for line in block.text.strip().splitlines():
            assert line in sources or line.startswith("export "), line
    assert "\nexport " not in sources


@pytest.mark.skipif(os.environ.get("BUILDER_DOCS") != "all", reason="make docs-all runs them")
@pytest.mark.parametrize("name", NOTEBOOKS["TUTORIALS"])
def test_a_notebook_runs(
    name: str, tmp_path: Path, corpus: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    for need in NEEDS.findall((ROOT / "docs" / "tutorials" / f"{name}.md").read_text()):
        lay_out(need, tmp_path, corpus)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    document = made(name)
    NotebookClient(document, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in document.cells if cell.cell_type == "code")
