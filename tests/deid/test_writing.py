"""Names and dates are found however people write them: accents, scripts, orders, months in words, parts of a name."""

import re

import pytest
from pydicom import Dataset

from builder.deid import terms
from builder.deid.checks import Words
from builder.deid.gate import Gate, looks_like_identifier
from builder.deid.identifiers import Identifiers, identifiers_in
from builder.deid.leaks import Canaries
from builder.deid.text import scrub
from builder.deid.writing import DATE, fold, replace
from tests import synthetic


def known_of(name: str, *, born: str = "19560512", number: str = "4711") -> Identifiers:
    (image,) = synthetic.ct_series(None, slices=1, shape=(8, 8)).images
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName, image.PatientBirthDate, image.PatientID = name, born, number
    return identifiers_in([image])


WRITTEN = {
    "KOWALSKA^ŻANETA": ["Zaneta", "Z\u0307aneta", "Kowalská", "\uff2b\uff4f\uff57\uff41\uff4c\uff53\uff4b\uff41",
                        "k o w a l s k a", "kowal\u00adska", "zkowalska", "Kowalskażaneta", "Ż.K.", "Ż. K."],
    "MÜLLER^JÖRG": ["Mueller", "Muller", "joerg", "Mu\u0308ller"],
    "MUELLER^JOERG": ["Müller", "jorg"],
    "ИВАНОВ^ПЁТР": ["иванов", "Петр", "Ivanov"],
    "IVANOV^PETR": ["ИВАНОВ", "Пётр"],
    "ΠΑΠΑΔΌΠΟΥΛΟΣ^ΝΊΚΟΣ": ["παπαδοπουλος", "Νίκος"],
    "YAMADA^TARO=山田^太郎=やまだ^たろう": ["患者は山田さん", "山田太郎", "タロウ", "Yamada"],
    "KIM^CHULSOO=김^철수": ["김철수님", "철수"],
    "LI^WU": ["Wu", "li", "Wu, L.", "LiWu"],
    "HAND^LONG": ["Hand", "long", "Long, Hand", "L. Hand"],
    "O'NEIL^SEÁN": ["ONeil", "O\u2019Neil", "sean"],
    "van der BERG^ANNEKE": ["vanderberg", "Berg, van der"],
    "GARCÍA-LÓPEZ^MARÍA JOSÉ": ["Garcia Lopez", "GARCIALOPEZ", "maria"],
    "محمد^عبدالله": ["مُحَمَّد"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_no_spelling_of_a_name_leaves_a_column_of_text(name: str) -> None:
    gate = Gate(Words(), declared=frozenset({"remark"}), known=known_of(name))
    assert [text for text in WRITTEN[name] if gate.text("remark", text) is not None] == []
    assert gate.text("remark", "stable disease") == "stable disease"


@pytest.mark.parametrize(
    ("number", "text"),
    [("Simpson_Homer", "as homer said"), ("王小明", "患者王小明"), ("müller-jörg", "Joerg"), ("A-12/34", "of a1234")],
)
def test_a_patient_id_is_found_as_people_write_it(number: str, text: str) -> None:
    """Where each patient has a folder, its name is the Patient ID of pictures."""
    gate = Gate(Words(), declared=frozenset({"remark"}), known=known_of("", number=number))
    assert gate.text("remark", text) is None
    assert Gate(Words(), declared=frozenset({"remark"}), known=known_of("", number="LIDC-0012")).text(
        "remark", "see lidc"
    )


BORN = [
    "12.05.1956", "12-05-56", "56/5/12", "560512", "120556", "12 05 1956", "1956:05:12", "12 mai 1956",
    "12. Mai 1956", "12 de mayo de 1956", "12 мая 1956", "1956年5月12日", "昭和31年5月12日", "12.V.1956",
    "\uff11\uff19\uff15\uff16/\uff10\uff15/\uff11\uff12", "12th of May, 1956", "12May56", "1956-133", "20587",
    "12. květen 1956", "1956 május 12", "12 maja 1956", "05/1956",
]  # fmt: skip


@pytest.mark.parametrize("text", BORN)
def test_no_form_of_a_date_of_birth_leaves(text: str) -> None:
    gate = Gate(Words(), declared=frozenset({"remark"}), known=known_of("DOE^JANE"))
    assert gate.text("remark", text) is None
    assert gate.text("remark", f"born {text}") is None
    if not text.isdigit():
        assert gate.text("reading_values", text) is None


@pytest.mark.parametrize(
    "text", ["stage 2 of 4", "5 mm, 12 mm", "T2 3/12", "1.5 x 2.5 cm", "segments 4, 5, 8", "10-12"]
)
def test_figures_of_medicine_are_no_dates(text: str) -> None:
    assert not looks_like_identifier(text)


@pytest.mark.parametrize(
    "text", ["Frau Zimmerli", "Hauptstra\u00dfe 12", "12 rue de la Paix", "06 12 34 56 78", "0171/234567"]
)
def test_shapes_of_other_countries_are_refused(text: str) -> None:
    assert looks_like_identifier(text)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("box_classes", "mass 12/05/56"),
        ("box_classes", "nodule 939 555 113"),
        ("body_part", "H O M E R"),
        ("body_part", "J.S."),
        ("convolution_kernel", "STANDARD 0512 1956"),
        ("image_type", "ORIGINAL\\PRIMARY\\1956\\0512"),
        ("manufacturer_model", "Biograph 1956 0512"),
        ("manufacturer_model", "Biograph J S"),
        ("evidence_tools", "Slicer 12 05 56"),
        ("sex", "HJS"),
    ],
)
def test_figures_and_initials_beside_terms_do_not_leave(column: str, text: str) -> None:
    judged = Gate(Words()).text(column, text)
    assert judged is None or not re.search(r"\d", judged)


