"""The table of verdicts: one row per stack, without identifiers."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from builder.errors import CaseError
from builder.imaging.lint import Finding
from builder.imaging.stacks.stack import Stack
from builder.model.case import Volume
from builder.model.tables import REAL, SMALL, TEXT, TEXTS, WHOLE, Column, schema

VERDICT_COLUMNS = (
    Column("series", SMALL),  # position of the series in the folder, by the path of its first file
    Column("stack", SMALL),  # position of the stack in its series
    Column("folder", TEXT),  # of the first file, relative to what was surveyed
    Column("modality", TEXT, 0x00080060),
    Column("split_rule", TEXT),
    Column("verdict", TEXT),
    Column("detail", TEXT),
    Column("instances", WHOLE),
    Column("frames", WHOLE),
    Column("channels", SMALL),
    Column("slices", SMALL),
    Column("rows", SMALL, 0x00280010),
    Column("columns", SMALL, 0x00280011),
    Column("spacing_slice_mm", REAL, unit="mm"),
    Column("spacing_row_mm", REAL, unit="mm"),
    Column("spacing_column_mm", REAL, unit="mm"),
    Column("orientation", TEXT),
    Column("domain", TEXT),
    Column("dtype", TEXT),
    Column("notes", TEXTS),
    Column("findings", TEXTS),  # builder.imaging.lint
    Column("reason", TEXT),  # builder.errors.Reason where no volume was made
    Column("reason_detail", TEXT),
    Column("file", TEXT),  # the NIfTI file, relative to the destination
)

VERDICTS = schema(VERDICT_COLUMNS)
"""Schema of the table with one row per stack of a surveyed folder."""


def verdict_row(
    stack: Stack,
    *,
    volume: Volume | None = None,
    error: CaseError | None = None,
    findings: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Make the row of a stack from its headers, and from its volume when it was assembled."""
    grid = volume.geometry if volume is not None else stack.geometry
    spacing = grid.spacing_mm if grid is not None else (None, None, None)
    return {
        "stack": stack.number,
        "modality": stack.modality,
        "split_rule": stack.split_rule,
        "verdict": stack.verdict.value,
        "detail": stack.detail,
        "instances": len({uid for channel in stack.uids for uid in channel}),
        "frames": stack.frames,
        "channels": len(volume.channels) if volume is not None else len(stack.channels),
        "slices": stack.shape[0],
        "rows": stack.shape[1],
        "columns": stack.shape[2],
        "spacing_slice_mm": spacing[0],
        "spacing_row_mm": spacing[1],
        "spacing_column_mm": spacing[2],
        "orientation": grid.orientation if grid is not None else None,
        "domain": volume.domain.value if volume is not None else None,
        "dtype": str(volume.voxels.dtype) if volume is not None else None,
        "notes": list(volume.notes if volume is not None else stack.notes),
        "findings": [str(finding) for finding in findings],
        "reason": error.reason.value if error is not None else None,
        "reason_detail": error.detail if error is not None else None,
    }


def verdict_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Make a table of schema VERDICTS from rows; columns that a row lacks are null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in VERDICTS.names} for row in rows], schema=VERDICTS)
