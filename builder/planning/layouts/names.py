"""What a layout says about one image, and what every layout is given to read."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from builder.clinical import Sheet, read_sheet
from builder.errors import SpecError

MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_DEPTH = 32


@dataclass(frozen=True)
class Named:
    """What a layout says about one image.

    Parameters
    ----------
    patient, visit
        Who and when; a visit is a session, time point or date, as the archive writes it.
    image
        Which image of the visit it is: ``t2w``, ``FLAIR``, ``image`` where there is only one.
    case
        The archive's name of the case, where it has one.
    split
        ``train``, ``validation`` or ``test`` where the archive publishes one.
    channels
        Names of the volumes along a fourth axis, where they are channels.
    columns
        Values for columns of INSTANCES.
    fields
        What a label's pattern may refer to, in addition to these: ``label`` is the path of the mask.
    """

    patient: str
    visit: str = ""
    image: str = "image"
    case: str = ""
    split: str = ""
    channels: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Documents:
    """The text files of a source, by place: a path below its folder, in which an archive counts as a folder.

    ``read`` returns a document's bytes; it raises SourceError or CaseError.
    """

    places: frozenset[str]
    read: Callable[[str], bytes]

    def table(self, place: str) -> Sheet:
        """Read a table. Raises SpecError that names no path."""
        return read_sheet(self.read(place))

    def mapping(self, place: str) -> Mapping[str, Any]:
        """Read a JSON object; whatever is not one reads as empty."""
        data = self.read(place)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise SpecError(f"layout: found a JSON file of {len(data)} bytes, expected {MAX_DOCUMENT_BYTES} at most")
        try:
            found = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class Reading(Protocol):
    """A layout with the documents of one source."""

    def name(self, place: str) -> Named | str | None:
        """Say what an image file is; a text says why it cannot be used, None that the layout does not know it."""
        ...

    def promised(self) -> Iterator[str]:
        """Return the places of images that a document of the layout lists, whether they exist or not."""
        ...


def uid(kind: str, *parts: str) -> str:
    """Return a UID (PS3.5 B.2) that these parts determine. It names nothing and is private until it is keyed."""
    digest = hashlib.sha256("\0".join(("builder file", kind, *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "imagestr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts", "imagests"), "test"),
}


def split_of(text: str) -> str:
    """Return the split that a word names; "" for words that name none."""
    return SPLITS.get(text.strip().lower(), "")
