"""Linking of annotation objects to image series, decided at plan time from index rows without reading pixels."""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.model.globs import OneOf, Piece, Wild, WordEdge, check_glob, fits, pieces_of
from builder.model.linking import How, ImageRow, Selection
from builder.model.places import place_of, stem_of

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
PRESENTATION_STATES = "1.2.840.10008.5.1.4.1.1.11."
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


def image_row(stack_instances: pa.Table) -> ImageRow:
    """Return the facts of a stack that linking needs, from its INSTANCES rows."""
    first = stack_instances.slice(0, 1).to_pylist()[0]
    paths = stack_instances.column("path").to_pylist()
    if first.get("layout"):
        members = stack_instances.column("member").to_pylist()
        paths = [place_of(path, member) for path, member in zip(paths, members, strict=True)]
    return ImageRow(
        series_uid=first["series_uid"] or "",
        study_uid=first["study_uid"] or "",
        frame_of_reference_uid=first["frame_of_reference_uid"],
        sop_uids=frozenset(u for u in stack_instances.column("sop_instance_uid").to_pylist() if u),
        folder=_common_folder(paths),
        modality=first["modality"] or "",
        patient_id=first["patient_id"] or "",
        source=first.get("source"),
        fields=_layout_fields(first, paths[0]) if first.get("layout") else (),
        accession_number=(first.get("accession_number") or "").strip(" \0"),
    )


def _layout_fields(row: Mapping[str, Any], place: str) -> tuple[tuple[str, str], ...]:
    stated = json.loads(row["layout"])
    found = {**stated["fields"], "case": stated["case"], "visit": row["visit"], "image": row["image"]}
    found |= {"stem": stem_of(place), "file": posixpath.basename(place), "path": place}
    return tuple(sorted((name, value) for name, value in found.items() if value))


def select_references(image: ImageRow, candidates: pa.Table, *, sop_classes: tuple[str, ...]) -> Selection:
    """Select DICOM objects that refer to ``image`` by its instances, else its series, else its frame of reference.

    Only the strongest level with a match counts. An object that names this very series therefore wins over one that
    merely shares the frame of reference, which a PET and its CT have in common.

    Parameters
    ----------
    sop_classes
        SOP Class UIDs, or prefixes of them that end with a dot.
    """
    rows = _rows(candidates, sop_classes)
    tests: tuple[tuple[How, Callable[[Mapping[str, Any]], bool]], ...] = (
        (How.SOP, lambda row: not image.sop_uids.isdisjoint(row["referenced_sop_uids"] or ())),
        (How.SERIES, lambda row: image.series_uid in (row["referenced_series_uids"] or ())),
        (How.FRAME_OF_REFERENCE, lambda row: _shares_frame(image, row)),
    )
    for how, test in tests:
        found = tuple(index for index, row in rows if test(row))
        if found:
            return Selection(found, how)
    return Selection()


def select_named(found: Selection, candidates: pa.Table, structures_of: Callable[[str], tuple[str, ...]]) -> Selection:
    """Keep the objects of ``found`` that have a ROI or segment name a structure takes, or no names in the index."""
    named = candidates.column("label_names").to_pylist()
    kept = tuple(row for row in found.rows if not named[row] or any(structures_of(name) for name in (*named[row], "")))
    return Selection(kept, found.how if kept else How.NONE, tuple(row for row in found.rows if row not in kept))


def select_files(
    image: ImageRow,
    candidates: pa.Table,
    *,
    pattern: str,
    formats: tuple[str, ...],
    structures: Sequence[str] = (),
) -> Selection:
    """Select the files of the image's source whose path matches ``pattern`` with the image's own facts filled in.

    A path means nothing in another source. Other sources are searched only if the pattern names no folder of the image,
    and then only sources that belong to the same site or state none.

    Parameters
    ----------
    pattern
        A glob over the whole path: ``*`` stays inside one folder, ``**`` crosses folders. The fields are ``{folder}``
        (of the image's files), ``{parent}`` (the folder above), ``{folder_name}``, ``{parent_name}``, ``{series}``,
        ``{study}``, ``{accession}`` (number), ``{patient}`` and ``{modality}``. A wildcard next to a field never
        continues the field's word, and a file that fits the longer ID of another patient belongs to that patient.
        ``{patient}*.nii.gz`` of P1 therefore matches neither ``P10.nii.gz`` nor, if there is a patient P1-2,
        ``P1-2.nii.gz``. Of a source with a layout there are also ``{label}`` (the path of the image's mask, where the
        layout knows it), ``{visit}``, ``{image}``, ``{case}`` and ``{stem}`` (the image's name without its suffix). A
        file in an archive lies where the archive does.
    structures
        What ``{structure}`` may stand for.
    """
    pattern = pattern.replace("{structure}", _STRUCTURE)
    pieces = _filled(pattern, image, image.patient_id, structures)
    if pieces is None:
        return Selection()
    longer = image.longer_ids if "{patient}" in pattern else ()
    others = [_filled(pattern, image, other, structures) for other in longer]
    reached = None if image.source is None else {image.source}
    if reached is not None and not any(f"{{{field}" in pattern for field in PATH_FIELDS):
        reached |= image.site_sources
    columns = (candidates.column(name).to_pylist() for name in ("path", "member", "format", "source"))
    found = []
    for index, (path, member, kind, source) in enumerate(zip(*columns, strict=True)):
        if kind not in formats or (reached is not None and source not in reached):
            continue
        names = {posixpath.normpath(path.replace("\\", "/")), place_of(path, member)}
        if not any(fits(pieces, name) for name in names):
            continue
        if not any(other and fits(other, name) for other in others for name in names):
            found.append(index)
    return Selection(tuple(found), How.NAME) if found else Selection()


