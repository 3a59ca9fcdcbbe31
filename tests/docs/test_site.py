"""The site of docs/: built strictly, searchable from a disk, and without anything that is fetched from elsewhere."""

import re
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from inspect import getmembers, isclass, isfunction
from pathlib import Path
from typing import Any

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

import builder
import builder.errors
import builder.protocols
import builder.reader
from builder.spec import DatasetSpec
from builder.specfile.schema import described_schema
from tests.test_docs import commands

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning of MkDocs (a dead link, a page outside the navigation) raises."""
    target = tmp_path_factory.mktemp("site")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of libraries under MkDocs; its own go through logging
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(ROOT)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(target), strict=True))
    return target


class Fetched(HTMLParser):
    """Collects what a browser fetches for a page, links that a reader has to click left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name in ("src", "srcset", "data", "poster") or (tag == "link" and name == "href")):
                self.found.append(value)
            if name == "id" and value:
                self.ids.add(value)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = path.read_text()
        outside = [place for place in Fetched(page).found if re.match(r"(?:[a-z]+:)?//", place)]
        assert not outside, f"{path.name}: {outside}"
        assert 'class="mermaid"' not in page, f"{path.name}: the theme would fetch mermaid from unpkg.com"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", path.read_text()), path.name


def test_the_search_works_from_a_disk(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert index.startswith("var __index")
    assert "spacing_mm" in index
    assert (site / "site" / "assets" / "iframe-worker.js").is_file()
    assert 'src="site/assets/iframe-worker.js"' in (site / "index.html").read_text()


def options() -> Iterator[tuple[str, str, Any]]:
    schema = described_schema(DatasetSpec)
    for model, node in {"": schema, **schema["$defs"]}.items():
        for name, option in node.get("properties", {}).items():
            yield model, name, option


def test_every_option_of_a_spec_is_described_on_a_page(site: Path) -> None:
    assert not [(model, name) for model, name, option in options() if not option.get("description", "").strip()]
    sections: dict[str, str] = {}
    for path in (site / "spec").glob("*.html"):
        for part in path.read_text().split("<h2 id=")[1:]:
            sections[part[1:].split('"')[0]] = part
    top = (site / "spec" / "index.html").read_text()
    missing = [
        (model, name)
        for model, name, _ in options()
        if f"<td><code>{name}</code></td>" not in (sections[model.lower()] if model else top)
    ]
    assert not missing


def test_every_command_and_option_is_on_the_page(site: Path) -> None:
    page = (site / "commands.html").read_text()
    for name, known in commands().items():
        if name and name != "bench":
            section = page.partition(f">builder {name}<")[2].partition("<h2")[0]
            options = {option for option in known - {"--help"} if option.startswith("-")}
            assert not {option for option in options if f"<code>{option}</code>" not in section}, name


def public_names() -> Iterator[str]:
    for name in builder.__all__:
        one = getattr(builder, name)
        yield f"{one.__module__}.{one.__qualname__}"
    for name in builder.reader.__all__:
        one = getattr(builder.reader, name)
        yield f"{one.__module__}.{one.__qualname__}"
        if isclass(one):
            yield from (f"{one.__module__}.{one.__qualname__}.{member}" for member in methods(one))
    for module in (builder.errors, builder.protocols):
        for name, one in getmembers(module, isclass):
            if one.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}"


def methods(one: type) -> Iterator[str]:
    for name, member in vars(one).items():
        if not name.startswith("_") and (isfunction(member) or isinstance(member, property)):
            yield name


def test_every_public_name_is_on_a_page(site: Path) -> None:
    there = set[str]().union(*(Fetched(path.read_text()).ids for path in (site / "api").glob("*.html")))
    assert not sorted(set(public_names()) - there)
