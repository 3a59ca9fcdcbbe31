"""The Brain Imaging Data Structure (bids-specification.readthedocs.io): entities, tables and inherited sidecars."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from builder.errors import SpecError
from builder.model.places import stem_of
from builder.planning.layouts.names import Documents, Named
from builder.planning.layouts.sidecars import age_text, day_text, header_columns, sex_code

NEVER_RAW = frozenset({"derivatives", "sourcedata", "code", "stimuli", "rawdata_backup", ".git"})
"""Folders whose files are not raw images."""

MODALITIES = {"pet": "PT", "ct": "CT", **dict.fromkeys(("anat", "func", "dwi", "fmap", "perf", "swi"), "MR")}
"""DICOM's modality by BIDS data type. The folder ``ct`` is not in the standard, and common."""

BY_SUFFIX = {"ct": "CT", "pet": "PT"}
NO_IMAGES = frozenset({"physio", "events", "channels", "electrodes", "coordsystem", "blood", "headshape"})


class Bids:
    """One BIDS dataset."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        roots = {
            posixpath.dirname(p) for p in documents.places
            if posixpath.basename(p) == "dataset_description.json" and not NEVER_RAW & {*p.split("/")}
        }  # fmt: skip
        if len(roots) > 1:
            raise SpecError(
                f"layout: found {len(roots)} BIDS datasets below the source's folder, expected one: give each a source "
                "of its own, with a site or a collection, because sub-01 of two datasets may be two people"
            )
        self.root = next(iter(roots), "")
        self.sidecars: dict[str, list[tuple[dict[str, str], str, str]]] = {}
        for place in sorted(documents.places):
            if place.endswith(".json"):
                entities, suffix = _entities(posixpath.basename(place).removesuffix(".json"))
                self.sidecars.setdefault(posixpath.dirname(place), []).append((entities, suffix, place))
        self.people = self._rows("participants.tsv", "participant_id")
        self._once = lru_cache(maxsize=4096)(documents.mapping)
        self._visits = lru_cache(maxsize=4096)(self._rows)

    def name(self, place: str) -> Named | str | None:
        """See ``names.Reading``."""
        inside = posixpath.relpath(place, self.root or ".")
        parts = inside.split("/")
        if NEVER_RAW & {*parts} or not parts[0].startswith("sub-") or len(parts) < 3:
            return None
        entities, suffix = _entities(stem_of(place))
        kind = parts[-2]
        if kind not in MODALITIES or suffix in NO_IMAGES:
            return None
        visit = parts[1] if parts[1].startswith("ses-") else ""
        if (f"sub-{entities.get('sub', '')}", entities.get("ses", "")) != (parts[0], visit.removeprefix("ses-")):
            return "its name says another subject or session than its folders"
        sidecar = self._inherited(place, entities, suffix)
        modality = BY_SUFFIX.get(suffix.lower(), MODALITIES[kind])
        image = "_".join([*(f"{k}-{v}" for k, v in entities.items() if k not in ("sub", "ses")), suffix])
        return Named(
            patient=parts[0], visit=visit, image=image,
            columns={"modality": modality, **header_columns(sidecar), **self._who(parts[0], visit, inside)},
            fields={"suffix": suffix, "datatype": kind, **entities},
        )  # fmt: skip

    def promised(self) -> Iterator[str]:
        """Yield nothing: that a subject lacks an image is no fault in BIDS."""
        return iter(())

    def _inherited(self, place: str, entities: Mapping[str, str], suffix: str) -> dict[str, Any]:
        """Merge the sidecars that apply to an image, from the root down: a nearer one wins."""
        inside = posixpath.relpath(posixpath.dirname(place), self.root or ".")
        folders = [self.root]
        for part in inside.split("/"):
            folders.append(posixpath.join(folders[-1], part))
        merged: dict[str, Any] = {}
        for folder in folders:
            fitting = [
                (len(own), found) for own, kind, found in self.sidecars.get(folder, ())
                if kind == suffix and own.items() <= entities.items()
            ]  # fmt: skip
            for _, found in sorted(fitting):
                merged |= self._once(found)
        return merged

    def _who(self, patient: str, visit: str, inside: str) -> dict[str, Any]:
        """Return what participants.tsv, sessions.tsv and scans.tsv say of an image, as columns."""
        rows = [self.people.get(patient, {})]
        if visit:
            rows.append(self._visits(f"{patient}/{patient}_sessions.tsv", "session_id").get(visit, {}))
        home = "/".join([patient, visit]) if visit else patient
        scans = self._visits(f"{home}/{'_'.join(filter(None, (patient, visit)))}_scans.tsv", "filename")
        rows.append(scans.get(posixpath.relpath(inside, home), {}))
        found: dict[str, Any] = {}
        for row in rows:
            stated = {
                "patient_sex": sex_code(row.get("sex", "")),
                "patient_age": age_text(row.get("age", "")),
                "study_date": day_text(row.get("acq_time", "")),
            }
            found |= {column: value for column, value in stated.items() if value}
        return found

    def _rows(self, name: str, key: str) -> dict[str, dict[str, str]]:
        """Read a table of the dataset by one of its columns; a table that is absent has no rows."""
        place = posixpath.normpath(posixpath.join(self.root, name))
        if place not in self.documents.places:
            return {}
        sheet = self.documents.table(place)
        if key not in sheet.headings:
            return {}
        rows = (dict(zip(sheet.headings, cells, strict=True)) for _, cells in sheet.texts())
        return {row[key]: {n: "" if v.lower() == "n/a" else v for n, v in row.items()} for row in rows}


def _entities(stem: str) -> tuple[dict[str, str], str]:
    """Return the entities of a name in their order, and its suffix."""
    *pairs, suffix = stem.split("_")
    found = {m[1]: m[2] for pair in pairs if (m := re.fullmatch(r"([A-Za-z]+)-(.+)", pair))}
    return found, suffix
