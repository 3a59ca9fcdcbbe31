"""Which datasets a search finds."""

import pytest

from builder.catalog.facts import Facts, LabelFacts, SourceFacts, ValueCount
from builder.catalog.statement import Statement
from builder.errors import SpecError
from builder.library.search import Wanted, matches, search

FACTS = Facts(
    name="lung",
    version="1",
    license="CC-BY-4.0",
    description="Nodules in CT",
    statement=Statement(keywords=("screening",)),
    sources=(SourceFacts("LIDC", license="CC BY 3.0"), SourceFacts("Ours", license="CC-BY-NC-4.0")),
    images={"modality": (ValueCount("CT", 3),), "body_part": (ValueCount("CHEST", 2), ValueCount(None, 1))},
    labels={"nodule": LabelFacts("seg", ("solid", "part-solid"))},
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), True),
        (Wanted(modalities=("ct",)), True),
        (Wanted(modalities=("MR", "CT")), True),
        (Wanted(modalities=("MR",)), False),
        (Wanted(modalities=("CT",), body_parts=("head",)), False),
        (Wanted(body_parts=("Chest",)), True),
        (Wanted(labels=("Nodule",)), True),
        (Wanted(labels=("part-solid",)), True),
        (Wanted(labels=("tumor",)), False),
        (Wanted(licenses=("https://creativecommons.org/licenses/by/3.0/",)), True),
        (Wanted(licenses=("CC0-1.0",)), False),
        (Wanted(words=("nodules", "SCREENING")), True),
        (Wanted(words=("nodules", "liver")), False),
        (Wanted(usage="commercial"), False),
    ],
)
def test_what_is_wanted(wanted, found):
    assert matches(FACTS, wanted) is found


def test_commercial_use_needs_every_licence_known():
    free = Facts(name="x", version="1", license="CC0-1.0", sources=(SourceFacts("a", license="MIT"),))
    assert matches(free, Wanted(usage="commercial"))
    unstated = Facts(name="x", version="1", license="CC0-1.0", sources=(SourceFacts("a"),))
    assert not matches(unstated, Wanted(usage="commercial"))


def test_faults(tmp_path):
    with pytest.raises(SpecError, match="expected 'commercial'"):
        search([str(tmp_path)], Wanted(usage="research"))
    with pytest.raises(SpecError, match="found no folder"):
        search([str(tmp_path / "absent")], Wanted())
    with pytest.raises(SpecError, match="object stores are not searched"):
        search(["memory://bucket"], Wanted())


def test_folders_beside_datasets_and_damaged_ones(tmp_path):
    for name in ("a.private", "b.report", ".hidden"):
        (tmp_path / name / "x" / "versions").mkdir(parents=True)
        (tmp_path / name / "x" / "CURRENT").write_text("v1\n")
    assert search([str(tmp_path)], Wanted()).searched == 0
    (tmp_path / "deep" / "er" / "versions").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "CURRENT").write_text("v1\n")
    found = search([str(tmp_path)], Wanted())
    assert found.rows == ()
    assert list(found.unreadable) == [str(tmp_path / "deep" / "er")]
    assert "not read" in found.text()
