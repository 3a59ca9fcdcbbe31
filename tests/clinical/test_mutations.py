"""Mutated tables and AIM documents: each is read, or refused with a reason, whatever its bytes."""

import io
import os
import random
import zipfile
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.clinical import read_rows
from builder.errors import CaseError, Reason, SpecError
from builder.labels.aim import parse_aim
from tests.clinical.making import declared, workbook
from tests.endtoend.test_label_forms import AIM
from tests.mutations import mutate

COUNT = int(os.environ.get("BUILDER_MUTATED_TABLES", "60"))
"""Mutations of each base; a campaign asks for more."""

COLUMNS = {
    "age": {"from": "age", "type": "integer"},
    "stage": {"from": "stage", "type": "category", "levels": ["I", "II"]},
    "seen": {"from": "seen", "type": "date"},
    "dose": {"from": "dose", "type": "number"},
}
HEADINGS = ("id", "age", "stage", "seen", "dose")
ROWS = [(f"P{n:03d}", 40 + n, ("I", "II")[n % 2], f"2020-03-{1 + n:02d}", 0.5 * n) for n in range(20)]

TEXT = "\n".join(",".join(map(str, row)) for row in (HEADINGS, *ROWS)).encode()
BOOK = workbook(HEADINGS, *ROWS)


def columnar() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(zip(HEADINGS, row, strict=True)) for row in ROWS]), out)
    return out.getvalue()


def in_archive(data: bytes, draw: random.Random) -> bytes:
    """One member of a workbook changed, and zipped again, so that the change is met by the parser of XML."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([name for name in sorted(members) if "sheet" in name or "workbook" in name or "shared" in name])
    members[name] = mutate(members[name], draw, dicom=False)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def plainly(data: bytes, draw: random.Random) -> bytes:
    return mutate(data, draw, dicom=False)


BASES: dict[str, tuple[bytes, Callable[[bytes, random.Random], bytes]]] = {
    "csv": (TEXT, plainly),
    "xlsx": (BOOK, plainly),
    "sheet of xlsx": (BOOK, in_archive),
    "parquet": (columnar(), plainly),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BASES)
def test_a_mutated_table_is_read_or_refused(name: str) -> None:
    base, change = BASES[name]
    options = declared(columns=COLUMNS)
    assert len(read_rows(base, options).rows) == len(ROWS)
    ends: Counter[str] = Counter()
    for number in range(COUNT):
        try:
            read_rows(change(base, random.Random(f"{name}/{number}")), options)
            ends["read"] += 1
        except SpecError:
            ends["refused"] += 1
    assert ends["read"]
    assert ends["refused"]


def test_a_mutated_aim_document_is_read_or_refused() -> None:
    base = AIM.format(uid="1.2.3").encode()
    ends: Counter[str] = Counter()
    for number in range(COUNT):
        try:
            parse_aim(mutate(base, random.Random(f"aim/{number}"), dicom=False))
            ends["read"] += 1
        except CaseError as error:
            ends[error.reason] += 1
    assert set(ends) == {"read", Reason.LABEL_UNREADABLE}
