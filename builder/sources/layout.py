"""How a folder names its files: the option that turns NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF files into images."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from builder.errors import SpecError
from builder.model.case import ValueDomain
from builder.model.patterns import check_pattern, fits, groups_of

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
    if _AGAIN in "".join(name for name, _, _ in _PIECES.findall(pattern)):
        raise ValueError(f"found a field with {_AGAIN} in its name, expected single underscores")
    check_pattern(_expression(pattern, "", {}))
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
    path: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_several, json_schema_input_type=str | tuple[str, ...])
    ] = ()
    patient: str = "patient"
    visit: str | None = None
    case: str | None = None
    split: str | None = None
    labels: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_several, json_schema_input_type=str | tuple[str, ...])
    ] = ()
    modality: str | Mapping[str, str] = Field(default_factory=dict)
    values: ValueDomain | Mapping[str, ValueDomain] = Field(default_factory=dict)
    body_part: str = ""
    pixel_spacing_mm: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Ask for ``kind`` or for what gives it away (``layout_of``)."""
        made = handler(core)
        block = handler.resolve_ref_schema(made)
        block["anyOf"] = [{"required": [one]} for one in (*block.pop("required"), "table", "pattern")]
        return made

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


LayoutBlock: TypeAlias = Annotated[
    Layout | None, BeforeValidator(layout_of, json_schema_input_type=Layout | Literal["bids", "nnunet", "msd"] | None)
]
"""The option ``layout`` of a source, short forms included."""


@dataclass(frozen=True)
class Fit:
    """What the fields of a pattern are in a path: taken as long as they can be, and as short."""

    longest: Mapping[str, str]
    shortest: Mapping[str, str]

    def fields(self) -> dict[str, str]:
        """Return the fields.

        Raises
        ------
        SpecError
            If the path fits in more than one way, so that its patient or image would be guessed.
        """
        unclear = sorted(n for n, v in self.longest.items() if n in FIELDS and self.shortest[n] != v)
        if unclear:
            raise SpecError(
                f"layout.pattern: found paths that fit in more than one way, which leaves {', '.join(unclear)} open; "
                "expected one way: say what a field may be, as in {image:t1|t2|flair} or {patient:sub-[0-9]+}"
            )
        return dict(self.longest)


def fits_of(pattern: str, paths: Sequence[str]) -> dict[str, Fit]:
    """Return how each path fits the pattern; paths that do not fit are left out. Raises SpecError for hopeless ones."""
    longest, shortest = (_taken(pattern, paths, lazily=lazily) for lazily in ("", "?"))
    pairs = zip(paths, longest, shortest, strict=True)
    return {path: Fit(most, least) for path, most, least in pairs if most is not None and least is not None}


def _taken(pattern: str, paths: Sequence[str], *, lazily: str) -> list[dict[str, str] | None]:
    """Return the fields of each path, or None where it does not fit."""
    found = groups_of(_expression(pattern, lazily, {}), paths)
    pairs = zip(paths, found, strict=True)
    settled = [f if f is None or _agrees(f) else _agreeing(pattern, p, lazily, {}) for p, f in pairs]
    return [None if f is None else {n: v for n, v in f.items() if _AGAIN not in n} for f in settled]


_AGAIN: Final = "__"
"""Marks a repeated field in the name of its group."""


def _agrees(found: Mapping[str, str]) -> bool:
    return all(value == found[name.partition(_AGAIN)[0]] for name, value in found.items())


def _agreeing(pattern: str, path: str, lazily: str, fixed: Mapping[str, str]) -> dict[str, str] | None:
    """Return the fields of a path of which the repeated ones are equal, by trying what the first of them may be.

    RE2 knows no back-references. Raises SpecError when there is too much to try.
    """
    counts = Counter(name for name, _, _ in _PIECES.findall(pattern) if name and name not in fixed)
    name, count = counts.most_common(1)[0]
    if count == 1:
        return groups_of(_expression(pattern, lazily, fixed), [path])[0]
    own = next(expression for field, expression, _ in _PIECES.findall(pattern) if field == name)
    values = _occurring(path, count)
    for value in values if lazily else reversed(values):
        if not own or fits(own, value):
            found = _agreeing(pattern, path, lazily, {**fixed, name: value})
            if found is not None:
                return found
    return None


_MOST_VALUES: Final = 300


def _occurring(path: str, times: int) -> tuple[str, ...]:
    """Return the texts without a slash that occur so often in a path, short ones first."""
    found: dict[str, None] = {}
    length, starts = 1, list(range(len(path)))
    while starts:
        texts = {start: path[start : start + length] for start in starts if start + length <= len(path)}
        often = {start: text for start, text in texts.items() if "/" not in text and path.count(text) >= times}
        found |= dict.fromkeys(often.values())
        length, starts = length + 1, list(often)  # what occurs so often begins with shorter texts that do
        if len(found) > _MOST_VALUES:
            raise SpecError(
                f"layout.pattern: found a path in which a repeated field may be more than {_MOST_VALUES} things, "
                "expected fewer: say what the field may be, as in {patient:sub-[0-9]+}"
            )
    return tuple(found)


def _expression(pattern: str, lazily: str, fixed: Mapping[str, str]) -> str:
    """Return the pattern as an expression whose fields take as much as they can, or as little.

    ``fixed`` fields have a value; other fields that are repeated are groups of their own.
    """
    pieces, seen, start = [], Counter[str](), 0
    for match in _PIECES.finditer(pattern):
        pieces.append(re.escape(pattern[start : match.start()]))
        name, expression, wildcard = match.groups()
        start = match.end()
        if wildcard:
            glob = {"*": f"[^/]*{lazily}", "?": "[^/]"}
            pieces.append(glob.get(wildcard, f"(?s:.*{lazily})" if wildcard == "**" else f"(?s:(?:.*{lazily}/)?)"))
            continue
        if name in fixed:
            inside = re.escape(fixed[name])
        else:
            inside = f"(?:{expression})" if expression and not seen[name] else f"[^/]+{lazily}"
        pieces.append(f"(?P<{name}{f'{_AGAIN}{seen[name]}' if seen[name] else ''}>{inside})")
        seen[name] += 1
    return "".join([*pieces, re.escape(pattern[start:])])
