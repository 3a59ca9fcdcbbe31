"""What a dataset's page says, as numbers first and then as a page: pure functions from Arrow tables.

``assemble`` and ``render`` are loaded when first used, so that the vendor table alone stays cheap to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.report.assembly import assemble as assemble
    from builder.report.html import render as render

__all__ = ["assemble", "render"]


def __getattr__(name: str) -> Any:
    if name == "assemble":
        from builder.report.assembly import assemble

        return assemble
    if name == "render":
        from builder.report.html import render

        return render
    raise AttributeError(f"module 'builder.report' has no attribute {name!r}; it has assemble and render")
