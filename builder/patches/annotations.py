"""Annotations that are no masks, as the lists of a sample's row: boxes, landmarks, measurements, classes, texts."""

from typing import Any

import numpy as np

from builder.model.case import Boxes, Case, Classes, Code, Landmarks, Measurement, Measurements, Scalar, Text
from builder.model.cleared import CODED
from builder.model.geometry import Geometry

DIGITS = 9
"""Decimals of voxel coordinates: a millionth of a millimetre at any spacing; what lies beyond is one machine's."""


def annotation_lists(case: Case, geometry: Geometry) -> dict[str, list[Any]]:
    """Return the annotations that are no masks as lists, by the columns of ``builder.model.samples``."""
    found: dict[str, list[Any]] = {}

    def extend(**columns: list[Any]) -> None:
        for column, values in columns.items():
            found.setdefault(column, []).extend(values)

    for note in case.annotations:
        if isinstance(note, Boxes):
            kept, boxes = _boxes_in(note, geometry)
            classes = [note.classes[i] for i in kept]
            extend(box_names=[note.name] * len(kept), box_classes=classes, boxes=boxes)
        elif isinstance(note, Landmarks):
            kept, points = _points_in(note, geometry)
            groups = [note.groups[i] for i in kept] if note.groups else [""] * len(kept)
            classes = [note.classes[i] for i in kept]
            names = [note.name] * len(kept)
            extend(landmark_names=names, landmark_classes=classes, landmark_groups=groups, landmarks=points)
        elif isinstance(note, Measurements):
            extend(
                measurement_names=[note.name] * len(note.items),
                measurement_quantities=[_quantity(item) for item in note.items],
                measurement_values=[item.value for item in note.items],
                measurement_units=[item.unit for item in note.items],
                measurement_concepts=[code_text(item.concept) for item in note.items],
                measurement_findings=[code_text(item.finding) for item in note.items],
                measurement_sites=[code_text(item.site) for item in note.items],
                measurement_tracking=[item.tracking_id for item in note.items],
            )
        elif isinstance(note, Classes):
            extend(
                class_names=[f"{note.name}/{finding}" for finding in sorted(note.values)],
                class_values=[_text(note.values[finding]) for finding in sorted(note.values)],
            )
        elif isinstance(note, Text):
            extend(text_names=[note.name], texts=[note.text])
    return found


def _boxes_in(note: Boxes, geometry: Geometry) -> tuple[list[int], list[float]]:
    """Return numbers of the boxes that meet the sample, and their first and last voxel coordinates in it."""
    kept, flat = [], []
    end = np.asarray(geometry.shape) - 0.5
    for number, corners in enumerate(note.corners_mm):
        voxels = geometry.to_voxel(corners)
        first, last = voxels.min(axis=0), voxels.max(axis=0)
        if (first < end).all() and (last >= -0.5).all():
            kept.append(number)
            flat += [float(x) for x in np.round(np.concatenate([first, last]), DIGITS)]
    return kept, flat


def _points_in(note: Landmarks, geometry: Geometry) -> tuple[list[int], list[float]]:
    """Return numbers of the landmarks inside the sample, and their voxel coordinates in it."""
    voxels = geometry.to_voxel(note.points_mm)
    inside = ((voxels >= -0.5) & (voxels < np.asarray(geometry.shape) - 0.5)).all(axis=1)
    kept = [int(i) for i in np.flatnonzero(inside)]
    return kept, [float(x) for x in np.round(voxels[kept], DIGITS).ravel()]


def _quantity(item: Measurement) -> str:
    """Return the codes of a quantity and its derivation, marked so that the privacy gate replaces them by our words."""
    if item.concept is None:
        return item.quantity
    return "".join(f"{CODED}{code}" for code in (item.concept, item.derivation) if code is not None)


def code_text(code: Code | None) -> str | None:
    return None if code is None else str(code)


def _text(value: Scalar) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