def test_terms_with_their_own_figures_leave() -> None:
    assert terms.body_part("C-SPINE") == "C-SPINE"
    assert terms.model("MAGNETOM Skyra fit 3.0T") == "MAGNETOM Skyra fit 3.0T"
    assert terms.kernel("Hr60f\\3") == "Hr60f\\3"
    assert terms.imaging_words("nodule 12 mm x 14 mm") == "nodule 12 mm x 14 mm"


def test_two_terms_that_are_somebodys_name_stay_and_one_leaves() -> None:
    gate = Gate(Words(), known=known_of("HAND^LONG"))
    assert gate.text("box_classes", "hand") == "hand"
    assert gate.text("body_part", "HAND") == "HAND"
    assert gate.text("box_classes", "long hand") is None
    assert Gate(Words()).text("box_classes", "long hand") == "long hand"


def test_a_level_of_the_spec_leaves_whoever_is_called_so() -> None:
    gate = Gate(Words(frozenset({"alive"})), declared=frozenset({"outcome"}), known=known_of("ALIVE^ANNA"))
    assert gate.text("outcome", "alive") == "alive"


def test_the_search_of_a_version_finds_other_spellings_too() -> None:
    names = ["МЕЛЬНИЧЕНКО^ЖАННА", "YAMADA^TARO=山田^太郎", "MÜLLER^JÖRG"]
    canaries = Canaries.of(["Żółwińska"], names=names)
    for text in ("ЖАННА МЕЛЬНИЧЕНКО", "Melnichenko Zhanna", "患者山田太郎は", "«Jorg Muller»", "ZOLWINSKA"):
        assert canaries.count_in(text.encode()) == 1, text
    assert Canaries.of([], names=["王小明"]).count_in("患者王小明".encode()) == 1
    assert canaries.count_in("山田 and Müller".encode()) == 0  # one part of a name proves nothing about an archive


def test_reports_lose_dates_and_names_of_every_script() -> None:
    known = known_of("МЕЛЬНИЧЕНКО^ЖАННА=山田^太郎")
    for text in ("seen le 12 mai 1956 by", "seen 1956年5月12日 by", "seen мельниченко by", "seen with 山田太郎 by"):
        scrubbed = scrub(f"{text} us", known=known)
        assert "[...]" in scrubbed
        assert not re.search(r"1956|\u5e74|мель|\u5c71", scrubbed), scrubbed


def test_replacing_keeps_what_stands_around_it() -> None:
    assert replace(DATE, "Straße é 12 мая 1956, ﬁn", "*") == "Straße é *, ﬁn"
    assert fold("Straße") == "strasse"


def test_short_names_written_as_one_word_would_be_ordinary_words() -> None:
    def one_word(name: str) -> set[str]:
        image = Dataset()
        image.PatientName = name
        return set(identifiers_in([image]).names)

    assert {"brandtzoe", "zoebrandt", "zbrandt", "brandtz"} <= one_word("Brandt^Zoe")
    assert not one_word("Bo^Li") & {"boli", "libo"}
    assert not {name for name in one_word("王^小明") if len(name) > 2}
