"""Export to BIDS: a folder per person, a sidecar per image, and the table of participants.

Source: Brain Imaging Data Structure 1.10, "Common principles" and "Derivatives". BIDS has no CT: what it has no
name for lies in folders that ``.bidsignore`` lists.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present, one_image_field
from builder.reader.export.nifti import write_nifti
from builder.reader.frameworks import nifti_arrays

VERSION: Final = "1.10.0"
_SERIES: Final = {"t1w": "T1w", "t2w": "T2w", "flair": "FLAIR", "pdw": "PDw"}
_SIDECAR: Final = {
    "modality": "Modality", "vendor": "Manufacturer", "magnetic_field_strength": "MagneticFieldStrength",
    "echo_time": "EchoTime", "repetition_time": "RepetitionTime", "inversion_time": "InversionTime",
    "flip_angle": "FlipAngle", "body_part": "BodyPart", "series_type": "SeriesType", "study_day": "StudyDay",
}  # fmt: skip
_SECONDS: Final = ("echo_time", "repetition_time", "inversion_time")
"""Times that DICOM gives in ms and BIDS in s."""
_PEOPLE: Final = ("split", "sex", "age_years", "site")


def export_bids(
    dataset: Dataset, folder: str | Path | ExportFolder, *, missing: Missing = "refuse", track: Track = silently
) -> list[Path]:
    """Write whole volumes as ``sub-<person>/<datatype>/sub-<person>_run-<n>_<suffix>.nii.gz`` with their sidecars.

    Labels lie beside their image as ``_desc-<label>_dseg.nii.gz``, with the names of their classes in a ``.tsv``.

    Returns
    -------
    list
        The images, in the order of the samples.

    Raises
    ------
    SpecError
        If the samples are patches (BIDS describes whole acquisitions), if images lie on several grids, or if a sample
        lacks an image.
    """
    one_image_field(dataset)
    check_present(dataset, missing)
    if dataset.layout("image").shape is not None:
        raise SpecError("export: found patches, expected whole volumes for BIDS; build with samples: {kind: volumes}")
    target, rows = ExportFolder.of(folder), dataset.table.to_pylist()
    runs = _runs(rows)
    _write_about(dataset, rows, target)

    def write(position: int) -> Path:
        row = rows[position]
        person = _word(row["person_key"])
        datatype, suffix = _kind(row)
        place, stem = f"sub-{person}/{datatype}", f"sub-{person}_run-{runs[position]:02d}"
        if not target.holds(place, f"{stem}_{suffix}.json"):  # the sidecar is written last
            _write(dataset, position, target=target, place=place, stem=stem, suffix=suffix)
            target.write(_json(_sidecar(row)), place, f"{stem}_{suffix}.json")
        return target.path(place, f"{stem}_{suffix}.nii.gz")

    return target.each(write, range(len(dataset)), track)


def _runs(rows: list[dict[str, Any]]) -> list[int]:
    """Return, for each row, which one it is of its person, from 1."""
    seen: Counter[str] = Counter()
    runs = []
    for row in rows:
        seen[row["person_key"]] += 1
        runs.append(seen[row["person_key"]])
    return runs


def _write(dataset: Dataset, position: int, *, target: ExportFolder, place: str, stem: str, suffix: str) -> None:
    item = dataset[position]
    for name in dataset.fields:
        image = name == "image"
        file = f"{stem}_{suffix}.nii.gz" if image else f"{stem}_desc-{_word(name)}_dseg.nii.gz"
        with target.replacing(place, file) as path:
            write_nifti(path, *nifti_arrays(item, name))


def _write_about(dataset: Dataset, rows: list[dict[str, Any]], target: ExportFolder) -> None:
    manifest = dataset.manifest
    document = {
        "Name": str(manifest.spec.get("title") or manifest.name),
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "License": str(manifest.spec.get("license") or "not stated"),
        "GeneratedBy": [{"Name": "builder", "Description": f"version {manifest.version} of {manifest.name}"}],
    }
    target.write(_json(document), "dataset_description.json")
    target.write(f"{manifest.name}, version {manifest.version}, exported by builder.\n".encode(), "README")
    unknown = sorted({f"sub-*/{_kind(row)[0]}/" for row in rows} - {"sub-*/anat/", "sub-*/pet/"})
    target.write("\n".join(["builder-export.json", "*_dseg.tsv", *unknown, ""]).encode(), ".bidsignore")
    names = [name for name in _PEOPLE if rows and name in rows[0]]
    people = {row["person_key"]: [row[name] for name in names] for row in reversed(rows)}
    lines = ["\t".join(("participant_id", *names))]
    lines += ["\t".join((f"sub-{_word(key)}", *map(_cell, people[key]))) for key in sorted(people)]
    target.write(("\n".join(lines) + "\n").encode(), "participants.tsv")
    for name in dataset.fields:
        segments = sorted(dataset.layout(name).segments.items(), key=lambda segment: segment[1][1])
        if segments:
            table = ["index\tname", *(f"{value}\t{segment}" for segment, (_, value) in segments)]
            target.write(("\n".join(table) + "\n").encode(), f"desc-{_word(name)}_dseg.tsv")


def _kind(row: dict[str, Any]) -> tuple[str, str]:
    """Return the datatype and suffix of an image; lower-case modalities where BIDS has no word."""
    modality = str(row.get("modality") or "image").lower()
    series = _SERIES.get(str(row.get("series_type") or "").lower())
    if modality == "mr" and series:
        return "anat", series
    return {"pt": ("pet", "pet")}.get(modality, (_word(modality), _word(modality)))


def _sidecar(row: dict[str, Any]) -> dict[str, Any]:
    found = {theirs: row[ours] for ours, theirs in _SIDECAR.items() if row.get(ours) is not None}
    for name in _SECONDS:
        if _SIDECAR[name] in found:
            found[_SIDECAR[name]] /= 1000
    return {**found, "SampleKey": row["sample_key"], "Split": row["split"]}


def _word(text: str) -> str:
    """Return a BIDS label, which holds only letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", text) or "x"


def _cell(value: Any) -> str:
    return "n/a" if value is None else re.sub(r"\s+", " ", str(value))


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, default=str) + "\n").encode()
