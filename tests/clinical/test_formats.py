"""What XLSX, text and Parquet files show is what is read, or the cell, row or table is refused by name."""

import datetime
import gzip
import io
import zipfile
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904
from openpyxl.worksheet.formula import ArrayFormula

from builder.clinical import faults, read_rows, read_sheet, read_table
from builder.clinical.workbook import UNSAVED, shown_text
from builder.errors import SpecError
from tests.clinical.making import declared, met, parquet, said, saved, workbook

GRADE = {"grade": {"from": "Grade", "type": "category"}}
WEIGHT = {"weight": {"from": "Weight", "type": "number"}}
BOTH = {**GRADE, **WEIGHT}


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (17, "0000", "0017"),
        (17, "General", "17"),
        (17, "000000", "000017"),
        (123456, "0000", "123456"),
        (7, '"P-"000', "P-007"),
        (7, "\\P000", "P007"),
        (123456789, "000-00-0000", "123-45-6789"),
        (5, "00;-00", "05"),
        (42, '[>99]000;"S"00', "S42"),  # a condition chooses the section
        (142, '[>99]000;"S"00', "142"),
        (0, "0000", "0000"),
        (17.0, "0000", "0017"),
        (1.5, "0.00", "1.5"),
        (17, '00"/19"', "17/19"),
        (12345678901234567, "0", None),  # a spreadsheet keeps 15 digits
        (17, "[$-409]0000", "0017"),
        (17, "[Red]0000", "0017"),
        (17, "_-* 0000_-", "0017"),
        (17, '"P-"General', "P-17"),
        (17, '"General-"000', "General-017"),
        (5551234, "[<=9999999]000-0000;(000) 000-0000", "555-1234"),
        (2125551234, "[<=9999999]000-0000;(000) 000-0000", "(212) 555-1234"),
        (0, '0000;-0000;"P-"00', "P-00"),
        (17, '"a;b"000', "a;b017"),
        (17, "[$-2000401]0000", "17"),  # shows digits of another script
        (17, "[>99]0000", "17"),  # no section shows it
        (17, "0" * 300, "17"),  # longer than a spreadsheet allows
    ],
)
def test_numbers_are_shown_as_their_format_says(value: float, form: str, shown: str | None) -> None:
    assert shown_text(value, form) == shown


def test_ids_with_a_number_format_keep_their_zeros() -> None:
    data = workbook(
        ["id", "Grade", "Weight"], [1, "low", 70.5], [12, "high", 71], formats={"A2": "0000", "A3": "0000", "C3": "000"}
    )
    found = met(data, declared(columns=BOTH), ["0001", "0012", "1"])
    assert said(found) == [{"grade": "low", "weight": 70.5}, {"grade": "high", "weight": 71.0}, None]


def test_ids_of_more_digits_than_a_spreadsheet_keeps_are_not_guessed() -> None:
    data = workbook(["id", "Grade"], [1234567890123456, "low"], ["B", "high"])
    found = met(data, declared(columns=GRADE), ["B"])
    assert said(found) == [{"grade": "high"}]
    assert [(i.row, i.column, "15 digits" in i.problem) for i in found.issues] == [(2, "id", True)]


def test_merged_cells_hold_for_every_row_and_column_they_cover() -> None:
    data = workbook(
        ["id", "Grade", "Weight"],
        ["A", "low", 1],
        ["B", None, 2],
        ["C", None, 3],
        ["D", "not done", None],
        ["Note: weights in kg", None, None],
        merged=["B2:B4", "B5:C5", "A6:C6"],
    )
    found = met(data, declared(columns=BOTH), "ABCD")
    assert [v and v["grade"] for v in said(found)] == ["low", "low", "low", "not done"]
    assert [(i.row, i.column) for i in found.issues] == [(5, "weight")]
    assert found.rows.not_persons == (6,)


def test_a_person_in_a_merged_id_has_all_its_rows() -> None:
    data = workbook(["id", "Visit", "Grade"], ["A", 2, "late"], [None, 1, "early"], ["B", 1, "x"], merged=["A2:A3"])
    options = declared(columns=GRADE, cardinality="many", pick={"by": "Visit", "take": "min"})
    assert said(met(data, options, "AB")) == [{"grade": "early"}, {"grade": "x"}]


