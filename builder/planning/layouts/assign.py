"""Apply layouts to the rows of the index: files become images with a patient, or stay what they are."""

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import pyarrow as pa

from builder.errors import Reason
from builder.files import PICTURES, VOLUMES, facts_from_json
from builder.headers.sniff import DOCUMENTS, TABLES
from builder.model.places import place_of, stem_of, suffix_of
from builder.model.tables import INSTANCES
from builder.planning.layouts.bids import Bids
from builder.planning.layouts.datasets import Decathlon, NnUnet
from builder.planning.layouts.names import Documents, Named, Reading, uid
from builder.planning.layouts.tables import Pattern, Table
from builder.protocols import Entry, Source
from builder.sources import LaidOut
from builder.sources.layout import Layout


class FileRow(TypedDict):
    """What a layout reads of a row of INSTANCES."""

    source: int
    path: str
    member: str
    size: int
    stamp: str
    status: str
    reason: str | None
    detail: str | None
    format: str
    header_sha256: str | None
    file_facts: str | None


LISTED: Final = ("source", "path", "member", "size", "stamp", "format", "file_facts")
WORKSTATION = "WSD"
"""Conversion Type (0008,0064) of a picture: it left the scanner's format on a workstation, so text may be in it."""


@dataclass(frozen=True)
class Laid:
    """The layouts of a spec's sources, ready for the parts of the index.

    ``missing`` are rows of INSTANCES for images that a layout lists and the source does not hold.
    """

    readings: Mapping[int, tuple[Reading, Layout, LaidOut]]
    companions: Mapping[tuple[int, str], str]
    missing: pa.Table

    def part(self, part: pa.Table) -> pa.Table:
        """Return a part of the index in which the files that a layout knows are images."""
        rows: list[FileRow] = part.to_pylist()
        changes = [self._change(row) for row in rows]
        if not any(changes):
            return part
        laid = [{**row, **change} for row, change in zip(rows, changes, strict=True)]
        return pa.Table.from_pylist(laid, schema=INSTANCES)

    def _change(self, row: FileRow) -> dict[str, Any]:
        """Return the columns that make a file's row the row of an image, or of the voxels of one; none for others."""
        if row["source"] not in self.readings or row["status"] != "file":
            return {}
        reading, layout, source = self.readings[row["source"]]
        place = place_of(row["path"], row["member"])
        head = self.companions.get((row["source"], place), place)
        if head == place and row["format"] not in VOLUMES | PICTURES:
            return {}
        named = reading.name(head)
        if named is None:
            return {}
        if isinstance(named, str):
            return {"status": "quarantined", "reason": Reason.NOT_SELECTED.value, "detail": f"layout: {named}"}
        if head == place and row["file_facts"] is None:
            return {"status": "quarantined", "reason": Reason.UNREADABLE.value}
        return _image_columns(row, named, layout, names=(source.site or "", source.collection or ""), head=head)


def lay_out(parts: Callable[[Sequence[str]], Iterable[pa.Table]], sources: Sequence[Source]) -> Laid | None:
    """Read the documents of every source with a layout; None when no source has one.

    Parameters
    ----------
    parts
        Given columns: the tables of the index with them, one at a time.
    """
    laid = {n: s for n, s in enumerate(sources) if isinstance(s, LaidOut) and s.layout is not None}
    if not laid:
        return None
    entries: dict[int, dict[str, Entry]] = {n: {} for n in laid}
    companions: dict[tuple[int, str], str] = {}
    places: dict[int, set[str]] = {n: set() for n in laid}
    images: dict[int, set[str]] = {n: set() for n in laid}
    for part in parts(LISTED):
        rows: list[FileRow] = part.to_pylist()
        for row in rows:
            if row["source"] not in laid:
                continue
            place = place_of(row["path"], row["member"])
            places[row["source"]].add(place)
            if row["format"] in VOLUMES | PICTURES or row["file_facts"]:
                images[row["source"]].add(place)
            if row["format"] in DOCUMENTS | TABLES:
                entries[row["source"]][place] = Entry(row["path"], row["size"], row["stamp"], row["member"])
            if row["file_facts"] and (beside := _companion(place, row["file_facts"])):
                companions[row["source"], beside] = place
    readings = {
        n: (_reading(source, entries[n], sorted(images[n])), source.layout, source)
        for n, source in laid.items()
        if source.layout
    }
    missing = [
        _missing_row(n, place)
        for n, (reading, _, _) in readings.items()
        for place in sorted({*reading.promised()} - places[n])
    ]
    return Laid(readings, companions, pa.Table.from_pylist(missing, schema=INSTANCES))


