"""Read how somebody else divided images: table, folders, nnU-Net, MONAI datalist, BIDS, Hugging Face folder."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builder.clinical import read_sheet
from builder.errors import SpecError

SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "imagestr"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "tune"), "validation"),
    **dict.fromkeys(("test", "testing", "ts", "imagests", "holdout"), "test"),
}
"""Names of splits as people write them."""

FILES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
IMAGES = (*FILES, ".dcm", ".dicom", ".ima")
TEXTS = (".txt",)
_PATHS = ("path", "file", "filename", "file_name", "image", "img", "image_path", "filepath", "image index")
_PERSONS = (
    "person",
    "patient",
    "patient_id",
    "patientid",
    "patient id",
    "subject",
    "subject_id",
    "participant_id",
    "case_id",
)
_SPLITS = ("split", "set", "partition", "fold", "subset", "group")
_STUDIES = ("study", "study_id", "studyid", "study_uid", "studyinstanceuid", "accession", "session")
_TEXTS = ("text", "report", "caption", "findings", "impression")
_MOST_LEVELS = 12
_BIDS = re.compile(r"(?:^|/)sub-([A-Za-z0-9]+)(?=[/_])")
_NUMBERED = re.compile(r"(.*\d.*?)[_-]\d{1,4}$")


@dataclass(frozen=True)
class Item:
    """One image, or one text, that was put into splits.

    Parameters
    ----------
    name
        Path below the folder, or as the table states it.
    splits
        Division ("" for the only one, or a fold) to the name of the split.
    person, study
        Whose it is; "" where nothing says so.
    text
        A report or caption that belongs to it.
    groups
        Other columns of few values, for the balance.
    """

    name: str
    splits: Mapping[str, str]
    person: str = ""
    study: str = ""
    text: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    place: Path | None = None


@dataclass(frozen=True)
class Divided:
    """What was found: its layout, its items, how their persons are told, and how many images are in no split."""

    layout: str
    items: tuple[Item, ...]
    told_by: str
    without_a_split: int = 0


def read_divided(place: Path, *, person: str | None = None) -> Divided:
    """Read a table, a datalist or a folder.

    Parameters
    ----------
    person
        Regular expression whose first group is the person in an item's path; without it columns, BIDS names, headers or
        file names tell.

    Raises
    ------
    SpecError
        When nothing there says what is in which split.
    """
    if place.is_file():
        found = _datalist(place) if place.suffix == ".json" else _table(place)
    elif place.is_dir():
        found = _folder(place)
    else:
        raise SpecError(f"{place}: found nothing, expected a table, a datalist or a folder; check the path")
    if not found.items:
        raise SpecError(
            f"{place}: found no image in any split, expected some; see docs/audit.md for the layouts it reads"
        )
    return _with_persons(found, person)


def split_of(text: str) -> str:
    """Return the usual name of a split, or the text itself."""
    return SPLITS.get(text.strip().lower(), text.strip())


def _table(place: Path) -> Divided:
    rows, columns = _rows(place.read_bytes(), where=str(place))
    path, split = (_column(columns, names) for names in (_PATHS, _SPLITS))
    if path is None or split is None:
        raise SpecError(
            f"{place}: found the columns {', '.join(columns)}, expected one of paths ({', '.join(_PATHS[:4])}, ...) "
            f"and one of splits ({', '.join(_SPLITS[:4])}, ...)"
        )
    items = [
        replace(
            _item(row, columns, row[path]), splits={"": split_of(row[split])}, place=_below(place.parent, row[path])
        )
        for row in rows
        if row[path] and row[split]
    ]
    return Divided("table", tuple(items), "", len(rows) - len(items))


def _rows(data: bytes, *, where: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of a table in any of the formats and encodings of clinical tables, and its headings."""
    try:
        sheet = read_sheet(data)
        rows = [{k: v for k, v in zip(sheet.headings, cells, strict=True) if k} for _, cells in sheet.texts()]
    except SpecError as error:
        raise SpecError(f"{where}: {str(error).removeprefix('clinical: ')}") from None
    return rows, [name for name in sheet.headings if name]


