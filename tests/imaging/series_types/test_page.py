"""The page about choosing series names every column, every value and every tested question."""

import re
from pathlib import Path

from builder.imaging.series_types import shipped
from builder.model.tables import CHOICE
from tests.planning.test_twenty_questions import QUESTIONS

PAGE = Path(__file__).parents[3] / "docs" / "choosing-series.md"
TEXT = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)


def test_every_column_and_value_is_on_the_page():
    named = set(re.findall(r"`([A-Za-z0-9_]+)`", TEXT))
    assert {*CHOICE.names} <= named
    for column, values in shipped().values.items():
        assert {*values} <= named, column


def test_every_tested_question_is_on_the_page():
    lines = {line.replace("\\|", "|") for line in re.findall(r"`([^`]+)`", TEXT)}
    assert {line for _, line, _ in QUESTIONS} <= lines
