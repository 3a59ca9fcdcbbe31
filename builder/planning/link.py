"""Decide which annotation objects belong to which image stack, before any pixel is read."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import pyarrow as pa

from builder.errors import CaseError, SpecError, counted
from builder.labels import AnyLabel
from builder.labels.evidence import strongest, weakest
from builder.model.case import Scalar, Tier
from builder.model.linking import How, ImageRow, Mentions
from builder.model.tables import INSTANCES
from builder.sources import AnySource
from builder.spec import DatasetSpec
from builder.stages.listed import Listed, read_object

Opened: TypeAlias = Callable[[str, int], Mentions]
"""Maps a label and a row of the annotations table to the images that the file says anything about."""

LINKED = "linked"
MISSING = "missing"


@dataclass(frozen=True)
class Link:
    """What one label found for one stack: rows of the annotations table, and the kind of reference.

    ``passed`` are objects that refer to the stack but name nothing that the label asks for.
    """

    label: str
    rows: tuple[int, ...]
    how: str
    passed: tuple[int, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the stack has the label: objects of it, or a place that states it."""
        return bool(self.rows) or self.how == How.IMAGE


@dataclass(frozen=True, eq=False)
class Annotations:
    """All annotation objects and files, indexed by what they may annotate.

    ``table`` has schema INSTANCES with ``person_key`` (null for files, which name no person).
    """

    table: pa.Table
    by_person: Mapping[str, tuple[int, ...]]
    files: tuple[int, ...]

    def candidates(self, person_key: str) -> tuple[int, ...]:
        """Return the rows that may annotate an image of this person: the person's objects, and all files."""
        return (*self.by_person.get(person_key, ()), *self.files)


def gather_annotations(table: pa.Table, person_keys: Sequence[str | None]) -> Annotations:
    """Build Annotations from INSTANCES rows and the person of each (None for files)."""
    groups: dict[str, list[int]] = {}
    files = []
    for row, person in enumerate(person_keys):
        if person is None:
            files.append(row)
        else:
            groups.setdefault(person, []).append(row)
    return Annotations(table.select(INSTANCES.names), {p: tuple(r) for p, r in groups.items()}, tuple(files))


def open_files(annotations: Annotations, labels: Mapping[str, AnyLabel], sources: Sequence[AnySource]) -> Opened:
    """Return a function that reads files with labels of many images, each once, when a stack first asks for one.

    A file that does not parse is assumed to concern every image, so that each case's exclusion says what is wrong.
    """

    @cache
    def mentions(label: str, row: int) -> Mentions:
        (facts,) = annotations.table.slice(row, 1).to_pylist()
        try:
            return labels[label].mentions(read_object(Listed.of(facts), sources))
        except CaseError:
            return lambda image: True

    return mentions


def link_stack(
    image: ImageRow, person_key: str, annotations: Annotations, labels: Mapping[str, AnyLabel], opened: Opened
) -> list[Link]:
    """Return one link per label, in the spec's order. The link has no rows if no object or table row was found."""
    rows = annotations.candidates(person_key)
    candidates = annotations.table.take(pa.array(rows, pa.int64()))
    links = []
    for name, reader in labels.items():
        if reader.OF_IMAGE:
            links.append(Link(name, (), str(How.IMAGE if reader.mentions(b"")(image) else How.NONE)))
            continue
        found = reader.select(image, candidates)
        kept = tuple(rows[i] for i in found.rows if opened(name, rows[i])(image))
        links.append(Link(name, kept, str(found.how), tuple(rows[i] for i in found.passed)))
    return links


