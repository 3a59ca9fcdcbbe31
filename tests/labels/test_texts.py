"""Report texts: sections of files and tables, what the gate leaves of 1,000 reports, and copies across splits."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from builder.copies.texts import TextOf, certify_texts, near_texts
from builder.deid.checks import Words
from builder.deid.gate import Gate
from builder.deid.identifiers import Identifiers
from builder.errors import CaseError, Reason
from builder.labels.rows import parse_table
from builder.labels.text import ReportText, TextTable, sections_of
from builder.model.case import Text
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.model.linking import ImageRow
from builder.phantom.reports import PhantomReport, write_report
from builder.protocols import ImageFacts, LabelObject
from tests.contracts.label_reader import LabelReaderContract

KEY = Key(b"r" * 32)
FILE = b"INDICATION: pain\n\nFINDINGS: Small effusion.\nNo mass.\n\nIMPRESSION:\nEffusion.\n"
IMAGE = ImageFacts(Geometry((4, 8, 8), np.eye(4)), "1.2.3", {})


class TestTextContract(LabelReaderContract):
    options = {"kind": "text", "match": "reports/*.txt", "sections": ["impression", "findings"]}  # noqa: RUF012
    rubbish = (b"", b"\0" * 64, b"<a>", b"{", b"\xff\xfe\x00", "text", None, 7)

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self) -> list[LabelObject]:
        return [LabelObject(FILE)]

    def test_sections_come_in_the_order_of_the_spec(self, reader: Any, objects: Any) -> None:
        (found,) = reader.read("report", objects, IMAGE)
        assert isinstance(found, Text)
        assert found.text == "Effusion.\n\nSmall effusion.\nNo mass."
        assert found.evidence.tier == "report_text"

    def test_two_reports_are_refused_or_joined(self, reader: Any, objects: Any) -> None:
        other = LabelObject(FILE.replace(b"Small", b"Large"))
        with pytest.raises(CaseError) as caught:
            reader.read("report", [*objects, other], IMAGE)
        assert caught.value.reason == Reason.LABEL_AMBIGUOUS
        (found,) = reader.model_copy(update={"several": "join"}).read("report", [*objects, other], IMAGE)
        assert found.text.count("effusion.") == 2


class TestTextTableContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "text_table", "table": {"match": "*.jsonl", "by": {"number": "accession"}}, "sections": ["find", "imp"],
    }  # fmt: skip

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        lines = [{"number": "A1", "find": "Small effusion.", "imp": ""}, {"number": "A2", "find": "x", "imp": "y"}]
        content = "\n".join(map(json.dumps, lines)).encode()
        return [LabelObject(reader.cut(content, ImageRow("1.2.3", accession_number="A1"), map_uid=str))]

    def test_the_row_of_the_accession_number_is_the_report(self, reader: Any, objects: Any) -> None:
        (found,) = reader.read("report", objects, IMAGE)
        assert found.text == "Small effusion."


def test_tags_of_open_i_are_headings() -> None:
    xml = b'<eC><AbstractText Label="FINDINGS">Lungs &amp; heart.</AbstractText><AbstractText Label="IMPRESSION">ok no</AbstractText></eC>'  # noqa: E501
    assert sections_of(xml, ["findings"]) == {"findings": "Lungs & heart."}


def test_json_lines_are_rows() -> None:
    assert parse_table(b'{"a": 1}\n\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert isinstance(TextTable.model_validate(TestTextTableContract.options), TextTable)


@pytest.fixture(scope="module")
def reports() -> list[PhantomReport]:
    return [write_report(KEY, number) for number in range(1, 1001)]


def published(report: PhantomReport) -> str:
    """What a sample would hold of a report: the reader's text after the gate that knows the patient."""
    reader = ReportText(match="*.txt", sections=("indication", "comparison", "findings", "impression"))
    (text,) = reader.read("report", [LabelObject(report.text.encode())], IMAGE)
    assert isinstance(text, Text)
    family, given = report.person.name.split("^")
    gate = Gate(Words(), known=Identifiers(frozenset({family.lower(), given.lower()}), frozenset({report.accession})))
    return gate.text("texts", text.text) or ""


def test_nothing_planted_is_left_of_1000_reports_and_findings_stay(reports: list[PhantomReport]) -> None:
    left: Counter[str] = Counter()
    words = kept = 0
    for report in reports:
        text = published(report)
        left.update(p for p in report.planted if p.lower() in text.lower())
        for phrase in report.findings:
            assert phrase in report.text
            said = phrase.split()
            words += len(said)
            kept += sum(word in text.lower().split() or f"{word}." in text.lower() for word in said)
    assert not left
    assert kept >= 0.98 * words


def test_a_near_copy_across_splits_is_found_and_templates_are_not(reports: list[PhantomReport]) -> None:
    texts = [TextOf(f"case{n}", f"p{n}", ("train", "test")[n % 2], published(r)) for n, r in enumerate(reports[:200])]
    rare = (
        "An azygos fissure with a calcified granuloma of nine millimetres lies beside the third rib, while the "
        "pacemaker leads end in the coronary sinus. A surgical clip projects over the gastric bubble. "
    )
    texts += [
        TextOf("first", "one", "train", rare + texts[0].text),
        TextOf("second", "two", "test", texts[1].text + rare.replace("nine", "ten").replace("third", "fourth")),
        TextOf("again", "two", "test", rare),  # the person's own copy is none
    ]
    found = {(pair.first.key, pair.second.key) for pair in near_texts(texts)}
    assert ("first", "second") in found
    assert ("again", "second") not in found
    assert found <= {("first", "second"), ("again", "first")}
    facts = certify_texts(texts)
    assert facts["in_two_splits"] == len(found)
    assert near_texts([TextOf(str(n), str(n), "train", "The lungs are clear. " * 3) for n in range(50)]) == []
