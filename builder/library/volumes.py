"""Convert every series of a folder to NIfTI files, with a verdict and a reason for each (``builder volumes``)."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import nibabel
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.dataset import Dataset

from builder.deid import Deid
from builder.deid.headers import deidentify
from builder.deid.identifiers import identifiers_in
from builder.deid.pixels import pixel_risk, shows_face
from builder.deid.uids import UidMap
from builder.errors import CaseError, SpecError
from builder.imaging.lint import lint
from builder.imaging.multiframe import resolve
from builder.imaging.nifti import to_nifti
from builder.imaging.parse import leniently
from builder.imaging.quantities.philips import scales_of
from builder.imaging.quantities.suv import calibrate
from builder.imaging.stacks.axes import joined, stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.imaging.survey import verdict_row, verdict_table
from builder.imaging.volume import Archived, assemble, assemble_indexed
from builder.model.case import Volume
from builder.model.keyed import Key
from builder.plan import IMAGE_ROLE
from builder.planning.duplicates import find_duplicates, with_verdicts
from builder.sources import AnySource
from builder.sources.folder import Folder
from builder.stages.boundary import OnInternalError, default_action, fault_of_case
from builder.stages.fetch import Objects, fetch, pixels_of
from builder.stages.index import index_partition

KEEP_ALL: Final = VolumeOptions(
    time_series="keep", single_slice="keep", projection="keep", localizer="keep", still="keep", cine="keep",
    secondary_capture="keep", irregular="resample",
)  # fmt: skip
"""Options that keep everything that can be shown, whereas a build excludes what its spec does not ask for. A stack with
gaps gets a verdict but no file, because nobody knows what lies in a gap."""


class _SameUids(UidMap):
    """Keeps UIDs, so that de-identified data sets are found by the UIDs of their stack."""

    def __call__(self, uid: str) -> str:
        return uid.strip(" \0")


_PROFILE: Final = Deid(patient_key="${env:NONE}").profile
_UIDS: Final = _SameUids(Key(bytes(32)))
"""What a spec de-identifies with by default; the key only shifts dates of data sets that nobody keeps."""


@dataclass(frozen=True)
class _Series:
    """One series of the folder: its rows, and the folder of its first file."""

    number: int
    folder: str
    rows: pa.Table


def write_volumes(
    path: Path,
    destination: Path,
    *,
    options: VolumeOptions = KEEP_ALL,
    on_internal_error: OnInternalError | None = None,
) -> pa.Table:
    """Write every stack of a folder that forms a volume as ``.nii``, and a verdict for every stack.

    Objects are fetched, checked and assembled by the functions that a build uses, so that both reach the same verdict.

    Parameters
    ----------
    path
        Folder of DICOM files, read to any depth.
    destination
        Folder for ``s<series>-<stack>.nii``, ``verdicts.json``, ``verdicts.parquet`` and ``files.json``, which counts
        the files by their fate.
    on_internal_error
        As for ``builder.build``.

    Returns
    -------
    pa.Table
        Table of schema ``builder.imaging.survey.VERDICTS``; a stack that gave no volume has a reason.

    Raises
    ------
    SpecError
        If ``path`` is not a folder.
    """
    if not path.is_dir():
        raise SpecError(f"{path}: found no folder, expected a folder of DICOM files")
    destination.mkdir(parents=True, exist_ok=True)
    source = Folder(url=str(path.resolve()))
    action = on_internal_error or default_action(os.environ)
    table = index_partition(source, 0, tuple(source.list()), on_internal_error=action)
    table = with_verdicts(table, find_duplicates([table], [source]))
    rows = [
        row
        for series in _series(table)
        for row in _written(series, source, destination=destination, options=options, action=action)
    ]
    verdicts = verdict_table(rows)
    pq.write_table(verdicts, destination / "verdicts.parquet")
    _dump(verdicts.to_pylist(), destination / "verdicts.json")
    _dump(_fates(table), destination / "files.json")
    return verdicts


def verdict_lines(verdicts: pa.Table) -> Iterator[str]:
    """Yield one line of text per stack, or that there is none."""
    if not verdicts.num_rows:
        yield "no DICOM series was found, so no volume was written; builder scan PATH says what the folder holds"
    for row in verdicts.to_pylist():
        size = "x".join(str(row[name]) for name in ("slices", "rows", "columns"))
        rule = f" (split by {row['split_rule']})" if row["split_rule"] else ""
        fate = row["file"] or f"no volume: {row['reason']} ({row['reason_detail']})"
        name = f"{row['series']:03d}-{row['stack']:02d} {row['modality'] or '--'}"
        yield f"{name} {row['verdict']}{rule}: {row['detail']}; {size}; {fate}"


def _series(table: pa.Table) -> list[_Series]:
    """Return the series in the order of the path of their first file."""
    places: dict[str, list[int]] = {}
    for index, row in enumerate(table.select(["status", "series_uid"]).to_pylist()):
        if row["status"] == "instance":
            places.setdefault(row["series_uid"], []).append(index)
    paths = table.column("path").to_pylist()
    found = sorted(places.values(), key=lambda indices: min(paths[i] for i in indices))
    return [
        _Series(number, str(Path(min(paths[i] for i in indices)).parent), table.take(indices))
        for number, indices in enumerate(found)
    ]


def _written(
    series: _Series, source: AnySource, *, destination: Path, options: VolumeOptions, action: OnInternalError
) -> Iterator[dict[str, Any]]:
    """Write the stacks of one series, and yield their rows."""
    number = 0
    for stack in stacks_for(series.rows, options):
        for part, objects, fault in _parts(stack, series.rows, source=source, options=options, action=action):
            part = replace(part, number=number)
            number += 1
            row = {"series": series.number, "folder": series.folder}
            file = destination / f"s{series.number:03d}-{part.number:02d}.nii"
            if objects is not None:
                yield row | _one(part, objects, source, file=file, options=options, action=action)
            else:
                yield row | verdict_row(part, error=fault)


def _parts(
    stack: Stack, rows: pa.Table, *, source: AnySource, options: VolumeOptions, action: OnInternalError
) -> Iterator[tuple[Stack, Objects | None, CaseError | None]]:
    """Yield the stacks to assemble in place of one, with their objects, or the fault that prevents it."""
    whole: Objects | None = None
    try:
        admit(stack, options)
        found: Sequence[Stack] = (stack,)
        if stack.verdict in (Verdict.MULTIFRAME, Verdict.MOSAIC):
            whole = _objects(stack, rows, source, options)
            found = joined(resolve(stack, whole.images), options)
    except Exception as error:  # noqa: BLE001 - the case boundary
        yield stack, None, fault_of_case(error, on_internal_error=action)
        return
    for inner in found:
        try:
            parts = admit(inner, options)
        except Exception as error:  # noqa: BLE001 - the case boundary
            yield inner, None, fault_of_case(error, on_internal_error=action)
            continue
        for part in parts:
            try:
                objects = whole or _objects(part, rows, source, options)
            except Exception as error:  # noqa: BLE001 - the case boundary
                yield part, None, fault_of_case(error, on_internal_error=action)
            else:
                yield part, objects, None


def _one(
    stack: Stack, objects: Objects, source: AnySource, *, file: Path, options: VolumeOptions, action: OnInternalError
) -> dict[str, Any]:
    """Write one stack, assembled as in a build, and return its row."""
    try:
        for image in (objects.first, *objects.images):  # a spec decides what the answers mean; here they must be there
            pixel_risk(image)
            shows_face(image)
        if objects.images:
            volume = _cleaned(stack, objects.images, options)
        else:
            volume = assemble_indexed(
                stack, objects.rows, options, fill=pixels_of(objects.rows, (source,)),
                calibration=objects.calibration, scales=scales_of((objects.first,)),
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - the case boundary
        return verdict_row(stack, error=fault_of_case(error, on_internal_error=action))
    nibabel.save(to_nifti(volume), file)
    findings = lint(volume, objects.images or (objects.first,))
    return verdict_row(stack, volume=volume, findings=findings) | {"file": file.name}


@leniently()
def _cleaned(stack: Stack, images: Sequence[Dataset], options: VolumeOptions) -> Volume:
    """Assemble a stack as a build does: from de-identified data sets, checked against what the archive states.

    Nothing of them is published here. A value that de-identification cannot read is refused in a build, so it is met
    here too.
    """
    known = identifiers_in(images)
    clean = [deidentify(image, profile=_PROFILE, uids=_UIDS, person="", known=known) for image in images]
    calibration = calibrate(images, weight_kg=options.pet_weight_kg) if stack.modality == "PT" else None
    return assemble(stack, clean, options, archived=Archived(calibration, scales_of(images), images))


def _objects(stack: Stack, rows: pa.Table, source: AnySource, options: VolumeOptions) -> Objects:
    """Fetch the instances of a stack as a build does. Raises CaseError."""
    wanted = {uid for channel in stack.uids for uid in channel}
    own = rows.filter(pa.array([uid in wanted for uid in rows.column("sop_instance_uid").to_pylist()]))
    own = own.sort_by("sop_instance_uid")  # a build takes them in this order
    return fetch(own.append_column("role", pa.repeat(IMAGE_ROLE, own.num_rows)), (source,), options)


def _fates(table: pa.Table) -> list[dict[str, Any]]:
    """Count the files by status, format and reason."""
    counts: dict[tuple[str, str, str], int] = {}
    for row in table.select(["status", "format", "reason"]).to_pylist():
        key = (row["status"] or "", row["format"] or "", row["reason"] or "")
        counts[key] = counts.get(key, 0) + 1
    return [{"status": s, "format": f, "reason": r, "files": counts[s, f, r]} for s, f, r in sorted(counts)]


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
