"""Reader for a class that the place of an image states: the name of its folder, or a field of its source's layout."""

import json
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import pyarrow as pa

from builder.errors import CaseError, Reason
from builder.labels.classes import Answers
from builder.labels.label import Label
from builder.model.case import Annotation, Classes, Evidence, Scalar, Tier
from builder.model.classes import class_field
from builder.model.linking import ImageRow, Mentions, Selection
from builder.protocols import ImageFacts, LabelObject


class Place(Answers, Label):
    """A class by the place of an image, as in archives with a folder for each class.

    Parameters
    ----------
    field
        A field of the layout's pattern, e.g. ``class`` of ``{class}/{patient}_{visit}.png``; or ``folder_name`` or
        ``parent_name``, the folder of the image's files and the one above.

    The finding has the name of the label, so that its column is ``label.<name>``.
    """

    VERSION: ClassVar[int] = 1
    OF_IMAGE: ClassVar[bool] = True
    TIER: ClassVar[Tier] = "unstated"

    kind: Literal["place"] = "place"
    field: str

    @property
    def place(self) -> str:
        """The field."""
        return f"the field {self.field}"

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select nothing, because the label has no object."""
        return Selection()

    def mentions(self, content: bytes) -> Mentions:
        """Return whether the place of an image has the field."""
        return lambda image: self.field in _fields(image)

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """Return the value of the field for ``read``."""
        return json.dumps({"field": _fields(image).get(self.field)}).encode()

    def class_fields(self, name: str) -> tuple[pa.Field, ...]:
        """Return the one column of the label."""
        return (class_field(name, name, self.kind_of_column, self.stated_levels),)

    def planned_classes(self, contents: Sequence[bytes], image: ImageRow) -> tuple[Scalar, ...]:
        """Return the class of an image."""
        return (self.decode(_fields(image).get(self.field)),)

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return the class called ``name``.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_UNREADABLE, or LABEL_EMPTY for a place that gives no answer.
        """
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, f"found no {self.place} in the place of the image")
        try:
            stated = json.loads(objects[0].content)["field"]
        except (ValueError, TypeError, KeyError) as error:
            raise CaseError(Reason.LABEL_UNREADABLE, "found no statement of an image's place") from error
        value = self.decode(stated)
        if value is None:
            raise CaseError(Reason.LABEL_EMPTY, f"found no answer in {self.place}")
        return (Classes(name, {name: value}, Evidence(tier=self.tier)),)


def _fields(image: ImageRow) -> dict[str, str]:
    parts = image.folder.split("/")
    own = {"folder_name": parts[-1], "parent_name": parts[-2] if len(parts) > 1 else ""}
    return {name: value for name, value in (own | dict(image.fields)).items() if value}
