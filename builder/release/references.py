"""References between released objects: each points to an object that leaves too, or is taken out and counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

_CLASS, _INSTANCE, _SERIES, _STUDY = (BaseTag(t) for t in (0x00081150, 0x00081155, 0x0020000E, 0x0020000D))
_LISTED = BaseTag(0x30060016)
"""Contour Image Sequence: of a referenced series (type 1) and of a contour (type 3)."""
_OF_STUDY = BaseTag(0x30060012)
_OF_SERIES = BaseTag(0x30060014)
_SOURCES = BaseTag(0x00082112)
_HOLDERS = frozenset(
    {
        *(0x00081115, 0x00081200, 0x0040A375, 0x0040A385, 0x00081110),
        *(0x0040A730, 0x30060012, 0x30060014, 0x00081199, 0x0008114A, 0x00081140),
    }
)
"""Sequences whose items are there to hold references: without any, an item goes. Series, studies, evidence, content of
reports, and referenced studies and series of structure sets."""


@dataclass(frozen=True)
class Released:
    """What leaves of a person, under its new UIDs.

    Parameters
    ----------
    series
        Maps each series to its objects as (class, instance), sorted.
    study_of
        Maps each series to its study.
    """

    series: Mapping[str, Sequence[tuple[str, str]]]
    study_of: Mapping[str, str]

    @cached_property
    def known(self) -> frozenset[str]:
        """The instances and studies that leave."""
        return frozenset({uid for own in self.series.values() for _, uid in own}.union(self.study_of.values()))


@dataclass
class Pruned:
    """How many references of an object were taken out, and how many were listed again.

    ``relisted`` are the images of a released series that a structure set names by its series alone, because none of
    the images that it lists is in the archive.
    """

    removed: int = 0
    relisted: int = 0


def prune(dataset: Dataset, released: Released) -> Pruned:
    """Take out of an object every reference to what does not leave, in place, and count them."""
    walk = _Walk(released, Pruned())
    walk.level(dataset)
    return walk.pruned


@dataclass(frozen=True)
class _Walk:
    released: Released
    pruned: Pruned

    def level(self, item: Dataset) -> bool:
        """Prune the sequences of one item. Return whether it lost every reference of one of them."""
        lost = False
        for tag, element in list(item.items()):
            if not isinstance(element.value, Items):
                continue
            kept = [nested for nested in element.value if self._stays(tag, nested)]
            if len(kept) == len(element.value):
                continue
            if kept or tag == _SOURCES:  # Source Image Sequence is of type 2
                element.value = Items(kept)
            else:
                del item[tag]
            lost = lost or not kept
        return lost

    def _stays(self, holder: BaseTag, item: Dataset) -> bool:
        lost = self.level(item)
        if holder == _OF_SERIES:
            return self._series_stays(item)
        if holder == _OF_STUDY:
            return self._study_stays(item)
        if _INSTANCE in item:
            uid = str(item[_INSTANCE].value or "")
            if uid and uid not in self.released.known:
                self.pruned.removed += 1
                return False
            return True
        return not (lost and int(holder) in _HOLDERS)

    def _series_stays(self, item: Dataset) -> bool:
        """Keep a series that leaves; where none of its listed images is there, list those that leave."""
        own = self.released.series.get(str(item[_SERIES].value) if _SERIES in item else "")
        if own is None:
            self.pruned.removed += 1
            return False
        if _LISTED not in item:
            item.ContourImageSequence = Items([_reference(*pair) for pair in own])
            self.pruned.relisted += 1
        return True

    def _study_stays(self, item: Dataset) -> bool:
        """Keep a study of which a series is left, under the UID of that series' study."""
        if _OF_SERIES not in item:
            self.pruned.removed += 1
            return False
        series = str(item[_OF_SERIES].value[0][_SERIES].value)
        item.ReferencedSOPInstanceUID = self.released.study_of[series]
        return True


def _reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item
