"""Reader for key object selections (PS3.3 A.35.4), which record the images that somebody marked."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import pyarrow as pa
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.labels.content import code_of, datasets_of, instances_of
from builder.labels.label import Label
from builder.labels.linking import KEY_OBJECT_SELECTION, select_references
from builder.model.case import Annotation, Classes, Evidence
from builder.model.linking import ImageRow, Selection
from builder.protocols import ImageFacts, LabelObject

REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
"""Document titles of scheme DCM that reject images (PS3.16 CID 7011). Such a selection marks no key images."""


class KeyObject(Label):
    """Key object selections: whether somebody marked an image of this series."""

    VERSION: ClassVar[int] = 2

    kind: Literal["key_object"] = "key_object"

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the key objects that refer to the image by instance or series."""
        return select_references(image, candidates, sop_classes=(KEY_OBJECT_SELECTION,))

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return classes ``name`` with ``is_key_image`` and ``key_images``, the number of marked slices.

        A selection that rejects images (for quality, safety, a wrong worklist entry or expiry) marks none.

        Raises
        ------
        CaseError
            LABEL_MISSING or LABEL_UNREADABLE.
        """
        datasets = datasets_of(objects, "key object selection", sop_class=KEY_OBJECT_SELECTION)
        with parsing(Reason.LABEL_UNREADABLE, "found a key object selection that does not parse"):
            marked = {image.uid_to_slice[uid] for d in datasets for uid in _marked(d) if uid in image.uid_to_slice}
        values = {"is_key_image": bool(marked), "key_images": len(marked)}
        return (Classes(name, values, Evidence(tier=self.tier)),)


def _marked(dataset: Dataset) -> Iterator[str]:
    """Yield the SOP Instance UIDs that a selection marks, or none if its title rejects them."""
    if "ContentSequence" not in dataset:
        raise CaseError(Reason.LABEL_UNREADABLE, "found a key object selection without content")
    title = code_of(dataset.get("ConceptNameCodeSequence"))
    if title is None or title.scheme != "DCM" or title.value not in REJECTIONS:
        for item in dataset.ContentSequence:
            yield from instances_of(item)
