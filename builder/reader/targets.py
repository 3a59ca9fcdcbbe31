"""What a model is to predict, as arrays: class labels, weights of classes and persons, padded boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from builder.errors import SpecError
from builder.model.classes import MISSING, is_class, levels_of

BOOLEAN_LEVELS = ("false", "true")


def class_levels(field: pa.Field) -> tuple[str, ...]:
    """Return the levels of a class column in the order of their numbers, from 0; none for a column of numbers."""
    return BOOLEAN_LEVELS if pa.types.is_boolean(field.type) else levels_of(field)


def class_numbers(values: pa.ChunkedArray, field: pa.Field) -> NDArray[Any]:
    """Return a class column as numbers: of levels int64 with -1 where unknown, of numbers float64 with NaN."""
    if pa.types.is_boolean(field.type):
        return np.array([MISSING if v is None else int(v) for v in values.to_pylist()], np.int64)
    levels = {level: n for n, level in enumerate(levels_of(field))}
    if not levels:
        return np.asarray(values.cast(pa.float64()).to_numpy(), np.float64)
    return np.array([levels.get(v, MISSING) for v in values.to_pylist()], np.int64)


def targets_of(table: pa.Table, columns: str | Sequence[str]) -> NDArray[Any]:
    """Return class columns as numbers.

    Parameters
    ----------
    columns
        One column gives (sample,) numbers as in ``class_numbers``. Several give (sample, column) float32, NaN where
        unknown, as losses for several findings take them.

    Raises
    ------
    SpecError
        For a column that holds no class label.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    known = [field.name for field in table.schema if is_class(field)]
    for name in names:
        if name not in known:
            raise SpecError(
                f"targets: found {name!r}, expected some of {', '.join(known) or 'no column: none is a class'}"
            )
    found = [class_numbers(table[name], table.schema.field(name)) for name in names]
    if isinstance(columns, str):
        return found[0]
    several = np.stack([values.astype(np.float32) for values in found], axis=1)
    for place, values in enumerate(found):
        if values.dtype.kind == "i":
            several[values == MISSING, place] = np.nan
    return several


@dataclass(frozen=True)
class ClassWeights:
    """How often each value of a column occurs in the split that a model is trained on, and the weight it gets for that.

    Parameters
    ----------
    column, fitted_on
        The column, and the split from whose samples alone counts and weights are taken.
    samples, persons
        Maps each value (as text) to its samples, and to the persons who have any.
    weights
        Maps each value to samples / (values * samples of the value): 1 on average over the samples.
    """

    column: str
    fitted_on: str
    samples: Mapping[str, int]
    persons: Mapping[str, int]
    weights: Mapping[str, float]


def fit_weights(table: pa.Table, column: str, *, fitted_on: str) -> ClassWeights:
    """Fit the weights of a column's values on the samples of one split of an index; unknown values count nowhere.

    Raises
    ------
    SpecError
        For an unknown column, or if no sample of the split has a value.
    """
    if column not in table.column_names:
        raise SpecError(f"weights: found no column {column!r}, expected one of the index")
    rows = table.filter(pc.fill_null(pc.equal(table["split"], fitted_on), False))
    pairs = [
        (person, _text(value))
        for person, value in zip(rows["person_key"].to_pylist(), rows[column].to_pylist(), strict=True)
        if value is not None and value == value
    ]
    if not pairs:
        raise SpecError(f"weights: found no value of {column} in the split {fitted_on!r}, expected classes to weigh")
    values = sorted({value for _, value in pairs})
    samples = {value: sum(v == value for _, v in pairs) for value in values}
    persons = {value: len({p for p, v in pairs if v == value}) for value in values}
    weights = {value: len(pairs) / (len(values) * samples[value]) for value in values}
    return ClassWeights(column, fitted_on, samples, persons, weights)


