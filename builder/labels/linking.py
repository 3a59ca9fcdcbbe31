"""Which annotation objects belong to an image series: decided at plan time from index rows, without pixels."""

import fnmatch
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.protocols import How, ImageRow, Selection

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
PRESENTATION_STATES = "1.2.840.10008.5.1.4.1.1.11."
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


def image_row(stack_instances: pa.Table) -> ImageRow:
    """The linking facts of a stack, from its INSTANCES rows."""
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


def select_references(image: ImageRow, candidates: pa.Table, *, sop_classes: tuple[str, ...]) -> Selection:
    """DICOM objects that refer to ``image``: by its instances, else its series, else its frame of reference.

    Only the strongest level that finds anything counts: an object that names this very series wins over one that
    merely shares the frame of reference (which a PET and its CT do). An object that names another series *of the
    candidates' person* by series UID never falls through to the frame of reference when some object names this one.

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


def select_named(
    found: Selection, candidates: pa.Table, structures_of: Callable[[str], tuple[str, ...]]
) -> Selection:
    """Those of ``found`` with a name (of a ROI or segment) that a structure takes, or without any name in the index."""
    named = candidates.column("label_names").to_pylist()
    kept = tuple(
        row for row in found.rows if not named[row] or any(structures_of(name) for name in (*named[row], ""))
    )
    return Selection(kept, found.how if kept else How.NONE, tuple(row for row in found.rows if row not in kept))


def select_files(image: ImageRow, candidates: pa.Table, *, pattern: str, formats: tuple[str, ...]) -> Selection:
    """Files whose path matches ``pattern`` once the image's own facts are put in.

    ``pattern`` is a glob over the whole path (``*`` stays inside one folder, ``**`` crosses folders) with the fields
    ``{folder}`` (of the image's files), ``{parent}`` (the folder above), ``{folder_name}``, ``{parent_name}``,
    ``{series}``, ``{study}``, ``{patient}`` and ``{modality}``.
    """
    expression = re.compile(_glob_to_regex(_fill(pattern, image)))
    paths = candidates.column("path").to_pylist()
    kinds = candidates.column("format").to_pylist()
    found = tuple(
        index
        for index, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        if kind in formats and expression.fullmatch(posixpath.normpath(path.replace("\\", "/")))
    )
    return Selection(found, How.NAME) if found else Selection()


PATTERN_FIELDS = ("folder", "parent", "folder_name", "parent_name", "series", "study", "patient", "modality")
"""Fields a path pattern may name."""


def check_pattern(pattern: str) -> str:
    """``pattern`` itself when every field it names is known; ValueError otherwise."""
    for field in re.findall(r"\{([^{}]*)\}", pattern):
        if field not in PATTERN_FIELDS:
            raise ValueError(f"match: found field {{{field}}}, expected one of {', '.join(PATTERN_FIELDS)}")
    if pattern.count("{") != pattern.count("}"):
        raise ValueError("match: found an unpaired brace, expected fields like {folder}")
    return pattern


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


def _fill(pattern: str, image: ImageRow) -> str:
    """The pattern with the image's facts in place of its fields, as literal text."""
    folder = posixpath.normpath(image.folder or ".")
    parent = posixpath.dirname(folder) or "."
    facts = {
        "folder": folder,
        "parent": parent,
        "folder_name": posixpath.basename(folder),
        "parent_name": posixpath.basename(parent),
        "series": image.series_uid,
        "study": image.study_uid,
        "patient": image.patient_id,
        "modality": image.modality,
    }
    filled = pattern
    for name, value in facts.items():
        filled = filled.replace(f"{{{name}}}", re.sub(r"([*?\[])", r"[\1]", value))
    return posixpath.normpath(filled)


def _glob_to_regex(pattern: str) -> str:
    """A glob as a regular expression: ``**/`` crosses folders, ``*`` and ``?`` do not."""
    parts = re.split(r"(\*\*/?|\*|\?|\[[^\]]*\])", pattern)
    pieces = []
    for part in parts:
        if part in ("**/", "**"):
            pieces.append(".*" if part == "**" else "(?:.*/)?")
        elif part == "*":
            pieces.append("[^/]*")
        elif part == "?":
            pieces.append("[^/]")
        elif part.startswith("[") and part.endswith("]") and len(part) > 2:
            pieces.append(fnmatch.translate(part).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z"))
        else:
            pieces.append(re.escape(part))
    return "".join(pieces)


def _common_folder(paths: Sequence[str]) -> str:
    folders = sorted({posixpath.dirname(p) for p in paths})
    return folders[0] if len(folders) == 1 else posixpath.commonpath(folders) if folders else ""
