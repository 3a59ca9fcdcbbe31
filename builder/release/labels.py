"""Labels that people type: words of imaging and of the spec leave, all others may be somebody's name and do not."""

import re
from collections.abc import Iterable
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from builder.deid.text import ordinary_words
from builder.deid.writing import fold

REMOVED: Final = "REMOVED"

_KEYWORDS = (
    *("ROIName", "ROIDescription", "ROIObservationLabel", "ROIObservationDescription", "StructureSetLabel"),
    *("StructureSetName", "SegmentLabel", "SegmentDescription", "ContentLabel", "TrackingID", "GraphicLayer"),
)
TYPED: Final = {BaseTag(tag): keyword for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}
_WORD = re.compile(r"[^\W\d_]{3,}")


def words_in(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of some texts, as labels are compared with them."""
    return frozenset(fold(word) for text in texts for word in _WORD.findall(text))


def keep_labels(clean: Dataset, words: frozenset[str]) -> set[str]:
    """Take out of typed labels, in place and at every depth, each word that is of no list. Return these words.

    A word has three letters or more; shorter ones, figures and signs stay. ``words`` are those of the spec, beside the
    lists of imaging, anatomy and reports. A label of which nothing is left becomes ``REMOVED``.
    """
    withheld: set[str] = set()
    for tag, element in list(clean.items()):
        if isinstance(element.value, Items):
            for item in element.value:
                withheld |= keep_labels(item, words)
        elif tag in TYPED:
            text = str(clean[tag].value or "")
            strange = {w for w in _WORD.findall(text) if fold(w) not in words and fold(w) not in ordinary_words()}
            if strange:
                withheld |= strange
                clean[tag] = DataElement(tag, clean[tag].VR, _without(text, strange))
    return withheld


def _without(text: str, strange: set[str]) -> str:
    kept = _WORD.sub(lambda found: "" if found[0] in strange else found[0], text)
    return " ".join(kept.split()).strip(" _-,;:") or REMOVED
