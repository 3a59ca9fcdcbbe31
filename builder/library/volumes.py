"""``builder volumes``: every series of a folder as NIfTI files, with a verdict and a reason each."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import nibabel
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.dataset import Dataset

from builder.errors import CaseError, SpecError
from builder.imaging.lint import lint
from builder.imaging.multiframe import resolve
from builder.imaging.nifti import to_nifti
from builder.imaging.parse import parse_instance
from builder.imaging.stacks.axes import joined, stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.series import Stack
from builder.imaging.survey import verdict_row, verdict_table
from builder.imaging.volume import assemble
from builder.planning.duplicates import find_duplicates, with_verdicts
from builder.protocols import Entry, Source
from builder.sources.folder import Folder
from builder.stages.index import index_partition

KEEP_ALL: Final = VolumeOptions(
    time_series="keep", single_slice="keep", projection="keep", localizer="keep", still="keep", cine="keep",
    secondary_capture="keep", irregular="resample", gapped="resample",
)  # fmt: skip
"""The tool shows all that can be shown; a build excludes what its spec does not ask for."""


@dataclass(frozen=True)
class _Series:
    """One series of the folder: its rows, and where its first file lies."""

    number: int
    folder: str
    rows: pa.Table


def write_volumes(path: Path, destination: Path, *, options: VolumeOptions = KEEP_ALL) -> pa.Table:
    """Write every stack of a folder that can be a volume as ``.nii``, and a verdict for each.

    Parameters
    ----------
    path
        Folder of DICOM files, read to any depth.
    destination
        Gets ``s<series>-<stack>.nii``, ``verdicts.json``, ``verdicts.parquet`` and ``files.json`` with the number of
        files by what became of them.

    Returns
    -------
    pa.Table
        By ``builder.imaging.survey.VERDICTS``; a stack that gave no volume has its reason.

    Raises
    ------
    SpecError
        When ``path`` is no folder.
    """
    if not path.is_dir():
        raise SpecError(f"{path}: found no folder, expected a folder of DICOM files")
    destination.mkdir(parents=True, exist_ok=True)
    source = cast(Source, Folder(url=str(path.resolve())))
    table = index_partition(source, 0, tuple(source.list()))
    table = with_verdicts(table, find_duplicates([table], [source]))
    rows = [
        row for series in _series(table) for row in _written(series, source, destination=destination, options=options)
    ]
    verdicts = verdict_table(rows)
    pq.write_table(verdicts, destination / "verdicts.parquet")
    _dump(verdicts.to_pylist(), destination / "verdicts.json")
    _dump(_fates(table), destination / "files.json")
    return verdicts


def verdict_lines(verdicts: pa.Table) -> Iterator[str]:
    """One line a stack, for people."""
    for row in verdicts.to_pylist():
        size = "x".join(str(row[name]) for name in ("slices", "rows", "columns"))
        rule = f" (split by {row['split_rule']})" if row["split_rule"] else ""
        fate = row["file"] or f"no volume: {row['reason']} ({row['reason_detail']})"
        name = f"{row['series']:03d}-{row['stack']:02d} {row['modality'] or '--'}"
        yield f"{name} {row['verdict']}{rule}: {row['detail']}; {size}; {fate}"


def _series(table: pa.Table) -> list[_Series]:
    """Series in the order of their first file's path."""
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


def _written(series: _Series, source: Source, *, destination: Path, options: VolumeOptions) -> Iterator[dict[str, Any]]:
    """Write the stacks of one series; yield their rows."""
    number = 0
    for stack in stacks_for(series.rows, options):
        for part, datasets, error in _parts(stack, series.rows, source=source, options=options):
            part = replace(part, number=number)
            number += 1
            row = {"series": series.number, "folder": series.folder}
            file = destination / f"s{series.number:03d}-{part.number:02d}.nii"
            if error is None:
                yield row | _one(part, datasets, file=file, options=options)
            else:
                yield row | verdict_row(part, error=error)


def _parts(
    stack: Stack, rows: pa.Table, *, source: Source, options: VolumeOptions
) -> Iterator[tuple[Stack, Sequence[Dataset], CaseError | None]]:
    """The stacks to assemble in place of one, with their data sets; or the reason why there are none."""
    try:
        admit(stack, options)
        datasets = list(_datasets(stack, rows, source))
        found = joined(resolve(stack, datasets), options)
    except CaseError as error:
        yield stack, (), error
        return
    for inner in found:
        try:
            for part in admit(inner, options):
                yield part, datasets, None
        except CaseError as error:
            yield inner, datasets, error


def _one(stack: Stack, datasets: Sequence[Dataset], *, file: Path, options: VolumeOptions) -> dict[str, Any]:
    try:
        volume = assemble(stack, datasets, options)
    except CaseError as error:
        return verdict_row(stack, error=error)
    nibabel.save(to_nifti(volume), file)
    return verdict_row(stack, volume=volume, findings=lint(volume, datasets)) | {"file": file.name}


def _datasets(stack: Stack, rows: pa.Table, source: Source) -> Iterator[Dataset]:
    """Read and parse the instances of a stack. Raises CaseError."""
    wanted = {uid for channel in stack.uids for uid in channel}
    for row in rows.select(["sop_instance_uid", "path", "member", "size", "stamp"]).to_pylist():
        if row["sop_instance_uid"] in wanted:
            yield parse_instance(source.read(Entry(row["path"], row["size"], row["stamp"], row["member"])))


def _fates(table: pa.Table) -> list[dict[str, Any]]:
    """How many files came to what end."""
    counts: dict[tuple[str, str, str], int] = {}
    for row in table.select(["status", "format", "reason"]).to_pylist():
        key = (row["status"] or "", row["format"] or "", row["reason"] or "")
        counts[key] = counts.get(key, 0) + 1
    return [{"status": s, "format": f, "reason": r, "files": counts[s, f, r]} for s, f, r in sorted(counts)]


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
