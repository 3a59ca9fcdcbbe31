"""Compute the figures of a dataset's report and render them as a page; all functions are pure and take Arrow tables.

They are loaded on first use, because what they import (numpy, pyarrow, jinja) is slow to load.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.report.assembly import ReportInputs as ReportInputs
    from builder.report.assembly import assemble as assemble
    from builder.report.html import render as render

__all__ = ["ReportInputs", "assemble", "render"]


def __getattr__(name: str) -> Any:
    if name in ("ReportInputs", "assemble"):
        from builder.report import assembly

        return getattr(assembly, name)
    if name == "render":
        from builder.report.html import render

        return render
    raise AttributeError(f"module 'builder.report' has no attribute {name!r}; it has {', '.join(__all__)}")
