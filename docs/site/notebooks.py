"""Tutorials as Jupyter notebooks, made from their pages: prose, commands and Python become cells, without outputs."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ("segmentation-rtstruct", "chest-classification", "nifti-to-nnunet")
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```\n?', re.MULTILINE | re.DOTALL)
EXPORT = re.compile(r"^export (\w+)=(.+)\n", re.MULTILINE)
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE)


def notebook(text: str) -> str:
    """Return the text of a page as a notebook, JSON of nbformat 4.5."""
    cells = [{**cell, "id": f"cell-{number:02d}", "metadata": {}} for number, cell in enumerate(_cells(text))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def pages(relinked: Callable[[str, Path, str], str]) -> Iterator[tuple[str, str]]:
    """Yield the place on the site and the text of each notebook; ``relinked`` points links at pages of the site."""
    for name in TUTORIALS:
        page, place = ROOT / "docs" / "tutorials" / f"{name}.md", f"tutorials/{name}.ipynb"
        yield place, notebook(relinked(page.read_text(), page.parent, place))


def _cells(text: str) -> Iterator[dict[str, Any]]:
    end = 0
    for block in FENCE.finditer(text):
        yield from _prose(text[end : block.start()])
        kind, title, content = block.groups()
        if title:
            yield _code(f"%%writefile {title}\n{content}")
        elif kind == "sh":
            yield from _commands(content)
        elif kind == "python":
            yield _code(content)
        else:
            yield _markdown(f"Prints:\n\n```text\n{content}```")
        end = block.end()
    yield from _prose(text[end:])


def _commands(content: str) -> Iterator[dict[str, Any]]:
    """Yield a cell that sets variables, for each cell has a shell of its own, and one that runs the other commands."""
    stated = EXPORT.findall(content)
    if stated:
        lines = [f'os.environ["{name}"] = getoutput({json.dumps(f"echo {value}")})' for name, value in stated]
        yield _code("\n".join(["import os", "from subprocess import getoutput", "", *lines]))
    rest = EXPORT.sub("", content).strip()
    if rest:
        yield _code(f"%%bash\nset -euo pipefail\n{rest}")


def _prose(text: str) -> Iterator[dict[str, Any]]:
    """Yield a cell of prose, in which links lead to the pages beside the notebook."""
    said = COMMENT.sub("", text).strip()
    if said:
        yield _markdown(re.sub(r"\]\(([^):#]+)\.md", r"](\1.html", said))


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": text}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "outputs": [], "source": text.strip()}
