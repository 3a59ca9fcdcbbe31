"""The plug-in contracts on one page.

A plug-in is a frozen pydantic model: the YAML block that configures it decodes to the object that runs. It carries
``kind: Literal["name"]``, the tag that selects it, and ``VERSION: ClassVar[int]``, raised whenever its output changes
(it enters the fingerprint of every shard it touched).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable

import pyarrow as pa

from builder.errors import CaseError
from builder.model.case import Annotation, Case, Scalar, Volume
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow, Mentions, Selection
from builder.model.origin import Origin

Item = TypeVar("Item")
Shape: TypeAlias = tuple[int, int, int]
"""Voxels along (slice, row, column)."""

Spacing: TypeAlias = tuple[float, float, float]
"""Millimetres along (slice, row, column)."""


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
        """Name of the queue that bounds how many tasks talk to this source's server at once; "" for unbounded.

        It may end in ``*N``, which says how many; otherwise four.
        """
        ...

    @property
    def origin(self) -> Origin:
        """The terms of everything it holds, as the spec states them."""
        ...

    @property
    def reads_whole(self) -> bool:
        """Whether the index reads every byte of an object, so that pixels rewritten in place are noticed."""
        ...

    def list(self) -> Iterator[Entry]:
        """Yield every object in a stable order. Raises SourceError if the source cannot be listed completely."""
        ...

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the bytes ``start`` to ``start + length`` of an object. Raises SourceError."""
        ...


@dataclass(frozen=True)
class Description:
    """A DICOM file as a source describes it: ``whole``, byte for byte what ``read`` gives, or without its pixels.

    ``transfer_syntax_uid`` is that of the object, if the source knows it; ``data`` may be in another one.
    """

    data: bytes
    whole: bool
    transfer_syntax_uid: str | None = None


@runtime_checkable
class Describing(Protocol):
    """What a source offers beside ``Source`` when reading the start of each object is not how its server works.

    Such a source may list entries of size 0, for its server does not tell, and its ``read`` gives the whole object.
    """

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        """Yield for each entry in turn its description, or why there is none.

        Neighbouring entries are asked for together. Raises SourceError when the server does not answer.
        """
        ...


@runtime_checkable
class Stating(Protocol):
    """What a source offers beside ``Source`` when it knows the terms of each of its series."""

    def series_origins(self) -> Mapping[str, Origin]:
        """Map each SeriesInstanceUID to what is stated of it. Raises SourceError, SpecError."""
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
    """Turns annotation objects into annotations on the image's grid. One file in ``builder/labels`` each.

    ``builder.labels.label`` has base models with the options that every reader shares and the usual answers.
    """

    VERSION: ClassVar[int]
    FUSED_BY: ClassVar[tuple[str, ...]]
    """Methods of a consensus that can fuse what this reader gives."""

    SHARED_FILES: ClassVar[bool]
    """Whether one file may hold labels of several persons, which ``mentions`` and ``cut`` tell apart. Of other readers,
    a file that fits images of two persons stops the plan."""

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    @property
    def mask_channels(self) -> int:
        """Channels of the mask it gives, 0 when it gives none: the plan projects memory from it."""
        ...

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the candidates that annotate the image. Called while the build is planned; it reads no object.

        ``candidates`` follows the schema INSTANCES: annotation objects of the image's person, and all files that are
        not images.
        """
        ...

    def mentions(self, content: bytes) -> Mentions:
        """Return the images of which a selected file says anything. Called once per file, while the build is planned.

        Raises CaseError with a label reason when the file cannot be parsed.
        """
        ...

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """Return what a file says of one image, under mapped UIDs, so that no other patient's rows reach ``read``."""
        ...

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return annotations called ``name`` (or ``name/part``). Raises CaseError with a label reason."""
        ...

    def structures_of(self, name: str) -> tuple[str, ...] | None:
        """Return the structures that take an ROI or segment called ``name``; None if names decide nothing here."""
        ...

    OF_IMAGE: ClassVar[bool]
    """Whether the label is stated by the place of the image itself, so that it has no object. ``cut`` and ``read`` are
    then given empty content, and ``mentions`` tells which images state it."""

    def class_fields(self, name: str) -> tuple[pa.Field, ...]:
        """Return the columns of class labels that ``planned_classes`` fills (``builder.model.classes.class_field``)."""
        ...

    def planned_classes(self, contents: Sequence[bytes], image: ImageRow) -> tuple[Scalar, ...]:
        """Return the class labels of an image, one a field, from its selected files while the build is planned.

        Raises CaseError as ``read`` does.
        """
        ...

    def absent(self, name: str, image: ImageFacts) -> tuple[Annotation, ...]:
        """Return what a case without an object of this label gets if labels are optional."""
        ...


@dataclass(frozen=True)
class Registered:
    """How one image lies on another, and what shows it.

    Parameters
    ----------
    matrix
        16 numbers, row by row, from LPS mm of the moving image to LPS mm of the fixed one; it only turns and moves.
    shift_mm
        How far the middle of the moving image moved from where the search began.
    degrees
        The angle by which it turned.
    gain
        The match after the search divided by that before it; above 1.
    """

    matrix: tuple[float, ...]
    shift_mm: float
    degrees: float
    gain: float


@runtime_checkable
class Registrar(Protocol):
    """Finds how one image of a case must be moved to lie on its reference. One file in ``builder/registrars`` each.

    ``builder.registrars.registrar.RegistrarBlock`` has the usual answers.
    """

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names and versions of the libraries whose version decides the result: they enter fingerprints.

        Raises MissingExtra if one is not installed, so that a plan stops before a build does.
        """
        ...

    def __call__(self, fixed: Volume, moving: Volume) -> Registered:
        """Return how the moving image lies on the fixed one; the same for the same input. Changes neither.

        Raises CaseError IMAGE_NOT_ALIGNED if it finds no match that can be trusted.
        """
        ...

    def scratch_bytes(self, fixed: Shape, moving: Shape) -> int:
        """Return the bytes that a call needs besides the two images of these shapes."""
        ...


