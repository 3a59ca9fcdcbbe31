"""The table is as published, agrees with the dictionary, and covers all names and dates."""

import pytest
from pydicom.datadict import DicomDictionary, tag_for_keyword

from builder.deid.allowed import Form, forms
from builder.deid.profile import DEFAULT_OPTIONS, METHOD_CODES, Action, Option, Profile, rows, table

# Read off PS3.15 Table E.1-1 by hand; columns: tag, basic, and the options with K or C.
PUBLISHED = """
00080050 Z
00184000 X descriptors:C
00400555 X/Z structured:C
00080022 X/Z full:K modified:C
0008002A X/Z/D full:K modified:C
00181400 X/D descriptors:C
001811BB D descriptors:C
00404035 X
001021B0 X descriptors:C
00001000 X uids:K
00102110 X patient:C descriptors:C
0040A078 X
22000005 X/Z
00101081 X
00181007 X device:K
00120060 Z institution:K
00120081 D institution:K
00120020 D
00209161 U uids:K
0008009C Z
00700084 Z/D
00080023 Z/D full:K modified:C
0040A730 D structured:C
00180010 Z/D descriptors:C
00102150 X
00080025 X full:K modified:C
FFFCFFFC X
0018700A X/D device:K
00500020 X device:K
00181000 X/Z/D device:K
00181002 U uids:K device:K
FFFAFFFA X
04000100 U
00209164 U uids:K
00100010 Z
00100030 Z
00100040 Z patient:K
00101010 X patient:K
00080018 U uids:K
0020000D U uids:K
00200010 Z
30060026 Z descriptors:C
00081301 X descriptors:C
00081304 X descriptors:C
00100012 X
00100016 X descriptors:C
00100042 X patient:C descriptors:C
00100043 X patient:K
00100044 X
00100047 X patient:K
00102162 X patient:K
003A020C X descriptors:C
00400556 X descriptors:C
0040A034 X full:K modified:C
0040B020 X/D structured:C
0040B036 X full:K modified:C
0040B03B X descriptors:C
0040E012 X
"""
COLUMNS = {
    "uids": Option.RETAIN_UIDS,
    "device": Option.RETAIN_DEVICE_IDENTITY,
    "institution": Option.RETAIN_INSTITUTION_IDENTITY,
    "patient": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "full": Option.RETAIN_FULL_DATES,
    "modified": Option.RETAIN_MODIFIED_DATES,
    "descriptors": Option.CLEAN_DESCRIPTORS,
    "structured": Option.CLEAN_STRUCTURED_CONTENT,
}


@pytest.mark.parametrize("line", PUBLISHED.split("\n")[1:-1])
def test_rows_as_published(line: str) -> None:
    tag, basic, *options = line.split()
    row = table()[int(tag, 16)]
    assert row.basic == basic
    expected = {COLUMNS[name]: Action(code) for name, code in (o.split(":") for o in options)}
    assert dict(row.options) == expected


def test_the_table_is_complete_and_in_order() -> None:
    patterns = [row.pattern for row in rows()]
    assert len(patterns) == len(set(patterns)) == 656
    assert patterns == sorted(patterns)
    assert {row.basic for row in rows()} == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}


def test_the_table_agrees_with_the_dictionary() -> None:
    unknown = [tag for tag in table() if tag not in DicomDictionary]
    assert len(unknown) < 30  # attributes younger than the dictionary: the walk drops what the dictionary does not know
    for tag in unknown:
        form, vr = forms(Profile()).get(tag, (None, ""))
        assert vr in ("", "SQ", "DT"), hex(tag)
        assert form in (None, Form.SEQUENCE, Form.DATETIME), hex(tag)
    for tag, row in table().items():
        vr = DicomDictionary.get(tag, ("",))[0]
        if row.basic == "U" and vr:
            assert vr == "UI", hex(tag)
        dated = Option.RETAIN_FULL_DATES in row.options
        assert not dated or vr in ("DA", "TM", "DT", "SH", "OB", "SQ", "FD", ""), hex(tag)
        assert dated == (Option.RETAIN_MODIFIED_DATES in row.options), hex(tag)


def test_names_titles_and_dates_outside_the_table_do_not_survive() -> None:
    survivors = forms(Profile())
    for tag, (vr, _, _, _, _) in DicomDictionary.items():
        if tag not in table() and vr in ("PN", "AE", "DA", "TM", "DT", "UR", "OB", "OF", "OD", "OL", "UN"):
            assert tag not in survivors or survivors[tag][0] is Form.PIXELS, hex(tag)


def test_text_survives_only_if_a_form_cleans_it() -> None:
    for options in (frozenset(), DEFAULT_OPTIONS, frozenset(Option) - {Option.RETAIN_FULL_DATES}):
        for tag, (form, vr) in forms(Profile(options)).items():
            if vr in ("LO", "SH", "ST", "LT", "UT", "UC", "CS") and form is Form.KEEP:
                identity = {Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_INSTITUTION_IDENTITY}
                assert identity & set(table()[tag].options), hex(tag)


@pytest.mark.parametrize(
    ("keyword", "form"),
    [("Rows", Form.NUMBER), ("SliceThickness", Form.NUMBER_TEXT), ("PixelPaddingValue", Form.RESOLVED),
     ("SmallestImagePixelValue", Form.RESOLVED), ("PatientPosition", Form.CODE), ("DoseUnits", Form.CODE)],
)  # fmt: skip
def test_numbers_and_codes_of_technical_groups_survive(keyword: str, form: Form) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert forms(Profile(frozenset()))[tag][0] is form


def test_options() -> None:
    assert Profile(frozenset()).methods == ("DCM:113100",)
    expected = ["113100", "113103", "113104", "113105", "113107", "113108", "113111"]
    assert [*Profile().methods] == [f"DCM:{code}" for code in expected]
    assert len(set(METHOD_CODES.values())) == len(Option) == 10
    with pytest.raises(ValueError, match="at most one"):
        Profile(frozenset({Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES}))


def test_keep_beats_clean_and_any_option_beats_the_basic_profile() -> None:
    allergies, device_uid = table()[0x00102110], table()[0x00181002]
    assert Profile(frozenset()).action(allergies) is Action.REMOVE
    assert Profile(frozenset({Option.CLEAN_DESCRIPTORS})).action(allergies) is Action.CLEAN
    assert Profile(frozenset({Option.RETAIN_DEVICE_IDENTITY})).action(device_uid) is Action.KEEP


def test_attributes_of_commands_file_meta_and_directories_never_survive() -> None:
    every = Profile(frozenset(Option) - {Option.RETAIN_MODIFIED_DATES})
    assert not [tag for tag in forms(every) if tag >> 16 in (0x0000, 0x0002, 0x0004)]
