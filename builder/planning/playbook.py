"""Map study descriptions to RadLex Playbook procedures by the user's table. The descriptions stay private."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.catalog.statement import Playbook
from builder.clinical import Sheet, read_sheet
from builder.errors import SpecError
from builder.model.tables import used_rows
from builder.planning.inventory import Inventory
from builder.storage import Store, read_at

UNMAPPED = "playbook-unmapped.csv"
RPID = re.compile(r"RPID\d{1,6}")


@dataclass(frozen=True)
class Procedure:
    """One procedure of the playbook: its identifier (``RPID34``) and name."""

    rpid: str
    name: str


def map_procedures(
    playbook: Playbook | None, cohort: pa.Table, inventory: Inventory, private: Store
) -> Mapping[str, Any] | None:
    """Count how many studies of the included series belong to each procedure, and how many to none.

    Descriptions missing from the table are written to the private workspace (``playbook-unmapped.csv``), most frequent
    first. They are free text of the archive and are never released.

    Returns
    -------
    Mapping or None
        ``studies``, ``mapped``, ``without_description`` and ``procedures`` (``rpid``, ``name``, ``studies``), or None
        without a playbook.

    Raises
    ------
    SpecError
        When the table cannot be read, lacks a column, or assigns two procedures to one description.
    """
    if playbook is None:
        return None
    table = read_playbook(playbook)
    descriptions = _descriptions(cohort, inventory)
    found = Counter(table.get(normal(text)) for text in descriptions.values())
    unknown = Counter(text for text in descriptions.values() if normal(text) and normal(text) not in table)
    _write_unmapped(unknown, private)
    return {
        "studies": len(descriptions),
        "mapped": sum(n for procedure, n in found.items() if procedure is not None),
        "without_description": sum(not normal(text) for text in descriptions.values()),
        "procedures": [
            {"rpid": p.rpid, "name": p.name, "studies": n}
            for p, n in sorted(found.items(), key=lambda item: (-item[1], item[0].rpid if item[0] else ""))
            if p is not None
        ],
    }


def read_playbook(playbook: Playbook) -> dict[str, Procedure]:
    """Read the table, mapping each normalised description to its procedure. Raises SpecError."""
    try:
        sheet = read_sheet(read_at(playbook.url), expected=(playbook.description, playbook.rpid, playbook.name))
    except FileNotFoundError:
        raise SpecError("catalog.playbook: found no table at its url, expected one; check the path") from None
    except SpecError as error:
        raise SpecError(f"catalog.playbook: {str(error).removeprefix('clinical: ')}") from None
    columns = [_column(sheet, heading) for heading in (playbook.description, playbook.rpid, playbook.name)]
    found: dict[str, Procedure] = {}
    for number, cells in _texts(sheet):
        text, rpid, title = (cells[c] for c in columns)
        if not normal(text):
            continue
        if not RPID.fullmatch(rpid):
            raise SpecError(f"catalog.playbook: found no RPID in row {number}, expected one like RPID34")
        known = found.setdefault(normal(text), Procedure(rpid, title))
        if known.rpid != rpid:
            raise SpecError(
                f"catalog.playbook: found {known.rpid} and {rpid} for one description (row {number}), expected one"
            )
    return found


def _texts(sheet: Sheet) -> Iterator[tuple[int, tuple[str, ...]]]:
    try:
        yield from sheet.texts()
    except SpecError as error:
        raise SpecError(f"catalog.playbook: {error}") from None


def normal(text: str) -> str:
    """Normalise a description for comparison: letters and digits in lower case, everything else as one space."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _column(sheet: Sheet, heading: str) -> int:
    if heading not in sheet.headings:
        raise SpecError(f"catalog.playbook: found no column {heading!r}, expected it among {', '.join(sheet.headings)}")
    return sheet.headings.index(heading)


def _descriptions(cohort: pa.Table, inventory: Inventory) -> dict[str, str]:
    """Map each study of the included series to the first description, in the order of chunks, that has letters."""
    included = used_rows(cohort)
    studies = {r["series_uid"]: r["study_key"] for r in included.select(["series_uid", "study_key"]).to_pylist()}
    found = dict.fromkeys(sorted(set(studies.values())), "")
    for number in sorted(set(included.column("chunk").to_pylist())):
        chunk = inventory.chunk(number, columns=["series_uid", "study_description"])
        for row in chunk.group_by(["series_uid", "study_description"], use_threads=False).aggregate([]).to_pylist():
            study = studies.get(row["series_uid"])
            if study is not None and not normal(found[study]):
                found[study] = row["study_description"] or ""
    return found


def _write_unmapped(unknown: Counter[str], private: Store) -> None:
    sink = io.StringIO()
    rows = csv.writer(sink, lineterminator="\n")
    rows.writerow(["studies", "description"])
    rows.writerows([n, text] for text, n in sorted(unknown.items(), key=lambda item: (-item[1], item[0])))
    private.put(UNMAPPED, sink.getvalue().encode())