PATH_FIELDS = ("folder", "parent", "folder_name", "parent_name", "label", "stem")
"""Fields that name a place in the image's own source."""

PATTERN_FIELDS = (
    *PATH_FIELDS, "series", "study", "accession", "patient", "modality", "visit", "image", "case", "channel", "suffix",
)  # fmt: skip
"""Fields that a path pattern may use."""


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if every field in it is known, else raise ValueError."""
    for field in re.findall(r"\{([^{}]*)\}", pattern):
        if field != "structure" and field not in PATTERN_FIELDS and not field.startswith("label."):
            raise ValueError(f"match: found field {{{field}}}, expected one of {', '.join(PATTERN_FIELDS)}")
    if pattern.count("{") != pattern.count("}"):
        raise ValueError("match: found an unpaired brace, expected fields like {folder}")
    return check_glob(pattern)


def _rows(candidates: pa.Table, sop_classes: tuple[str, ...]) -> list[tuple[int, Mapping[str, Any]]]:
    columns = ("referenced_sop_uids", "referenced_series_uids", "referenced_frame_of_reference_uids")
    values = {name: candidates.column(name).to_pylist() for name in columns}
    own_frame = candidates.column("frame_of_reference_uid").to_pylist()
    classes = candidates.column("sop_class_uid").to_pylist()
    return [
        (index, {name: values[name][index] for name in columns} | {"frame_of_reference_uid": own_frame[index]})
        for index, sop_class in enumerate(classes)
        if sop_class and any(sop_class == c or (c.endswith(".") and sop_class.startswith(c)) for c in sop_classes)
    ]


def _shares_frame(image: ImageRow, row: Mapping[str, Any]) -> bool:
    if not image.frame_of_reference_uid:
        return False
    frames = set(row["referenced_frame_of_reference_uids"] or ())
    return image.frame_of_reference_uid in frames | {row["frame_of_reference_uid"]}


_STRUCTURE = "\ue002"
"""Marker of the place of a structure's name."""

_BEGIN, _END = "\ue000", "\ue001"
"""Markers around a filled-in fact, which keep a wildcard from continuing the word of the fact."""


def _filled(pattern: str, image: ImageRow, patient_id: str, structures: Sequence[str]) -> tuple[Piece, ...] | None:
    """Return the pattern with the image's facts filled in, or None if the image lacks one of them."""
    folder = posixpath.normpath(image.folder or ".")
    parent = posixpath.dirname(folder) or "."
    facts = dict(image.fields) | {
        "folder": folder,
        "parent": parent,
        "folder_name": posixpath.basename(folder),
        "parent_name": posixpath.basename(parent),
        "series": image.series_uid,
        "study": image.study_uid,
        "accession": image.accession_number,
        "patient": patient_id.strip(),
        "modality": image.modality,
    }
    filled = pattern
    for name in re.findall(r"\{([^{}]*)\}", pattern):
        value = facts.get(name)
        if not value:
            return None
        literal = re.sub(r"([*?\[])", r"[\1]", value)
        filled = filled.replace(f"{{{name}}}", literal if value == "." else f"{_BEGIN}{literal}{_END}")
    parts = [p for p in re.split(f"({_BEGIN}|{_END}|{_STRUCTURE})", posixpath.normpath(filled)) if p]
    pieces = [piece for part in parts for piece in _pieces(part, tuple(structures))]
    return tuple(piece for place, piece in enumerate(pieces) if not _is_idle(pieces, place))


def _pieces(part: str, structures: tuple[str, ...]) -> tuple[Piece, ...]:
    marks: Mapping[str, Piece] = {
        _BEGIN: WordEdge("before"), _END: WordEdge("after"), _STRUCTURE: OneOf(structures)
    }  # fmt: skip
    return (marks[part],) if part in marks else pieces_of(part)


def _is_idle(pieces: Sequence[Piece], place: int) -> bool:
    """Return whether a piece is the edge of a word with no wildcard beside it that could go on with the word."""
    piece = pieces[place]
    if not isinstance(piece, WordEdge):
        return False
    beside = place - 1 if piece.side == "before" else place + 1
    return not (0 <= beside < len(pieces) and isinstance(pieces[beside], Wild))


def _common_folder(paths: Sequence[str]) -> str:
    folders = sorted({posixpath.dirname(p) for p in paths})
    return folders[0] if len(folders) == 1 else posixpath.commonpath(folders) if folders else ""