def balance(table: pa.Table, column: str) -> NDArray[np.float64]:
    """Return (sample,) weights by which every value of a column, and within it every person, is equally frequent.

    Samples without a value get 0 and are not drawn.
    """
    values = [None if v is None or v != v else _text(v) for v in table[column].to_pylist()]
    persons = table["person_key"].to_pylist()
    of_value: dict[str, set[str]] = {}
    own: dict[tuple[str, str], int] = {}
    for person, value in zip(persons, values, strict=True):
        if value is not None:
            of_value.setdefault(value, set()).add(person)
            own[value, person] = own.get((value, person), 0) + 1
    return np.array(
        [
            0.0 if value is None else 1.0 / (len(of_value[value]) * own[value, person])
            for person, value in zip(persons, values, strict=True)
        ]
    )


@dataclass(frozen=True, eq=False)
class PaddedBoxes:
    """The boxes of a batch, padded to one number a sample.

    Parameters
    ----------
    boxes
        (sample, box, 6) float64: first and last voxel coordinate (slice, row, column) in the sample; 0 where padded.
    classes
        (sample, box) int64: the place of the class in ``names``, -1 where padded.
    counts
        (sample,) int64: boxes of each sample; 0 for a negative image.
    known
        (sample,) bool: whether anybody looked. A sample that is not known must not be trained on as a negative one.
    names
        The classes.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    counts: NDArray[np.int64]
    known: NDArray[np.bool_]
    names: tuple[str, ...]

    def corners(self, sample: int) -> NDArray[np.float64]:
        """Return (box, 4) x_min, y_min, x_max, y_max of one sample, counted from the corner of the first pixel."""
        first, last = np.split(self.boxes[sample, : self.counts[sample]], 2, axis=1)
        return np.concatenate([first[:, [2, 1]], last[:, [2, 1]]], axis=1) + 0.5


def padded_boxes(
    table: pa.Table,
    label: str,
    *,
    names: Sequence[str],
    starts: NDArray[np.int64] | None = None,
    shape: Sequence[int] | None = None,
    most: int | None = None,
) -> PaddedBoxes:
    """Return the boxes of a label for some rows of an index.

    Parameters
    ----------
    names
        The classes, in the order of their numbers. Boxes of other classes are left out.
    starts, shape
        First voxel and size of the crop that was read of each sample. Boxes that do not meet it are left out, and
        others end at its edges.
    most
        Number of boxes to pad to; the largest number of any sample when absent.

    Raises
    ------
    SpecError
        If a sample has more than ``most`` boxes, so that some would be lost.
    """
    place = {name: n for n, name in enumerate(names)}
    tiers = f"evidence.{label}.tier"
    looked = table[tiers].is_valid().to_numpy() if tiers in table.column_names else np.zeros(table.num_rows, bool)
    columns = ("box_names", "box_classes", "boxes")
    found: list[list[tuple[int, NDArray[np.float64]]]] = []
    for number, row in enumerate(table.select(columns).to_pylist()):
        corners = np.reshape(np.array(row["boxes"] or (), np.float64), (-1, 2, 3))
        own = []
        for owner, kind, box in zip(row["box_names"] or (), row["box_classes"] or (), corners, strict=True):
            if owner != label or kind not in place:
                continue
            moved = box if starts is None else box - starts[number]
            inside = moved if shape is None else _inside(moved, shape)
            if inside is not None:
                own.append((place[kind], inside.reshape(6)))
        found.append(own)
    counts = np.array([len(own) for own in found], np.int64)
    width = int(counts.max(initial=0)) if most is None else most
    if counts.max(initial=0) > width:
        raise SpecError(f"boxes: found {counts.max()} boxes in one sample, expected at most {width}; raise most")
    boxes, classes = np.zeros((len(found), width, 6)), np.full((len(found), width), MISSING, np.int64)
    for number, own in enumerate(found):
        for n, (kind, box) in enumerate(own):
            boxes[number, n], classes[number, n] = box, kind
    return PaddedBoxes(boxes, classes, counts, np.asarray(looked, bool), tuple(names))


def _inside(box: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the part of a box that lies in a crop; None if there is none."""
    end = np.asarray(shape) - 0.5
    if (box[0] >= end).any() or (box[1] < -0.5).any():
        return None
    return np.clip(box, -0.5, end)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
