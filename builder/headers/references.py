"""Reading what an annotation object points to: series, instances, frames of reference, and the names of its labels."""

import re
from dataclasses import dataclass
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset

REFERENCE_LIMIT: Final = 4096
"""Maximum number of referenced instances kept for one object."""

DEPTH_LIMIT: Final = 32

_PREFIX = "1.2.840.10008.5.1.4.1.1."
_CLASSES = (
    _PREFIX + "481.3",  # RT Structure Set
    _PREFIX + "66.1",  # Spatial Registration
    _PREFIX + "66.3",  # Deformable Spatial Registration
    _PREFIX + "66.4",  # Segmentation
    _PREFIX + "66.5",  # Surface Segmentation
    _PREFIX + "66.7",  # Label Map Segmentation
    _PREFIX + "67",  # Real World Value Mapping
    _PREFIX + "11.",  # presentation states
    _PREFIX + "88.",  # structured reports and key objects
    _PREFIX + "91.1",  # Microscopy Bulk Simple Annotations
)
ANNOTATION_PATTERN: Final = (
    "^(" + "|".join(re.escape(name) + ("" if name.endswith(".") else "$") for name in _CLASSES) + ")"
)
"""Regular expression that matches the SOP classes whose objects annotate other objects."""

_MODALITIES = frozenset({"RTSTRUCT", "SEG", "SR", "PR", "KO", "ANN", "REG", "RWV"})
_SERIES, _INSTANCE = 0x0020000E, 0x00081155
_FRAMES = (0x30060024, 0x00200052)
_NAMES = ((0x30060020, 0x30060022, 0x30060026), (0x00620002, 0x00620004, 0x00620005))


@dataclass(frozen=True)
class References:
    """The sorted, distinct UIDs that an object refers to, and its label names in the order of their numbers."""

    series_uids: tuple[str, ...] = ()
    sop_uids: tuple[str, ...] = ()
    frame_of_reference_uids: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_annotation(sop_class_uid: str | None, modality: str | None) -> bool:
    """Return whether objects of this SOP class annotate others; the modality decides when there is no SOP class."""
    if sop_class_uid:
        return re.match(ANNOTATION_PATTERN, sop_class_uid) is not None
    return modality in _MODALITIES


def references(dataset: Dataset) -> References:
    """Collect the references found at any depth below the top level of ``dataset``.

    These are the series and frames of reference that items name (PS3.3 10.3, 10.8, C.8.8.5) and every Referenced SOP
    Instance UID (0008,1155).
    """
    found: dict[int, set[str]] = {tag: set() for tag in (_SERIES, _INSTANCE, *_FRAMES)}
    _collect(dataset, found, depth=0)
    own = _text(dataset.get_item(_FRAMES[1])) if _FRAMES[1] in dataset else None
    frames = found[_FRAMES[0]] | found[_FRAMES[1]] | ({own} if own else set())
    sops = sorted(found[_INSTANCE])
    return References(
        series_uids=tuple(sorted(found[_SERIES])),
        sop_uids=tuple(sops[:REFERENCE_LIMIT]),
        frame_of_reference_uids=tuple(sorted(frames)),
        label_names=_label_names(dataset),
        notes=(f"referenced_sop_uids: {len(sops)}, kept {REFERENCE_LIMIT}",) if len(sops) > REFERENCE_LIMIT else (),
    )


def _collect(dataset: Dataset, found: dict[int, set[str]], depth: int) -> None:
    """Add the UIDs of the items below ``dataset`` to ``found``.

    Only sequences are converted, because an object may hold many contours and converting them is slow.
    """
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset would convert every element
        raw = dataset.get_item(tag)
        if depth and tag in found and (uid := _text(raw)):
            found[tag].add(uid)
        elif _is_sequence(tag, getattr(raw, "VR", None)) and depth < DEPTH_LIMIT:
            for item in dataset[tag].value or ():
                _collect(item, found, depth + 1)


def _is_sequence(tag: int, vr: str | None) -> bool:
    if vr in (None, "UN"):
        return bool(dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")
    return vr == "SQ"


def _text(element: Any) -> str | None:
    value = getattr(element, "value", None)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text.strip(" \0") or None if isinstance(text, str) else None


def _label_names(dataset: Dataset) -> tuple[str, ...]:
    """Return each ROI Name (3006,0026) or Segment Label (0062,0005), sorted by number; damaged numbers come first."""
    named: list[tuple[int, str]] = []
    for sequence, number, label in _NAMES:
        for item in dataset[sequence].value or () if sequence in dataset else ():
            if isinstance(item, Dataset) and label in item and (text := item[label].value):
                named.append((_whole(item, number), str(text)))
    return tuple(name for _, name in sorted(named))


def _whole(item: Dataset, tag: int) -> int:
    """Return the number in an element, or 0 without one, so that one damaged number does not cost the whole object."""
    try:
        return int(item[tag].value)
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
        return 0
