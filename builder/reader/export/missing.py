"""Refuse to export samples that lack an image, because no other format says which channels are only filled."""

from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import SpecError, counted
from builder.reader.dataset import Dataset

Missing: TypeAlias = Literal["refuse", "fill"]
"""What to do about a sample that lacks an optional image: refuse to export it, or export the fill in its channel."""


def check_present(dataset: Dataset, missing: Missing) -> None:
    """Raise SpecError if a sample lacks an image, unless its channel may be exported as it was filled."""
    if missing == "fill":
        return
    table = dataset.table
    for name in (n for n in table.schema.names if n.startswith("present.")):
        absent = pc.sum(pc.invert(table.column(name)).cast(pa.int64())).as_py() or 0
        if absent:
            image = name.partition(".")[2]
            raise SpecError(
                f"export: found {absent} of {counted(len(dataset), 'sample')} without the image {image}, "
                f'expected all images: select samples that have it (dataset.where("{name}")), '
                f'or export its fill value with missing="fill"'
            )


def one_image_field(dataset: Dataset) -> str:
    """Return the only field of images. Raises SpecError if there are several, which lie on several grids."""
    fields = dataset.image_fields
    if len(fields) != 1:
        raise SpecError(
            f"export: found the fields {', '.join(fields)} on grids of their own, expected images on one grid: state "
            "cohort.visits.aligned or aligned of the images, or export with export_nifti"
        )
    return fields[0]