def test_headings_merged_over_two_rows() -> None:
    data = workbook(["id", "Result", None], [None, "Grade", "Weight"], ["A", "low", 3], merged=["A1:A2", "B1:C1"])
    assert said(met(data, declared(header_row=2, columns=BOTH), "A")) == [{"grade": "low", "weight": 3.0}]


def test_formulas_without_a_saved_value_are_told() -> None:
    data = workbook(["id", "Born", "Age"], *([f"P{i}", 1950 + i, f"=2019-B{i + 2}"] for i in range(4)))
    options = declared(columns={"age": {"from": "Age", "type": "integer"}, "born": {"from": "Born", "type": "integer"}})
    found = met(data, options, [f"P{i}" for i in range(4)])
    assert [v and v["born"] for v in said(found)] == [1950, 1951, 1952, 1953]
    (fault,) = faults(found)
    assert "found no integer among 4 filled cells of 'Age'" in fault
    assert "open the file in a spreadsheet and save it" in fault


def changed_xml(data: bytes, changes: Mapping[str, str]) -> bytes:
    """A workbook whose sheet has other XML: openpyxl writes neither values of formulas nor shared formulas."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                for before, after in changes.items():
                    text = text.replace(before.encode(), after.encode())
            new.writestr(name, text)
    return stream.getvalue()


def test_formulas_with_a_saved_value_are_values() -> None:
    """As a spreadsheet saves them: openpyxl writes none, so the value is put into the sheet's XML."""
    data = workbook(["id", "Age", "Grade"], ["A", "=1+1", '=IF(1=1,"","x")'])
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert text.count(b"<v />") + text.count(b"<v></v>") == 2
                text = text.replace(b"<v />", b"<v></v>").replace(b"<v></v>", b"<v>2</v>", 1)
                text = text.replace(b'<c r="C2">', b'<c r="C2" t="str">')
            new.writestr(name, text)
    columns = {"age": {"from": "Age", "type": "integer"}, **GRADE}
    found = met(stream.getvalue(), declared(columns=columns), "A")
    assert said(found) == [{"age": 2, "grade": None}]
    assert found.issues == ()


UNSAVED_CELLS: dict[str, tuple[Any, dict[str, str]]] = {
    "one formula": ("=A1", {}),
    "an array formula of one cell": (ArrayFormula("B3:B3", "=SUM(1,2)"), {}),
    "one formula for several cells": ("=A1", {"<f>A1</f>": '<f t="shared" ref="B3:B4" si="0">A1</f>'}),
    "a cell that shares a formula": ("=A1", {"<f>A1</f>": '<f t="shared" si="0"/>'}),
    "no element for the value": ("=A1", {"<v></v>": "", "<v />": ""}),
    "a table of data": ("=A1", {"<f>A1</f>": '<f t="dataTable" ref="B3:B3" dt2D="0" r1="A1"/>'}),
}


@pytest.mark.parametrize("kind", UNSAVED_CELLS)
def test_a_formula_without_a_saved_value_is_a_lost_cell(kind: str) -> None:
    value, changes = UNSAVED_CELLS[kind]
    data = changed_xml(workbook(["id", "Grade"], ["A", "low"], ["B", value], ["C", "low"]), changes)
    found = met(data, declared(columns=GRADE), "ABC")
    assert said(found) == [{"grade": "low"}, {"grade": None}, {"grade": "low"}]
    assert [(i.row, i.column, i.problem) for i in found.issues] == [(3, "grade", UNSAVED)]


@pytest.mark.parametrize("whole", ["B2:B5", "B2:C3"])
def test_a_formula_that_fills_several_cells_loses_all_of_them(whole: str) -> None:
    """Only the first cell of the range holds the formula; the others look empty."""
    data = workbook(["id", "Grade", "Weight"], *([name, None, None] for name in "ABCD"), formulas={whole: "=E2:F5"})
    rows, columns = {"B2:B5": (4, 1), "B2:C3": (2, 2)}[whole]
    found = met(data, declared(columns=BOTH), "ABCD")
    assert len(found.issues) == rows * columns
    assert {i.problem for i in found.issues} == {UNSAVED}
    whole_sheet = workbook(["id", "Grade"], ["A", None], formulas={"B2:XFD1048576": "=1"})
    assert len(met(whole_sheet, declared(columns=GRADE), "A").issues) == 1, "a range is no reason to make a large table"


