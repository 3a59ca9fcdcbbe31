"""Which annotation objects belong to which image stack: decided before any pixel is read."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from builder.labels import AnyLabel
from builder.labels.linking import ImageRow
from builder.model.tables import INSTANCES

LINKED = "linked"
MISSING = "missing"


@dataclass(frozen=True)
class Link:
    """What one label found for one stack: rows of the annotations table, and by which reference."""

    label: str
    rows: tuple[int, ...]
    how: str


@dataclass(frozen=True, eq=False)
class Annotations:
    """All annotation objects and files, findable by what they may annotate.

    ``table`` follows INSTANCES with ``person_key`` (null for files, which know no person).
    """

    table: pa.Table
    by_person: Mapping[str, tuple[int, ...]]
    files: tuple[int, ...]

    def candidates(self, person_key: str) -> tuple[int, ...]:
        """Rows that may annotate an image of this person: the person's objects, and all files."""
        return (*self.by_person.get(person_key, ()), *self.files)


def gather_annotations(table: pa.Table, person_keys: Sequence[str | None]) -> Annotations:
    """Annotations from INSTANCES rows and the person of each (None for files)."""
    groups: dict[str, list[int]] = {}
    files = []
    for row, person in enumerate(person_keys):
        if person is None:
            files.append(row)
        else:
            groups.setdefault(person, []).append(row)
    return Annotations(table.select(INSTANCES.names), {p: tuple(r) for p, r in groups.items()}, tuple(files))


def link_stack(
    image: ImageRow, person_key: str, annotations: Annotations, labels: Mapping[str, AnyLabel]
) -> list[Link]:
    """One link a label, in the spec's order; a label without an object has no rows."""
    rows = annotations.candidates(person_key)
    candidates = annotations.table.take(pa.array(rows, pa.int64()))
    links = []
    for name, reader in labels.items():
        found = reader.select(image, candidates)
        links.append(Link(name, tuple(rows[i] for i in found.rows), str(found.how)))
    return links


def image_row(stack_instances: pa.Table) -> ImageRow:
    """What linking may know of a stack, from its INSTANCES rows."""
    first = stack_instances.slice(0, 1).to_pylist()[0]
    return ImageRow(
        series_uid=first["series_uid"] or "",
        study_uid=first["study_uid"] or "",
        frame_of_reference_uid=first["frame_of_reference_uid"],
        sop_uids=frozenset(u for u in stack_instances.column("sop_instance_uid").to_pylist() if u),
        folder=_common_folder(stack_instances.column("path").to_pylist()),
        modality=first["modality"] or "",
        patient_id=first["patient_id"] or "",
    )


def label_state(links: Iterable[Link]) -> tuple[str, str | None]:
    """``linked`` when every label found an object, else ``missing`` with the names of the labels that did not."""
    absent = [link.label for link in links if not link.rows]
    return (MISSING, "no object found for " + ", ".join(absent)) if absent else (LINKED, None)


def _common_folder(paths: Sequence[str]) -> str:
    folders = sorted({posixpath.dirname(p) for p in paths})
    return folders[0] if len(folders) == 1 else posixpath.commonpath(folders) if folders else ""
