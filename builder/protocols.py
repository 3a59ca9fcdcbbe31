"""The plug-in contracts on one page.

A plug-in is a frozen pydantic model: the YAML block that configures it decodes to the object that runs. It carries
``kind: Literal["name"]``, the tag that selects it, and ``VERSION: ClassVar[int]``, raised whenever its output changes
(it enters the fingerprint of every shard it touched).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from builder.errors import CaseError
from builder.model.case import Annotation, Case
from builder.model.geometry import Geometry
from builder.model.origin import Origin

Item = TypeVar("Item")


@dataclass(frozen=True)
class Entry:
    """One object a source holds, as its listing states it.

    ``path`` is relative to the source and unique in it; ``member`` names a file inside an archive (zip, tar);
    ``stamp`` is what the source offers to notice a change (mtime in ns, ETag, ...).
    """

    path: str
    size: int
    stamp: str
    member: str = ""


@runtime_checkable
class Source(Protocol):
    """Where objects come from. One file in ``builder/sources`` each."""

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    @property
    def site(self) -> str | None:
        """Name of the site the objects come from; a column of the dataset."""
        ...

    @property
    def country(self) -> str | None:
        """Name or code of the country the objects come from; a column of the dataset."""
        ...

    @property
    def collection(self) -> str | None:
        """Name of the collection or study the objects belong to; a column of the dataset."""
        ...

    @property
    def lane(self) -> str:
        """Name of the queue that bounds how many tasks talk to this source's server at once; "" for unbounded."""
        ...

    def list(self) -> Iterator[Entry]:
        """Every object, in a stable order. Raises SourceError when the source cannot be listed completely."""
        ...

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Bytes ``start`` to ``start + length`` of an object. Raises SourceError."""
        ...


@dataclass(frozen=True)
class Description:
    """A DICOM file as a source describes it: ``whole``, byte for byte what ``read`` gives, or without its pixels."""

    data: bytes
    whole: bool


@runtime_checkable
class Describing(Protocol):
    """What a source offers beside ``Source`` when reading the start of each object is not how its server works.

    Such a source may list entries of size 0, for its server does not tell, and its ``read`` gives the whole object.
    """

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """For each entry in turn its description, or why there is none.

        Neighbouring entries are asked for together. Raises SourceError when the server does not answer.
        """
        ...


@runtime_checkable
class Stating(Protocol):
    """What a source offers beside ``Source`` when it knows the terms of each of its series."""

    def series_origins(self) -> Mapping[str, Origin]:
        """SeriesInstanceUID to what is stated of it. Raises SourceError, SpecError."""
        ...


@dataclass(frozen=True)
class LabelObject:
    """A fetched object a label reader may read.

    ``content`` is a de-identified pydicom Dataset for DICOM objects, bytes for files. ``name`` is the file's base name
    without folders (pairing has been done by then; readers use it only for its suffix).
    """

    content: Any
    name: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """What a label reader may know of the image it joins.

    ``uid_to_slice`` maps (mapped) SOPInstanceUID to the slice index of the volume; ``series_uid`` and the geometry's
    frame_of_reference are mapped by the same keyed UID map as the label objects.
    """

    geometry: Geometry
    series_uid: str
    uid_to_slice: Mapping[str, int]
    modality: str = ""

    @property
    def in_patient_space(self) -> bool:
        """False for a picture (radiograph, ultrasound): its plane is a frame of reference named by its own UID."""
        return self.geometry.frame_of_reference not in self.uid_to_slice


@runtime_checkable
class LabelReader(Protocol):
    """Turns annotation objects into annotations on the image's grid. One file in ``builder/labels`` each."""

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Annotations called ``name`` (or ``name/part``). Raises CaseError with a label reason."""
        ...


@runtime_checkable
class Transform(Protocol):
    """Moves image, masks, boxes and landmarks of a case together. One file in ``builder/transforms`` each."""

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    def __call__(self, case: Case) -> Case:
        """The transformed case; geometry of every part stays one. Raises CaseError."""
        ...

    def projected(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> tuple[
        tuple[int, int, int], tuple[float, float, float]
    ]:
        """Shape and spacing after the transform, from those before: for memory and shard estimates."""
        ...


class Progress(Protocol):
    """What the pipeline calls; stage names are fixed words, messages carry no identifier."""

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        """Pass ``items`` through while showing stage, count, rate and time left."""
        ...

    def say(self, message: str) -> None:
        """One line of news."""
        ...
