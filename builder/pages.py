"""How pages and texts are rendered: one environment for HTML pages and one for plain text."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(folder: Path) -> "Environment":
    """Return Jinja's environment for the templates of a folder: everything is escaped, and an unknown name is an error.

    Raises
    ------
    jinja2.UndefinedError
        While rendering, for a name the template is not given.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        optimized=False,  # each template is rendered once
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text_environment() -> "Environment":
    """Return Jinja's environment for plain text and Markdown: nothing is escaped, and an unknown name is an error."""
    from jinja2 import Environment, StrictUndefined

    return Environment(optimized=False, undefined=StrictUndefined)