def test_formulas_where_a_table_is_joined_picked_or_headed_are_told() -> None:
    many = {"columns": GRADE, "cardinality": "many"}
    by = workbook(["id", "Grade", "V"], ["A", "low", "=1+1"], ["A", "high", 1], ["B", "low", 3])
    with pytest.raises(SpecError, match=r"pick.by 'V': found a formula without a saved value.*first in row 2"):
        met(by, declared(pick={"by": "V", "take": "min"}, **many), "AB")
    found = met(by, declared(pick={"where": {"V": ["1", "3"]}}, **many), "AB")
    assert said(found) == [{"grade": "high"}, {"grade": "low"}]
    assert [(i.row, i.column, i.problem) for i in found.issues] == [(2, "V", UNSAVED)]
    for heads in (['="id"', "Grade"], ["id", '="Gra"&"de"']):
        with pytest.raises(SpecError, match=r"expected one of '\w+'; a heading is a formula without a saved value"):
            met(workbook(heads, ["A", "low"]), declared(columns=GRADE), "A")
    lost = workbook(["id", "Grade"], ['="A"', "low"], ["B", "low"])
    found = met(lost, declared(columns=GRADE), "AB")
    assert said(found) == [None, {"grade": "low"}]
    assert [(i.row, i.column) for i in found.issues] == [(2, "id")]
    dated = workbook(["id", "Day", "Grade"], ["A", "=TODAY()", "low"], ["B", datetime.date(2020, 2, 1), "high"])
    rows = read_rows(dated, declared(person_id=None, by={"id": "person", "Day": "date"}, columns=GRADE))
    assert [row.keys for row in rows.rows] == [("B", "2020-02-01")]
    assert [(i.row, i.column, i.problem) for i in rows.issues] == [(2, "Day", UNSAVED)]


def test_an_id_that_is_an_unsaved_formula_stops_the_plan_and_says_why() -> None:
    data = workbook(["id", "No", "Grade"], *([f'=CONCATENATE("P",B{i + 2})', i, "low"] for i in range(4)))
    found = met(data, declared(columns=GRADE), ["P0", "P1"])
    assert any("0 of 2 persons" in fault and "a formula without a saved value" in fault for fault in faults(found))


def test_spreadsheet_errors_truths_and_times_are_what_they_are() -> None:
    data = workbook(
        ["id", "Grade", "Alive", "Seen"],
        ["A", "#N/A", True, datetime.time(10, 30)],
        ["B", "low", False, datetime.datetime(2020, 1, 11)],
        ["C", True, "yes", "2020-01-12"],
    )
    columns = {
        **GRADE,
        "alive": {"from": "Alive", "type": "boolean"},
        "seen_day": {"from": "Seen", "type": "date"},
    }
    day = dict.fromkeys("ABC", datetime.date(2020, 1, 1))
    found = met(data, declared(columns=columns), "ABC", studies=day)
    assert said(found) == [
        {"grade": None, "alive": True, "seen_day": None},
        {"grade": "low", "alive": False, "seen_day": 10},
        {"grade": "TRUE", "alive": True, "seen_day": 11},
    ]
    assert [(i.row, i.column) for i in found.issues] == [(2, "grade"), (2, "seen_day")]


def test_levels_of_truths_and_of_numbers_shown_with_zeros() -> None:
    levels = {"type": "category", "levels": {"true": "yes", "01": "one", "2": "two"}, "from": "Grade"}
    data = workbook(["id", "Grade"], ["A", True], ["B", 1], ["C", 2], formats={"B3": "00", "B4": "00"})
    assert said(met(data, declared(columns={"grade": levels}), "ABC")) == [
        {"grade": "yes"}, {"grade": "one"}, {"grade": "two"},
    ]  # fmt: skip


