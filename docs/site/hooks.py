"""Hooks for MkDocs: generate pages from the code, and point links that leave ``docs/`` at pages of the site.

``mkdocs.yml`` names this file. The reference of the spec comes from the JSON Schema, the reference of the
command line from the commands, and README, example specs and the like become pages of the site.
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT))

import command_pages  # noqa: E402
import notebooks  # noqa: E402
import spec_pages  # noqa: E402

AT_TOP = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
AT_TOP["SECURITY.md"] = "SECURITY.md"
SOURCES = {".yaml": "yaml", ".py": "python"}
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Replace each folder that the navigation names (``spec/``) by the pages in it."""
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no files of this folder."""
    for place, text in _generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave the folder at the pages made of their targets, and a tutorial at its notebook."""
    source = page.file.abs_src_path
    if f"{Path(page.file.src_uri).with_suffix('.ipynb')}" in _generated():
        title, _, rest = markdown.partition("\n")
        name = Path(page.file.src_uri).stem
        markdown = f"{title}\n\n[This page as a Jupyter notebook]({name}.ipynb){{: download }}\n{rest}"
    return _relinked(markdown, Path(source).parent, page.file.src_uri) if source else markdown


@cache
def _generated() -> dict[str, str]:
    """Return the text of each generated page by its place."""
    made = dict(spec_pages.pages()) | {"commands.md": command_pages.page()} | dict(notebooks.pages(_relinked))
    for name, place in AT_TOP.items():
        made[place] = _relinked((ROOT / name).read_text(), ROOT, place)
    for folder in ("specs", "examples", "cluster"):
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in SOURCES:
                text = f"# {path.name}\n\n```{SOURCES[path.suffix]}\n{path.read_text()}```\n"
                made[f"{folder}/{path.stem}.md"] = text
    return made


def _expanded(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, below),) = entry.items()
    if isinstance(below, list):
        return {title: [_expanded(one) for one in below]}
    if not below.endswith("/"):
        return entry
    present = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / below).glob("*.md")]
    there = {*present, *(place for place in _generated() if place.startswith(below))}
    return {title: sorted(there, key=lambda place: (not place.endswith("/index.md"), place))}


def _relinked(markdown: str, folder: Path, place: str) -> str:
    def moved(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        inside = target.relative_to(ROOT).as_posix()
        inside = AT_TOP.get(inside, inside.removeprefix("docs/"))
        if target.suffix in SOURCES:
            inside = str(Path(inside).with_suffix(".md"))
        up = "../" * place.count("/")
        return f"]({up}{inside}{match[2] or ''})"

    return LINK.sub(moved, markdown)