def unread_lines(formats: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for every kind of image file that nothing reads."""
    for form, count in sorted(formats.items()):
        files = f"{count} {IMAGE_FORMATS[form]} {'file' if count == 1 else 'files'}"
        if form in VOLUMES | PICTURES:
            yield (
                f"{files}: no source reads {'it' if count == 1 else 'them'} as an image and no label as a mask; a "
                "layout on the source says who and what such files are"
            )
        else:
            yield f"{files}: this format is not read; convert {'it' if count == 1 else 'them'} to NIfTI"


def refused_lines(leftovers: pa.Table) -> Iterator[str]:
    """Yield a line for every kind of image file that a layout or a label would read, and why it was set aside.

    ``leftovers`` are rows of INSTANCES with status, reason, format and detail.
    """
    rows: list[FileRow] = leftovers.select(["status", "reason", "format", "detail"]).to_pylist()
    counted = Counter(
        (row["format"], why_refused(row) or row["reason"])
        for row in rows
        if row["status"] == "quarantined" and row["format"] in VOLUMES | PICTURES
    )
    for (form, why), count in counted.most_common(MOST_REFUSED):
        yield f"{count} {IMAGE_FORMATS[form]} {'file' if count == 1 else 'files'} set aside: {why}"
    if more := counted.total() - sum(count for _, count in counted.most_common(MOST_REFUSED)):
        yield f"{more} more image {'file' if more == 1 else 'files'} set aside for other reasons"


MOST_REFUSED = 10
"""Reasons for which image files were set aside that are named one by one."""


def why_refused(row: FileRow) -> str | None:
    """Return what an image file's header lacks, for a row of the index; None for other files and reasons.

    Such a text may leave, because it never holds a value of a text field (``FileFault``). Other details may not.
    """
    if row["reason"] == Reason.UNREADABLE and row["format"] in VOLUMES | PICTURES:
        return str(row["detail"]) if row["detail"] else None
    return None


def unread_object_lines(instances: Iterable[tuple[str | None, int | None]]) -> Iterator[str]:
    """Yield a line for every kind of DICOM object that holds a volume and that nothing reads.

    ``instances`` are modalities with numbers of instances, as stacks have them.
    """
    counted: Counter[str] = Counter()
    for modality, count in instances:
        if modality in UNREAD_OBJECTS:
            counted[str(modality)] += count or 0
    for name, count in sorted(counted.items()):
        yield f"{count} {name} {'object' if count == 1 else 'objects'}: {UNREAD_OBJECTS[name]}"


UNREAD_OBJECTS = {"RTDOSE": "dose grids are not read; export them as NIfTI to use them as images"}

IMAGE_FORMATS = {
    "nifti": "NIfTI", "nrrd": "NRRD", "mha": "MetaImage", "mhd": "MetaImage", "png": "PNG", "jpeg": "JPEG",
    "tiff": "TIFF", "analyze": "Analyze", "mgh": "FreeSurfer MGH", "afni": "AFNI", "minc": "MINC", "hdf5": "HDF5",
    "par": "Philips PAR",
}  # fmt: skip
"""Formats of image files that are not DICOM, as people call them."""


def count_formats(table: pa.Table, used: Iterable[int] = ()) -> Counter[str]:
    """Count by format the image files of a table of INSTANCES, without those in the rows that are used.

    Files that would be read if they were sound are not counted where the index set them aside (``refused_lines``).
    """
    taken = set(used)
    found = enumerate(zip(table.column("format").to_pylist(), table.column("status").to_pylist(), strict=True))
    return Counter(
        form for row, (form, status) in found
        if form in IMAGE_FORMATS and row not in taken and (status == "file" or form not in VOLUMES | PICTURES)
    )  # fmt: skip


def _reading(source: LaidOut, entries: Mapping[str, Entry], images: Sequence[str]) -> Reading:
    layout = source.layout
    assert layout is not None
    documents = Documents(frozenset(entries), lambda place: source.read(entries[place]))
    if layout.kind == "bids":
        return Bids(documents)
    if layout.kind == "nnunet":
        return NnUnet(documents)
    if layout.kind == "msd":
        return Decathlon(documents)
    return Pattern(layout, documents, images) if layout.kind == "pattern" else Table(layout, documents)


def _companion(place: str, facts: str) -> str:
    """Return the place of the file that holds the voxels of a header; "" if the header's own file does."""
    companion = facts_from_json(facts).companion
    if not companion:
        return ""
    folder, name = posixpath.split(place)
    if companion.startswith("."):
        companion = stem_of(name) + companion + (".gz" if suffix_of(name).lower().endswith(".gz") else "")
    return posixpath.join(folder, companion)


def _image_columns(row: FileRow, named: Named, layout: Layout, *, names: tuple[str, ...], head: str) -> dict[str, Any]:
    """Return the columns of an image that its layout decides."""
    own = place_of(row["path"], row["member"])
    picture = row["format"] in PICTURES
    modality = layout.modality_of(named.image) or named.columns.get("modality") or ("OT" if picture else "")
    spacing = list(layout.pixel_spacing_mm) if picture and layout.pixel_spacing_mm else None
    stated = {
        "values": layout.values_of(named.image), "channels": list(named.channels), "case": named.case,
        "fields": dict(named.fields),
    }  # fmt: skip
    series = uid("series", *names, head)
    found: dict[str, Any] = {
        **named.columns,
        "status": "instance",
        "patient_id": named.patient,
        "study_uid": uid("study", *names, named.patient, named.visit),
        "series_uid": series,
        "sop_instance_uid": uid("instance", *names, own, row["header_sha256"] or ""),
        "modality": modality or None,
        "image": named.image,
        "visit": named.visit or None,
        "split_published": named.split or None,
        "layout": json.dumps(stated, sort_keys=True),
        "pixel_spacing": spacing,
    }
    if layout.body_part:
        found["body_part_examined"] = layout.body_part
    if picture:
        found["conversion_type"] = WORKSTATION
        found["lossy_image_compression"] = "01" if row["format"] == "jpeg" else None
    if row["file_facts"] is not None:
        facts = facts_from_json(row["file_facts"])
        found |= {"rows": facts.shape[1], "columns": facts.shape[2]}
    return found


def _missing_row(source: int, place: str) -> dict[str, Any]:
    outside = place.startswith(("../", "/")) or place == ".."
    where = "that lies outside its folder" if outside else "that does not exist"
    return {
        "source": source, "path": place, "member": "", "size": 0, "stamp": "", "status": "quarantined",
        "reason": Reason.SOURCE_MISSING.value, "format": "unknown",
        "detail": f"the layout of the source lists a file {where}",
        "referenced_series_uids": (), "referenced_sop_uids": (), "referenced_frame_of_reference_uids": (),
        "label_names": (),
    }  # fmt: skip
