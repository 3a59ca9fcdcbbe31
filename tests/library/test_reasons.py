"""Every reason for leaving something out is explained, in the command and in the docs."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import Reason, SpecError
from builder.library.reasons import all_reasons, explain_reason

ROOT = Path(__file__).parents[2]


def test_every_reason_is_explained() -> None:
    assert [one.code for one in all_reasons()] == [reason.value for reason in Reason]
    for one in all_reasons():
        assert len(one.meaning) > 20
        assert len(one.advice) > 20


def test_every_reason_is_given_somewhere() -> None:
    code = "".join(path.read_text() for path in (ROOT / "builder").rglob("*.py") if path.name not in ("reasons.py",))
    assert [reason.name for reason in Reason if not re.search(rf"Reason\.{reason.name}\b", code)] == []


def test_the_page_lists_them() -> None:
    rows = [f"| `{one.code}` | {one.meaning} | {one.advice} |" for one in all_reasons()]
    page = (ROOT / "docs" / "reasons.md").read_text()
    assert [row for row in page.splitlines() if row.startswith("| `")] == rows


def test_a_wrong_code_is_told_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"found the reason 'gaped'.*did you mean 'gapped'"):
        explain_reason("gaped")


def test_the_command_says_what_to_do() -> None:
    done = CliRunner().invoke(app, ["explain-reason", "gapped"])
    assert done.exit_code == 0
    assert done.stdout.startswith("gapped: A regular series of which slices are missing.\n  Fetch the missing slices")
