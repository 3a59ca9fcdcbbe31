"""Pin what a library stamps into the objects that it makes: the time of day, and UIDs drawn at random."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset


def pin(made: Any, images: Sequence[Dataset], *, rename: Callable[[str], str], keep: set[str]) -> None:
    """Replace the clock's stamps by the images', and every UID drawn at random by a reproducible one.

    ``rename`` makes a UID of the ordinal of one that was drawn; those in ``keep`` and those of the images stay.
    """
    first = images[0]
    known = keep | {str(image.SOPInstanceUID) for image in images}
    known |= {str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(first.FrameOfReferenceUID)}
    names: dict[str, str] = {}
    for element, value in _uids(made):
        if value not in known and not value.startswith("1.2.840.10008."):
            element.value = names.setdefault(value, rename(str(len(names))))
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate", "StructureSetDate"):
        if keyword in made and first.get("StudyDate"):
            setattr(made, keyword, first.StudyDate)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if keyword in made and first.get("StudyTime"):
            setattr(made, keyword, first.StudyTime)
    for item in made.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item and first.get("StudyDate") and first.get("StudyTime"):
            item.ContributionDateTime = first.StudyDate + first.StudyTime


def _uids(dataset: Dataset) -> Iterator[tuple[Any, str]]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _uids(item)
        elif element.VR == "UI" and isinstance(element.value, str):
            yield element, str(element.value)
