"""Reader for structured reports (TID 1500, related and older forms): measurements, codes and coordinates."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import field_validator
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.content import Graphic, Group, datasets_of, read_groups, read_observers
from builder.labels.label import Label
from builder.labels.linking import KEY_OBJECT_SELECTION, STRUCTURED_REPORTS, select_references
from builder.model.case import Annotation, Classes, Evidence, Landmarks, Measurement, Measurements
from builder.model.linking import ImageRow, Selection
from builder.protocols import ImageFacts, LabelObject


class StructuredReport(Label):
    """Measurements, coded findings and coordinates from SR objects.

    Parameters
    ----------
    quantities
        Coded concepts to keep, ``<scheme>:<value>``. Empty keeps all.
    coordinates
        Whether to ``keep`` the points of SCOORD and SCOORD3D as landmarks ``<name>/points``, or to ``leave`` them out.
    several
        What to do with more than one report: ``refuse`` the case, or ``join`` them.

    Reports whose observers are all devices have the tier ``machine``.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["sr"] = "sr"
    quantities: tuple[str, ...] = ()
    coordinates: Literal["keep", "leave"] = "keep"
    several: Literal["refuse", "join"] = "refuse"

    @field_validator("quantities")
    @classmethod
    def _coded(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [v for v in values if ":" not in v]
        if wrong:
            raise ValueError(f"quantities: found {wrong[0]!r}, expected <scheme>:<value> like SCT:81827009")
        return values

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select structured reports, except key objects, that refer to the image by instance, series or frame."""
        found = select_references(image, candidates, sop_classes=(STRUCTURED_REPORTS,))
        classes = candidates.column("sop_class_uid").to_pylist()
        rows = tuple(row for row in found.rows if classes[row] != KEY_OBJECT_SELECTION)
        return Selection(rows, found.how) if rows else Selection()

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return measurements ``name``, landmarks ``name/points`` and coded answers ``name/codes``, where present.

        Measurements of one group share the (mapped) Tracking Unique Identifier, or else the number of the group.
        Tracking Identifiers are left out because they are free text. ``evidence.readers`` numbers the observers of all
        reports in turn, because their names have been removed. ``evidence.note`` holds the grade: ``A`` can be read
        under TID 1500 by highdicom's rules, ``B`` has measurement groups, ``C`` is any other content.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_UNREADABLE, or LABEL_EMPTY if the reports contain none of the three.
        """
        groups: list[Group] = []
        grades = []
        datasets = self._datasets(objects)
        for dataset in datasets:
            found = read_groups(dataset)
            grades.append(_grade(dataset, found))
            groups.extend(found)
        evidence = self._evidence(datasets, max(grades))
        annotations: list[Annotation] = []
        items = tuple(item for number, group in enumerate(groups) for item in self._measure(group, number))
        if items:
            annotations.append(Measurements(name, items, evidence))
        if self.coordinates == "keep":
            annotations.extend(_landmarks(f"{name}/points", groups, image, evidence))
        codes = {
            f"{number}/{concept.scheme}:{concept.value}": f"{value.scheme}:{value.value}"
            for number, group in enumerate(groups)
            for concept, value in group.codes
        }
        if codes:
            annotations.append(Classes(f"{name}/codes", codes, evidence))
        if not annotations:
            raise CaseError(Reason.LABEL_EMPTY, "found a structured report without measurements, codes or coordinates")
        return tuple(annotations)

    def _datasets(self, objects: Sequence[LabelObject]) -> list[Dataset]:
        if len(objects) > 1 and self.several == "refuse":
            raise CaseError(Reason.LABEL_AMBIGUOUS, f"found {len(objects)} reports, expected one; several: join")
        datasets = datasets_of(objects, "structured report", sop_class=STRUCTURED_REPORTS)
        if any("ContentSequence" not in dataset for dataset in datasets):
            raise CaseError(Reason.LABEL_UNREADABLE, "found a structured report without content")
        return datasets

    def _evidence(self, datasets: Sequence[Dataset], grade: str) -> Evidence:
        observers = [read_observers(dataset) for dataset in datasets]
        persons = sum(o.persons for o in observers)
        automatic = persons == 0 and all(o.device for o in observers)
        readers = tuple(f"reader{n}" for n in range(1, persons + 1))
        return Evidence(tier="machine" if automatic else self.tier, readers=readers, note=f"grade {grade}")

    def _measure(self, group: Group, number: int) -> list[Measurement]:
        kept = []
        for item in group.numbers:
            if self.quantities and f"{item.concept.scheme}:{item.concept.value}" not in self.quantities:
                continue
            quantity = item.concept.meaning or item.concept.value
            if item.derivation is not None:
                quantity = f"{quantity}, {item.derivation.meaning}"
            tracking = group.tracking_uid or str(number)
            kept.append(
                Measurement(
                    quantity,
                    item.value,
                    item.unit.value,
                    group.finding,
                    group.site,
                    tracking,
                    concept=item.concept,
                    derivation=item.derivation,
                )
            )
        return kept


def _landmarks(name: str, groups: Sequence[Group], image: ImageFacts, evidence: Evidence) -> list[Landmarks]:
    """Return the points on this image. Points on other images belong to the cases of those images."""
    points, classes, members = [], [], []
    for number, group in enumerate(groups):
        for graphic in group.graphics:
            located = _locate(graphic, image)
            if located is None:
                continue
            points.append(located)
            classes.extend([graphic.type.lower() or "point"] * len(located))
            members.extend([str(number)] * len(located))
    if not points:
        return []
    return [Landmarks(name, np.concatenate(points), tuple(classes), tuple(members), evidence)]


def _locate(graphic: Graphic, image: ImageFacts) -> NDArray[np.float64] | None:
    """Return (n, 3) LPS mm, or None if the points are on another image or in another frame of reference."""
    if graphic.points.shape[1] == 3:
        expected = image.geometry.frame_of_reference
        if graphic.frame_of_reference and expected and graphic.frame_of_reference != expected:
            return None
        return graphic.points
    index = image.uid_to_slice.get(graphic.instance)
    if index is None:
        return None
    # The data's (0, 0) is the upper left corner of the first pixel (PS3.3 C.18.6.1.2).
    voxels = np.column_stack(
        [np.full(len(graphic.points), index), graphic.points[:, 1] - 0.5, graphic.points[:, 0] - 0.5]
    )
    return image.geometry.to_world(voxels)


def _grade(dataset: Dataset, groups: Sequence[Group]) -> str:
    from highdicom.sr import MeasurementReport

    if len(groups) == 1:
        return "C"
    try:
        with parsing(Reason.LABEL_UNREADABLE, "found a report that highdicom does not take for one under TID 1500"):
            MeasurementReport.from_sequence([dataset], is_root=True)
    except CaseError:
        return "B"
    return "A"