@pytest.mark.parametrize("epoch", [None, CALENDAR_MAC_1904])
def test_both_epochs_of_spreadsheet_dates(epoch: Any) -> None:
    book = openpyxl.Workbook()
    if epoch is not None:
        book.epoch = epoch
    assert book.active is not None
    book.active.append(["id", "Seen"])
    book.active.append(["A", datetime.date(2020, 3, 1)])
    options = declared(columns={"day": {"from": "Seen", "type": "date"}})
    found = read_table(saved(book), options, study_dates={"A": datetime.date(2020, 2, 1)})
    assert found.table["day"].to_pylist() == [29]


def test_numbers_below_zero_in_the_form_of_a_date_are_no_dates() -> None:
    data = workbook(["id", "Seen"], ["A", -5], ["B", 43841], formats={"B2": "dd/mm/yyyy", "B3": "dd/mm/yyyy"})
    options = declared(columns={"day": {"from": "Seen", "type": "date"}})
    found = met(data, options, "AB", studies=dict.fromkeys("AB", datetime.date(2020, 1, 1)))
    assert said(found) == [{"day": None}, {"day": 10}]
    assert [(i.row, i.problem) for i in found.issues] == [(2, "a negative number in the form of a date")]


def test_the_first_sheet_that_is_not_hidden_is_read() -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["Codes"])
    book.active.sheet_state = "hidden"
    patients = book.create_sheet("Patients")
    patients.append(["id", "Grade"])
    patients.append(["A", "low"])
    book.create_sheet("More").append(["id", "Stage"])
    assert said(met(saved(book), declared(columns=GRADE), "A")) == [{"grade": "low"}]
    with pytest.raises(SpecError, match=r"none of the declared headings .* has the sheets Sheet, Patients, More"):
        met(saved(book), declared(columns=GRADE, sheet="Sheet"), "A")


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (b"id,Grade\nA,low\n", {"sheet": "S"}, "found a text table, which has no sheet"),
        (parquet(id=["A"], Grade=["low"]), {"sheet": "S"}, "found a Parquet file, which has no sheet"),
        (parquet(id=["A"], Grade=["low"]), {"header_row": 2}, "found a Parquet file, which has no header_row"),
        (parquet(id=["A"], Grade=["low"]), {"encoding": "cp1250"}, "found a Parquet file, which has no encoding"),
        (workbook(["id", "Grade"]), {"encoding": "cp1250"}, "found a workbook, which has no encoding"),
    ],
)
def test_options_of_another_format_are_refused(data: bytes, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        met(data, declared(columns=GRADE, **options), "A")


def test_headings_in_another_case_are_named() -> None:
    with pytest.raises(SpecError, match="no column with the heading 'id'; did you mean 'ID'") as caught:
        met(b"ID,GRADE\nA,low\n", declared(columns=GRADE), "A")
    assert "no column with the heading 'Grade'; did you mean 'GRADE'" in str(caught.value)


def test_sheets_are_named_and_damaged_ones_refused() -> None:
    book = openpyxl.Workbook()
    book.create_sheet("Patients").append(["id", "Grade"])
    with pytest.raises(SpecError, match="found the sheets Sheet, Patients, expected one called 'People'"):
        read_sheet(saved(book), "People")
    assert read_sheet(saved(book), "Patients").headings == ("id", "Grade")
    data = bytearray(saved(book))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(SpecError, match="XLSX"):
        read_sheet(bytes(data[: len(data) // 2]))


def body(separator: str, decimal: str = ".", mid: str = "low") -> str:
    return "".join(f"P{i}{separator}{mid if i % 2 else 'high'}{separator}70{decimal}5\n" for i in range(4))


QUOTED = '"id", "Grade", "Weight"\n' + "".join(f'"P{i}", "{"low" if i % 2 else "high"}", 70.5\n' for i in range(4))
RIGHT = [{"grade": "low" if i % 2 else "high", "weight": 70.5} for i in range(4)]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (("\ufeffid,Grade,Weight\n" + body(",")).encode(), {}),
        (("id,Grade,Weight\r\n" + body(",")).replace("\n", "\r").encode(), {}),
        (("id;Grade;Weight\n" + body(";")).encode("utf-16"), {}),
        (("id\tGrade\tWeight\n" + body("\t")).encode("utf-16-le"), {}),
        (("id\tGrade\tWeight\n" + body("\t")).encode("utf-16-be"), {}),
        (("sep=;\nid;Grade;Weight\n" + body(";")).encode(), {}),
        (("sep=;\nid;Grade;Weight\n" + body(";")).encode(), {"header_row": 2}),
        (("Export, site A, 2019, v2, final\nid;Grade;Weight\n" + body(";")).encode(), {"header_row": 2}),
        (('"Title; with; separators"\n\nid,Grade,Weight\n' + body(",")).encode(), {"header_row": 3}),
        (("id|Grade|Weight\n" + body("|")).encode(), {}),
        ((" id , Grade, Weight \n" + body(", ")).encode(), {}),
        (QUOTED.encode(), {}),
        (("id,Grade,Weight,\n" + body(",").replace("\n", ",\n")).encode(), {}),
        (("id,Grade,Weight\n" + body(",").replace("P", "\u00a0P")).encode(), {}),
        (("id,Grade,Weight\n" + body(",").replace("P", '="P').replace(",h", '",h').replace(",l", '",l')).encode(), {}),
        (("id,Grade,Weight\n" + body(",").replace("\n", ",,,\n")).encode(), {}),
    ],
)  # fmt: skip
def test_text_tables_as_offices_write_them(data: bytes, options: dict[str, Any]) -> None:
    found = met(data, declared(columns=BOTH, **options), [f"P{i}" for i in range(4)])
    assert said(found) == RIGHT
    assert found.issues == ()


def test_decimal_commas_are_read_where_they_are_declared() -> None:
    data = ("id;Grade;Weight\n" + body(";", ",", "mäßig")).encode("cp1252")
    people = [f"P{i}" for i in range(4)]
    (fault,) = faults(met(data, declared(columns=BOTH), people))
    assert "a number with a comma: state the column's decimal mark" in fault
    comma = {"weight": {"from": "Weight", "type": "number", "decimal": ","}, **GRADE}
    found = met(data, declared(columns=comma), people)
    assert said(found)[1] == {"grade": "mäßig", "weight": 70.5}
    assert found.rows.encoding == "cp1252"


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("für", "mac_roman"),
        ("Größe", "mac_roman"),
        ("opéré", "mac_roman"),
        ("mały", "cp1250"),
        ("Łódź", "cp1250"),
        ("низкая", "cp1251"),
        ("низкая", "koi8_r"),
        ("χαμηλή", "cp1253"),
        ("mäßig", "cp437"),
        ("modéré", "cp850"),
        ("重度", "gb18030"),
    ],
)
def test_words_of_another_encoding_are_refused_until_it_is_stated(words: str, encoding: str) -> None:
    data = f"id,Grade\nP0,{words}\nP1,{words}\n".encode(encoding)
    with pytest.raises(SpecError, match=r"found bytes .* not|neither UTF-8 .* state the table's encoding"):
        met(data, declared(columns=GRADE), ["P0", "P1"])
    found = met(data, declared(columns=GRADE, encoding=encoding), ["P0", "P1"])
    assert said(found)[0] == {"grade": words}