@runtime_checkable
class Transform(Protocol):
    """Moves image, masks, boxes and landmarks of a case together. One file in ``builder/transforms`` each.

    ``builder.transforms.step`` has a base model with the usual answers.
    """

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    @property
    def fitted_on(self) -> str:
        """Whose values its parameters are taken from, for the leak certificate: ``nothing``, or in words."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names and versions of optional libraries whose version decides the result: they enter fingerprints.

        Raises MissingExtra if one is not installed, so that a plan stops before a build does.
        """
        ...

    @property
    def label_options(self) -> tuple[str, ...]:
        """Names of the options in use that look at labels; sequestered labels forbid them."""
        ...

    def __call__(self, case: Case) -> Case:
        """Transform the case. All its parts stay on one geometry. Raises CaseError."""
        ...

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Return shape and spacing after the transform, from those before: for memory and shard estimates."""
        ...

    def item_bytes(self, item: int) -> int:
        """Return the bytes of a voxel's value after the transform, from those before."""
        ...

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return the bytes needed for one channel beside input and output; ``item`` is the bytes of a value before."""
        ...


class Outside(Protocol):
    """What an extract may use of the world outside: files, environment variables, and patience with servers."""

    def files(self, url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of the file at a URL, or of the files in the folder there, in the order of their names.

        Only files whose name is ``wanted`` are read. Raises SpecError if nothing is there, or they are too large.
        """
        ...

    def variable(self, name: str, *, where: str) -> str:
        """Return an environment variable that a spec may read. Raises SpecError, which says ``where`` it is named."""
        ...

    def ask(self, call: Callable[[], Item], *, title: str, host: str) -> Item:
        """Return what a call to a server returns; when it raises SourceError, it is called again for some minutes."""
        ...


@dataclass(frozen=True)
class Extracted:
    """The table of an extract, private, and what a user should know of it: sentences that name nobody."""

    table: pa.Table
    notes: tuple[str, ...] = ()


@runtime_checkable
class Extract(Protocol):
    """Takes a clinical table out of a database or an export. One file in ``builder/extracts`` each."""

    VERSION: ClassVar[int]

    @property
    def kind(self) -> str:
        """The tag that selects this plug-in in a spec."""
        ...

    @property
    def title(self) -> str:
        """What messages call it. It holds no secret, no path and nothing of a query."""
        ...

    def take(self, outside: Outside) -> Extracted:
        """Return the table: plain columns, and the same rows in the same order for the same data.

        Raises SpecError, SourceError, MissingExtra.
        """
        ...


class Progress(Protocol):
    """What the pipeline calls; stage names are fixed words, messages carry no identifier."""

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        """Pass ``items`` through while showing stage, count, rate and time left."""
        ...

    def say(self, message: str) -> None:
        """Tell one line of news."""
        ...