def read_classes(
    annotations: Annotations, labels: Mapping[str, AnyLabel], sources: Sequence[AnySource]
) -> Callable[[ImageRow, Sequence[Link]], list[Scalar]]:
    """Return a function that reads the class labels of a stack from its tables, each of which is fetched once.

    It gives one value for each of ``class_fields``. A label that the build will refuse is null here, and its case is
    left out by the build, which says why.
    """

    @cache
    def content(row: int) -> bytes:
        (facts,) = annotations.table.slice(row, 1).to_pylist()
        return read_object(Listed.of(facts), sources)

    def values(image: ImageRow, links: Sequence[Link]) -> list[Scalar]:
        found: list[Scalar] = []
        for link in links:
            if link.label not in labels:
                continue
            reader = labels[link.label]
            fields = reader.class_fields(link.label)
            own: Sequence[Scalar] = ()
            if fields and link.found:
                with contextlib.suppress(CaseError):
                    own = reader.planned_classes([content(row) for row in link.rows], image)
            found += own or [None] * len(fields)
        return found

    return values


def longer_ids(patient_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each Patient ID to the other IDs that begin or end with it, if there are any."""
    distinct = {i.strip() for i in patient_ids if i.strip()}
    found: dict[str, set[str]] = {}
    for turn in (1, -1):
        ordered = sorted(i[::turn] for i in distinct)
        open_ids: list[str] = []
        for text in ordered:  # in sorted order an ID comes right before those that begin with it
            while open_ids and not text.startswith(open_ids[-1]):
                open_ids.pop()
            for shorter in open_ids:
                found.setdefault(shorter[::turn], set()).add(text[::turn])
            open_ids.append(text)
    return {i: tuple(sorted(others)) for i, others in found.items()}


def check_files_serve_one_person(
    links: Sequence[Sequence[Link]],
    person_keys: Sequence[str],
    annotations: Annotations,
    labels: Mapping[str, AnyLabel],
) -> None:
    """Stop the plan if one person's label file fits images of several persons, because some would get a wrong label.

    Raises
    ------
    SpecError
        With one line per label. Paths may name patients, so it gives counts only.
    """
    files = set(annotations.files)
    persons: dict[str, dict[int, set[str]]] = {}
    for person, found in zip(person_keys, links, strict=True):
        for link in found:
            if not labels[link.label].SHARED_FILES:
                for row in files.intersection(link.rows):
                    persons.setdefault(link.label, {}).setdefault(row, set()).add(person)
    faults = []
    for label, by_file in persons.items():
        shared = [len(p) for p in by_file.values() if len(p) > 1]
        if shared:
            faults.append(
                f"labels.{label}.match: found {counted(len(shared), 'file that fits', 'files that fit')} images of "
                f"up to {max(shared)} persons each, "
                "expected files of one person; name the place or the person in the pattern, e.g. {parent} or {patient}"
            )
    if faults:
        raise SpecError("\n".join(faults))


def label_state(links: Iterable[Link]) -> tuple[str, str | None]:
    """Return ``linked`` when every label found an object, else ``missing`` with the names of labels that did not."""
    absent = [link.label for link in links if not link.found]
    return (MISSING, "no object found for " + ", ".join(absent)) if absent else (LINKED, None)


def label_status(links: Sequence[Link]) -> str:
    """Return ``labelled``, ``partly_labelled`` or ``unlabelled``, by how many of the spec's labels found an object."""
    found = sum(link.found for link in links)
    return "labelled" if found == len(links) else "partly_labelled" if found else "unlabelled"


def planned_tier(links: Sequence[Link], spec: DatasetSpec) -> Tier | None:
    """Return the strongest evidence a stack's labels will have by the spec, or None for a stack without labels.

    Objects may later turn out to be made by a machine; ``publishing.consensus.check_evidence`` checks what they state.
    """
    if not links:
        return None
    tiers = {link.label: spec.labels[link.label].tier for link in links if link.found}
    for block in spec.consensus.values():
        members = [tiers[label] for label in block.labels if label in tiers]
        if members and len(members) >= min(block.least, len(block.labels)):
            weak = weakest(members)
            tiers[",".join(block.of)] = block.evidence.tier or (
                "consensus" if weak in ("single_reader", "unstated") else weak
            )
    return strongest(list(tiers.values())) if tiers else None