def test_a_file_of_two_encodings_is_refused_until_one_is_stated() -> None:
    data = b"id,Grade\n" + "P0,modéré\n".encode() + "P1,léger\n".encode("latin-1")
    with pytest.raises(SpecError, match=r"found bytes in line 2 that are neither UTF-8 nor words in Windows-1252"):
        met(data, declared(columns=GRADE), ["P0", "P1"])
    assert said(met(data, declared(columns=GRADE, encoding="cp1252"), ["P0", "P1"]))[1] == {"grade": "léger"}


@pytest.mark.parametrize("words", ["¿Qué?", "5±2 µm²", "Žižkov Šárka", "£5m, §3, 37°C", "l\u2019œdème « sévère »"])
def test_words_of_western_offices_are_read_as_windows_1252(words: str) -> None:
    found = met(f"id;Grade\nP0;{words}\n".encode("cp1252"), declared(columns=GRADE), ["P0"])
    assert said(found)[0] == {"grade": words}
    assert found.rows.encoding == "cp1252"


@pytest.mark.parametrize(
    ("text", "mark", "number"),
    [
        ("1.234,5", ",", 1234.5), ("1234,5", ",", 1234.5), ("1,234.5", ".", 1234.5), ("-0,5", ",", -0.5),
        ("1,23,4", ".", None), ("1.23", ",", None), ("12,34", ".", None), ("\u22125", None, -5.0),
        ("1e3", None, 1000.0),
        ("inf", None, None), ("NaN", None, None), ("1e999", None, None), ("5%", None, None), ("<1", None, None),
        ("0x1F", None, None), ("1_000", None, None), ("\u0663", None, None),
    ],
)  # fmt: skip
def test_numbers_as_texts(text: str, mark: str | None, number: float | None) -> None:
    columns = {"x": {"from": "X", "type": "number", "decimal": mark}}
    found = met(f"id\tX\nA\t{text}\nB\t1\n".encode(), declared(columns=columns), "A")
    assert said(found) == [{"x": number}]
    assert len(found.issues) == (number is None)


