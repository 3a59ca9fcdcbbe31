"""What a spec cannot ask for where a source gives series of which only tables tell before the build."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from builder.clinical import ClinicalTable
from builder.labels import AnyLabel
from builder.sources import AnySource
from builder.sources.deferring import is_deferred
from builder.transforms import AnyTransform
from builder.transforms.intensity import sets_type

TOLD_OF_CLINICAL: Final = frozenset({"person", "study", "series", "date"})
"""What the rows of a clinical table may be joined by."""

ADVICE: Final = "; or leave headers out of the source, then every header is read before the plan"


def stated_faults(
    sources: Sequence[AnySource],
    *,
    labels: Mapping[str, AnyLabel],
    several_images: bool,
    clinical: Sequence[ClinicalTable],
    transforms: Sequence[AnyTransform],
    image_type: str | None,
    faces: str,
) -> Iterator[str]:
    """Yield what only headers or objects tell, if a source reads headers late.

    Parameters
    ----------
    image_type
        Number type that images are stored in, where the spec states one.
    faces
        ``deid.faces``: unless faces are kept, the plan looks for them in the pixels.
    """
    late = [number for number, source in enumerate(sources) if is_deferred(source)]
    if not late:
        return
    where = f"sources.{late[0]}.headers: when_needed"
    if len(late) != len(sources):
        yield f"{where}: found sources of other kinds beside it, expected it in all sources{ADVICE}"
    if labels:
        yield f"{where}: found labels, which are found by their objects, expected none{ADVICE}"
    if several_images:
        yield f"{where}: found cohort.images, whose places only headers tell, expected cases of one image{ADVICE}"
    if faces != "keep":
        yield f"{where}: found deid.faces: {faces}, for which a plan looks at heads, expected keep{ADVICE}"
    if image_type is None and not any(map(sets_type, transforms)):
        yield (
            f"{where}: found nothing that says the number type of the image, which only headers tell, expected it: add "
            f"{{kind: intensity, dtype: int16}} or float32 to transforms{ADVICE}"
        )
    for table in clinical:
        unknown = sorted({*map(str, table.by.values())} - TOLD_OF_CLINICAL) + (["issuer"] if table.issuer else [])
        if unknown:
            expected = "person, study, series or date"
            yield f"{where}: found a clinical table joined by {unknown[0]}, expected {expected}{ADVICE}"
