"""How a folder names its files: the option that turns NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF files into images."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from builder.errors import SpecError
from builder.model.case import ValueDomain
from builder.model.patterns import check_pattern

FIELDS: Final = ("patient", "visit", "image", "case", "split")
"""Fields of a pattern that say who and what a file is. Any other field only has to fit."""

_PIECES = re.compile(r"\{([a-z_][a-z0-9_]*)(?::([^{}]*(?:\{[0-9,]+\}[^{}]*)*))?\}|(\*\*/?|\*|\?)")


def _check(pattern: str) -> str:
    for name, expression, _ in _PIECES.findall(pattern):
        if expression:
            check_pattern(expression)
            if re.search(r"\((?!\?:)", expression):
                raise ValueError(f"found a group in the field {{{name}}}, expected none, or (?:...)")
    left = _PIECES.sub("", pattern)
    if "{" in left or "}" in left:
        raise ValueError("found a brace that belongs to no field, expected fields like {patient} or {image:t1|t2}")
    if "{patient" not in pattern:
        raise ValueError("found no field {patient}, expected one: it says who the image is of")
    return pattern


def _one_or_several(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


class Layout(BaseModel):
    """Who and what each file is that is not DICOM. A name alone (``bids``) stands for the kind without options.

    Parameters
    ----------
    kind
        ``bids``, ``nnunet`` or ``msd`` (Medical Segmentation Decathlon), ``pattern`` or ``table``.
    pattern
        Of the paths of images below the source's folder, e.g. ``{patient}/{visit}/{patient}_{image}.nii.gz``. A field
        never crosses a folder, and repeated fields must be equal. ``{image:t1|t2}`` says what a field may be; ``*`` and
        ``**`` stand for anything.
    table
        Path of a table below the source's folder, with a row per case.
    path
        Column, or columns, of the table with the paths of the images, relative to the table's folder. With several, an
        image is named by its column.
    patient, visit, case, split
        Columns of the table.
    labels
        Columns of the table with paths of label files: ``{label}`` in a label's ``match`` stands for the path in the
        first, and ``{label.COLUMN}`` for that in any of them.
    modality
        DICOM's code (CT, MR, PT, DX, MG, ...) of all images, or by the name of the image.
    values
        What the voxels mean: ``HU``, ``SUVbw``, ``Bq/ml`` or ``arbitrary``, for all images or by the name of the image.
        Nothing is taken to be HU that neither this nor a sidecar says is HU.
    body_part
        DICOM's term (HEAD, CHEST, ...) for all images. Images of the head are noted as such, for their faces.
    pixel_spacing_mm
        Millimetres between rows and between columns of pictures, which do not state them themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bids", "nnunet", "msd", "pattern", "table"]
    pattern: Annotated[str, AfterValidator(_check)] | None = None
    table: str | None = None
    path: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = ()
    patient: str = "patient"
    visit: str | None = None
    case: str | None = None
    split: str | None = None
    labels: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = ()
    modality: str | Mapping[str, str] = Field(default_factory=dict)
    values: ValueDomain | Mapping[str, ValueDomain] = Field(default_factory=dict)
    body_part: str = ""
    pixel_spacing_mm: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None

    @model_validator(mode="after")
    def _options_of_the_kind(self) -> "Layout":
        if (self.kind == "pattern") != (self.pattern is not None):
            raise ValueError(f"found the layout {self.kind}, expected a pattern with the layout pattern alone")
        if (self.kind == "table") != (self.table is not None) or (self.kind == "table") != bool(self.path):
            raise ValueError(f"found the layout {self.kind}, expected table and path with the layout table alone")
        return self

    def modality_of(self, image: str) -> str:
        """Return the modality that the spec states for an image; "" if it states none."""
        return self.modality if isinstance(self.modality, str) else self.modality.get(image, "")

    def values_of(self, image: str) -> str:
        """Return the value domain that the spec states for an image; "" if it states none."""
        found = self.values if isinstance(self.values, str) else self.values.get(image, "")
        return str(found)


def layout_of(given: Any) -> Any:
    """Turn the short forms of a spec into the options of a layout: a name, or a block without ``kind``."""
    if isinstance(given, str):
        return {"kind": given}
    if isinstance(given, dict) and "kind" not in given:
        return {"kind": "table" if "table" in given else "pattern", **given}
    return given


def fields_in(pattern: str, path: str) -> dict[str, str] | None:
    """Return the fields of a path, or None if it does not fit the pattern.

    Raises
    ------
    SpecError
        If the path fits in more than one way, so that its patient or image would be guessed.
    """
    found = _expression(pattern, "").fullmatch(path)
    if found is None:
        return None
    other = _expression(pattern, "?").fullmatch(path)
    fields = found.groupdict()
    unclear = sorted(n for n, value in fields.items() if n in FIELDS and other and other.groupdict()[n] != value)
    if unclear:
        raise SpecError(
            f"layout.pattern: found paths that fit in more than one way, which leaves {', '.join(unclear)} open; "
            "expected one way: say what a field may be, as in {image:t1|t2|flair} or {patient:sub-[0-9]+}"
        )
    return fields


@lru_cache(maxsize=32)
def _expression(pattern: str, lazily: str) -> re.Pattern[str]:
    """Return the pattern as an expression whose fields take as much as they can, or as little."""
    pieces, seen, start = [], set(), 0
    for match in _PIECES.finditer(pattern):
        pieces.append(re.escape(pattern[start : match.start()]))
        name, expression, wildcard = match.groups()
        start = match.end()
        if wildcard:
            glob = {"*": f"[^/]*{lazily}", "?": "[^/]"}
            pieces.append(glob.get(wildcard, f".*{lazily}" if wildcard == "**" else f"(?:.*{lazily}/)?"))
        elif name in seen:
            pieces.append(f"(?P={name})")
        else:
            pieces.append(f"(?P<{name}>{f'(?:{expression})' if expression else f'[^/]+{lazily}'})")
            seen.add(name)
    return re.compile("".join([*pieces, re.escape(pattern[start:])]))
