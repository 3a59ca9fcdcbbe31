"""How pages and texts are rendered: one environment for HTML pages and one for plain text."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def template_environment(folder: Path) -> "Environment":
    """Return Jinja's environment for the templates of a folder: everything is escaped, and an unknown name is an error.

    There is one for each folder, because compiling the templates of a page takes longer than all else that it takes;
    a folder's module may add the same filters to it each time.

    Raises
    ------
    jinja2.UndefinedError
        While rendering, for a name the template is not given.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        optimized=False,  # most processes render a template once
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text_environment() -> "Environment":
    """Return Jinja's environment for plain text and Markdown: nothing is escaped, and an unknown name is an error."""
    from jinja2 import Environment, StrictUndefined

    return Environment(optimized=False, undefined=StrictUndefined)