def _column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    known = {column.strip().lower(): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def _item(row: Mapping[str, str], columns: Sequence[str], name: str) -> Item:
    """Return what a row says of an item beside its split."""
    said = {
        kind: _column(columns, names) for kind, names in (("person", _PERSONS), ("study", _STUDIES), ("text", _TEXTS))
    }
    used = {*said.values(), _column(columns, _PATHS), _column(columns, _SPLITS)}
    person, study, text = (row.get(column, "") if column else "" for column in said.values())
    groups = {column: row[column] for column in columns if column not in used and row.get(column)}
    return Item(name, {}, person, study, text, groups)


def _below(folder: Path, name: str) -> Path | None:
    place = folder / name
    return place if place.is_file() else None


def _datalist(place: Path) -> Divided:
    """Read a MONAI datalist: split to entries, each a path or a mapping with ``image``."""
    document = _json(place)
    items: list[Item] = []
    others = 0
    for key, entries in document.items() if isinstance(document, dict) else ():
        if isinstance(entries, list):
            found = [i for entry in entries for i in _entry(entry, split_of(key), place.parent)]
            known = key.strip().lower() in SPLITS
            items += found if known else []
            others += 0 if known else len(found)
    return Divided("MONAI datalist", tuple(items), "", others)


def _json(place: Path) -> Any:
    try:
        return json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{place}: found no JSON that can be read ({type(error).__name__}), expected some") from None


def _entry(entry: Any, split: str, folder: Path) -> Iterator[Item]:
    said = entry if isinstance(entry, dict) else {"image": entry}
    images = said.get("image", ())
    fold = said.get("fold")
    for image in [images] if isinstance(images, str) else images:
        if isinstance(image, str):
            texts = {
                str(k): str(v) for k, v in said.items() if isinstance(v, str | int) and k not in ("image", "label")
            }
            item = _item(texts, list(texts), image)
            within = split if fold is None else f"fold {fold}"
            yield replace(item, splits={"": within}, place=_below(folder, image))


def _folder(place: Path) -> Divided:
    files = sorted(p for p in place.rglob("*") if p.is_file() and not p.name.startswith("."))
    names = {p.relative_to(place).as_posix(): p for p in files}
    if any(name.startswith("imagesTr/") for name in names):
        return _nnunet(place, names)
    if any(_BIDS.match(name) for name in names) and "participants.tsv" in names:
        return _bids(names)
    items, tables, others = [], _metadata(names), 0
    for name, path in names.items():
        split = next((split_of(part) for part in name.split("/")[:-1] if part.lower() in SPLITS), None)
        if split is None:
            others += _is_image(path)
            continue
        if _is_image(path):
            row, columns = tables.get(name, ({}, []))
            items.append(replace(_item(row, columns, name), splits={"": split}, place=path))
        elif path.suffix in TEXTS:
            items.append(Item(name, {"": split}, text=path.read_text("utf-8", "replace")))
    layout = "Hugging Face folder" if tables else "folders train, validation and test"
    return Divided(layout, tuple(items), "", others)


def _is_image(path: Path) -> bool:
    if path.name.lower().endswith(IMAGES):
        return True
    if path.suffix:
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _metadata(names: Mapping[str, Path]) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Read ``metadata.csv`` and ``metadata.jsonl``: path to its row and the columns."""
    found: dict[str, tuple[dict[str, str], list[str]]] = {}
    for name, path in names.items():
        if path.name == "metadata.jsonl":
            rows = [_line(line, name) for line in path.read_text("utf-8", "replace").splitlines() if line]
            columns = list(rows[0]) if rows else []
        elif path.name == "metadata.csv":
            rows, columns = _rows(path.read_bytes(), where=name)
        else:
            continue
        home = name.rpartition("/")[0]
        for row in rows:
            if row.get("file_name"):
                found[f"{home}/{row['file_name']}".lstrip("/")] = (row, columns)
    return found


def _line(line: str, where: str) -> dict[str, str]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise SpecError(f"{where}: found a line that is no JSON object, expected one a line")
    return {key: str(value) for key, value in said.items()}


def _nnunet(place: Path, names: Mapping[str, Path]) -> Divided:
    """Read nnU-Net's folders, with the folds of ``splits_final.json`` as one division each."""
    document = names.get("splits_final.json")
    folds = _json(document) if document is not None else []
    if not isinstance(folds, list) or not all(isinstance(fold, dict) for fold in folds):
        raise SpecError(f"{document}: found no list of folds, expected one of {{train: [...], val: [...]}} each")
    of: dict[str, list[tuple[str, str]]] = {}
    for number, fold in enumerate(folds):
        for key, cases in fold.items():
            for case in cases:
                of.setdefault(case, []).append((f"fold {number}", split_of(key)))
    items = []
    for name, path in names.items():
        top = name.split("/")[0]
        if top in ("imagesTr", "imagesTs") and _is_image(path):
            case = re.sub(r"_\d{4}$", "", _stem(path.name))
            splits = {"": split_of(top)} | dict(of.get(case, ()))
            items.append(Item(name, splits, person=case, place=path))
            # a case that a fold lists twice is an item for each of its splits
            again = [(fold, split) for fold, split in of.get(case, ()) if splits[fold] != split]
            items += [Item(name, {fold: split}, person=case, place=path) for fold, split in again]
    return Divided(f"nnU-Net, {len(folds)} folds" if folds else "nnU-Net", tuple(items), "the name of the case")


def _bids(names: Mapping[str, Path]) -> Divided:
    rows, columns = _rows(names["participants.tsv"].read_bytes(), where="participants.tsv")
    split = _column(columns, _SPLITS)
    person = _column(columns, ("participant_id",))
    if split is None or person is None:
        raise SpecError(
            f"participants.tsv: found the columns {', '.join(columns)}, expected participant_id and one of "
            f"{', '.join(_SPLITS)}"
        )
    table = {row[person].removeprefix("sub-"): row for row in rows}
    items, others = [], 0
    for name, path in names.items():
        if not _is_image(path) or name.startswith("derivatives/"):
            continue
        subject = _BIDS.search(name)
        row = table.get(subject[1]) if subject else None
        if not subject or not row or not row[split]:
            others += 1
        else:
            item = _item(row, columns, name)
            items.append(replace(item, splits={"": split_of(row[split])}, person=subject[1], place=path))
    return Divided("BIDS", tuple(items), "the name of the subject", others)


def _stem(name: str) -> str:
    return re.sub(r"(\.nii)?\.[A-Za-z0-9]+$", "", name)


def _with_persons(found: Divided, pattern: str | None) -> Divided:
    """Tell whose each item is, by a pattern or by what names most."""
    if pattern is not None:
        told = re.compile(pattern)
        if told.groups < 1:
            raise SpecError(
                f"--person-of: found {pattern!r} without a group, expected one around the person, as in '^(\\d+)_'"
            )
        items = [replace(i, person=m[1] if (m := told.search(i.name)) else "") for i in found.items]
        return replace(found, items=tuple(items), told_by=f"the pattern {pattern}")
    if any(item.person for item in found.items):
        return replace(found, told_by=found.told_by or "a column")
    bids = [_BIDS.search(item.name) for item in found.items]
    if all(bids):
        items = [replace(i, person=m[1]) for i, m in zip(found.items, bids, strict=True) if m]
        return replace(found, items=tuple(items), told_by="the name of the subject")
    numbered = [_NUMBERED.fullmatch(_stem(item.name.rpartition("/")[2])) for item in found.items]
    if all(numbered):
        items = [replace(i, person=m[1]) for i, m in zip(found.items, numbered, strict=True) if m]
        return replace(found, items=tuple(items), told_by="the file name before its last number")
    return replace(found, told_by="the headers of DICOM files")


def few(values: Sequence[str]) -> bool:
    """Return whether a column has few enough values to compare their shares."""
    return 1 < len(set(values)) <= _MOST_LEVELS