def test_rows_longer_than_the_headings_give_nothing_and_are_listed() -> None:
    data = b"id,Note,Grade,Weight\nP0,ok,high,70.5\nP1,seen, again,low,70.5\nP2,ok,high,70.5\n"
    found = met(data, declared(columns=BOTH), ["P0", "P1", "P2"])
    assert said(found) == [RIGHT[0], None, RIGHT[0]]
    assert [(i.row, i.column) for i in found.issues] == [(3, "(whole row)")]
    assert "5 cells under 4 headings" in found.issues[0].problem


def test_a_table_of_long_rows_is_refused() -> None:
    found = met(("id,Grade,Weight\n" + body(",", ",")).encode(), declared(columns=BOTH), ["P0", "P1"])
    assert any("0 of 2 persons" in fault for fault in faults(found))


@pytest.mark.parametrize(
    "text",
    [
        'id,Grade,Weight\nP0,high,70.5\nP1,"low,70.5\nP2,high,70.5\n',
        'id,Grade,Weight\nP0,high,70.5\nP1,"low,70.5\nP2,"high",70.5\n',
        'id,Grade,Weight\nP0,high,70.5\nP1,"low,70.5\nP2,high",70.5\nP3,low,1\n',
        'id\tGrade\tWeight\nP0\t"high\t70.5\n',
        'id;Grade;Weight\nP0;high;70.5\nP1;low;"70.5\n',
        'id,Grade,Weight\nP0,"hi"gh,70.5\n',
    ],
)
def test_open_quotes_are_refused_with_their_line(text: str) -> None:
    with pytest.raises(SpecError, match=r"a quote in line \d+ of the table that is not closed"):
        read_sheet(text.encode(), expected=("id", "Grade", "Weight"))


def test_quotes_and_line_breaks_that_are_closed_are_read() -> None:
    text = 'id,"Weight\n(kg)",Note\nP0,70,"first, line\nsecond ""line"""\nP1,71,5" tall\n'
    sheet = read_sheet(text.encode())
    assert sheet.headings == ("id", "Weight\n(kg)", "Note")
    assert [line.cells[2] for line in sheet.rows] == ['first, line\nsecond "line"', '5" tall']


def test_encodings_are_stated_where_bytes_do_not_tell() -> None:
    data = "id,Grade\nA,nízký-ř\n".encode("cp1250")
    found = met(data, declared(encoding="cp1250", columns=GRADE), "A")
    assert said(found) == [{"grade": "nízký-ř"}]
    with pytest.raises(SpecError, match="not UTF-8 or Windows-1252; state the table's encoding"):
        read_sheet(b"id,Grade\nA,\x81\xff\n")
    with pytest.raises(SpecError, match="bytes at"):
        read_sheet("id,Grade\nA,x".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match="found the encoding 'cp12500'"):
        declared(encoding="cp12500", columns=GRADE)


def test_parquet_keeps_whole_numbers_exact() -> None:
    large = 2**53 + 1
    data = parquet(id=[large, large + 1], n=pa.array([large, -large]), Weight=pa.array([large, 2**54]))
    options = declared(columns={"n": {"from": "n", "type": "integer"}, **WEIGHT})
    found = met(data, options, [str(large), str(large + 1)])
    assert said(found) == [{"n": large, "weight": None}, {"n": -large, "weight": float(2**54)}]
    assert "declare the column an integer" in found.issues[0].problem


