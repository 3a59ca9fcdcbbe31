"""Find what places the images of a case onto its reference: registration objects of the archive, or transform files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from builder.cohort import CaseImage
from builder.errors import CaseError, Reason
from builder.imaging.parse import parse_instance
from builder.imaging.registration import Matrix, Registration, check_rigid, first_of, read_registration
from builder.imaging.transform_files import read_itk
from builder.model.keyed import Key
from builder.planning.link import Annotations
from builder.planning.rows import CandidateRow
from builder.sources import AnySource
from builder.stages.listed import Listed, read_object
from builder.storage import read_at

REGISTRATION: Final = "registration"
"""How the ledger's links call a registration object, followed by a colon and the name of the image that it places."""

_REG: Final = "REG"
_UNSAFE: Final = re.compile(r"[/\\\x00-\x1f]|^\.\.?$")


@dataclass(frozen=True)
class Placement:
    """Where an image lies: 16 numbers, row by row, from its frame to the reference's, and the objects that say so.

    ``rows`` are rows of the annotations table; empty where a transform file says it.
    """

    matrix: tuple[float, ...]
    rows: tuple[int, ...] = ()

    def then(self, other: "Placement") -> "Placement":
        """Return where an image lies that is placed by this in the frame that another placement places."""
        own, further = (np.reshape(placement.matrix, (4, 4)) for placement in (self, other))
        return Placement(_numbers(further @ own), tuple(dict.fromkeys((*self.rows, *other.rows))))


@dataclass
class Registrations:
    """The registration objects and transform files of an archive, read when an image first asks for one.

    Parameters
    ----------
    stacks
        Maps the key of each stack to its ``patient_id``, ``visit`` and ``series_uid``, by which patterns of
        file names may call it.
    """

    annotations: Annotations
    sources: Sequence[AnySource]
    key: Key
    stacks: Mapping[str, Mapping[str, Any]]
    _frames: dict[int, dict[str, str]] = field(default_factory=dict)
    _read: dict[int, Registration | CaseError] = field(default_factory=dict)
    _kinds: list[str | None] | None = None

    def place(
        self, name: str, image: CaseImage, moving: CandidateRow, reference: CandidateRow
    ) -> Placement | CaseError:
        """Return where a stack lies as one image of a case, or why that is not known.

        Parameters
        ----------
        moving, reference
            The rows of the image and of the reference.
        """
        try:
            if image.transform_files is not None:
                return Placement(_numbers(self._from_file(image.transform_files, moving.stack_key)))
            return self._from_objects(moving, reference)
        except CaseError as error:
            return CaseError(Reason.IMAGE_NOT_ALIGNED, f"image {name}: {error.detail}")

    def _from_objects(self, moving: CandidateRow, reference: CandidateRow) -> Placement:
        own, wanted = moving.frame_of_reference_key, reference.frame_of_reference_key
        found: dict[int, Matrix] = {}
        if own is not None and wanted is not None and own != wanted:
            for row in self.annotations.by_person.get(moving.person_key, ()):
                names = self._frames_of(row)
                if names.keys() >= {own, wanted}:
                    matrix = self._object(row).between(names[own], names[wanted])
                    found |= {} if matrix is None else {row: matrix}
        if not found:
            same = "one frame of reference for both images" if own == wanted else "two frames of reference"
            raise CaseError(
                Reason.IMAGE_NOT_ALIGNED,
                f"found {same} and no Spatial Registration object that relates two frames, expected one",
            )
        return Placement(_numbers(first_of(found.values())), tuple(found))

    def _frames_of(self, row: int) -> dict[str, str]:
        """Map the keyed UIDs of the frames that a registration object names to the archive's own."""
        if self._kinds is None:
            self._kinds = self.annotations.table.column("modality").to_pylist()
        if row not in self._frames:
            uids: list[str] = []
            if self._kinds[row] == _REG:
                uids = self.annotations.table.column("referenced_frame_of_reference_uids")[row].as_py() or []
            self._frames[row] = {self.key.name("frame_of_reference", uid): uid for uid in uids}
        return self._frames[row]

    def _object(self, row: int) -> Registration:
        if row not in self._read:
            (facts,) = self.annotations.table.slice(row, 1).to_pylist()
            try:
                self._read[row] = read_registration(parse_instance(read_object(Listed.of(facts), self.sources)))
            except CaseError as error:
                self._read[row] = error
        found = self._read[row]
        if isinstance(found, CaseError):
            raise found
        return found

    def _from_file(self, pattern: str, stack_key: str) -> Matrix:
        said = {"patient": "patient_id", "visit": "visit", "series": "series_uid"}
        names = {word: str(self.stacks[stack_key][column] or "") for word, column in said.items()}
        for word, value in names.items():
            if f"{{{word}}}" in pattern and (not value or _UNSAFE.search(value)):
                raise CaseError(
                    Reason.IMAGE_NOT_ALIGNED,
                    f"found a {word} that names no file, expected one to fill in in transform_files",
                )
        path = pattern
        for word, value in names.items():
            path = path.replace(f"{{{word}}}", value)
        try:
            content = read_at(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise CaseError(
                Reason.IMAGE_NOT_ALIGNED, "found no file of the name that transform_files gives, expected one"
            ) from None
        return check_rigid(read_itk(content))


def registrations_of(
    annotations: Annotations, sources: Sequence[AnySource], stacks: pa.Table, *, key: Key, stack_keys: Sequence[str]
) -> Registrations:
    """Return what places images of an archive. ``stack_keys`` are parallel to the stacks."""
    columns = ("patient_id", "visit", "series_uid")
    rows = zip(*(stacks.column(name).to_pylist() for name in columns), strict=True)
    facts = {stack: dict(zip(columns, row, strict=True)) for stack, row in zip(stack_keys, rows, strict=True)}
    return Registrations(annotations, sources, key, facts)


def _numbers(matrix: Matrix) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(matrix).ravel())