def test_parquet_values_of_other_types() -> None:
    day = datetime.date(2020, 1, 11)
    data = parquet(
        id=pa.array(["A", "B"]).dictionary_encode(),
        ns=pa.array([1_578_700_800_123_456_789, None], pa.timestamp("ns")),
        zoned=pa.array([1_578_700_800, None], pa.timestamp("s", "Europe/Berlin")),
        date=pa.array([day, None]),
        exact=pa.array([Decimal("1.50"), None]),
        alive=pa.array([True, None]),
        small=pa.array([7, None], pa.int8()),
        nothing=pa.nulls(2),
        unused=pa.array([[1], [2]]),
    )
    columns = {name: {"from": name, "type": "date"} for name in ("ns", "zoned", "date")}
    columns |= {"exact": {"from": "exact", "type": "number"}, "alive": {"from": "alive", "type": "boolean"}}
    columns |= {"small": {"from": "small", "type": "integer"}, "nothing": {"from": "nothing", "type": "text"}}
    found = met(data, declared(columns=columns), "AB", studies=dict.fromkeys("AB", datetime.date(2020, 1, 1)))
    assert said(found)[0] == {
        "ns": 10, "zoned": 10, "date": 10, "exact": 1.5, "alive": True, "small": 7, "nothing": None,
    }  # fmt: skip
    assert set((said(found)[1] or {}).values()) == {None}


@pytest.mark.parametrize(
    "column", [pa.array([[1, 2]]), pa.array([{"a": 1}]), pa.array([b"bytes"]), pa.array([1], pa.duration("s"))]
)
def test_nested_and_binary_parquet_columns_are_refused_by_name(column: pa.Array) -> None:
    with pytest.raises(SpecError, match="Parquet column 'Grade'"):
        read_rows(parquet(id=["A"], Grade=column), declared(columns=GRADE))


def test_float_ids_that_lost_digits_are_not_guessed() -> None:
    data = parquet(id=[17.0, float(2**53 + 2)], Grade=["low", "high"])
    found = met(data, declared(columns=GRADE), ["17", str(2**53 + 2)])
    assert said(found) == [{"grade": "low"}, None]
    assert [i.column for i in found.issues] == ["id"]


@pytest.mark.parametrize(
    ("text", "pivot", "year"),
    [
        ("29", 1930, 2029),
        ("30", 1930, 1930),
        ("68", 1930, 1968),
        ("69", 1920, 1969),
        ("00", 1950, 2000),
        ("99", 2000, 2099),
    ],
)
def test_two_digit_years_have_a_stated_pivot(text: str, pivot: int, year: int) -> None:
    columns = {"day": {"from": "D", "type": "date", "format": "%d.%m.%y", "pivot": pivot}}
    first = datetime.date(2000, 1, 1)
    found = met(f"id,D\nA,01.02.{text}\n".encode(), declared(columns=columns), "A", studies={"A": first})
    assert said(found) == [{"day": (datetime.date(year, 2, 1) - first).days}]


def test_two_digit_years_without_a_pivot_are_refused() -> None:
    with pytest.raises(ValueError, match="two-digit years"):
        declared(columns={"day": {"from": "D", "type": "date", "format": "%d/%m/%y"}})
    found = met(b"id,D\nA,05/06/18\n", declared(columns={"day": {"from": "D", "type": "date"}}), "A")
    assert [i.column for i in found.issues] == ["day"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old workbook"),
        (gzip.compress(b"id,G\nA,low\n", mtime=0), "gzip-compressed file, expected .*; decompress it"),
        (b"%PDF-1.7\n...", "a PDF, expected"),
        (b'[{"id": "A"}]', "JSON"),
        (b'\xef\xbb\xbf{"id": "A"}', "JSON"),
        (b"\n<html><table>", "a web page or XML"),
        (b'<?xml version="1.0"?>', "a web page or XML"),
        (b"SQLite format 3\x00", "an SQLite database"),
        ("id,G\nA,low\n".encode("utf-32"), "text in UTF-32, expected .*; save it as UTF-8"),
        (b"PK\x03\x04" + bytes(100), "a ZIP file that is no XLSX"),
        (b"id,G\nA,l\x00w\n", "binary content"),
    ],
)  # fmt: skip
def test_files_that_are_no_table_are_named(data: bytes, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        read_sheet(data)
