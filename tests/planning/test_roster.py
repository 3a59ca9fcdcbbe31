"""Text of clinical tables is compared with everybody of the archive."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from builder.deid.checks import Words
from builder.deid.gate import Gate
from builder.deid.leaks import Canaries
from builder.planning.roster import _of_nobody


def test_text_about_another_person_costs_its_cell_and_not_the_build() -> None:
    """Such a value stopped every build at its end, after all shards were written."""
    roster: Any = SimpleNamespace(canaries=Canaries.of(["MRN-88776", "low"], names=["SIMPSON^HOMER"]))
    gate = Gate(Words(frozenset({"low"})))
    values = pa.chunked_array([["as Homer Simpson", "low", None], ["stable", "see mrn-88776", "as Homer Simpson"]])
    kept = _of_nobody("remark", values, gate, roster)
    assert kept.to_pylist() == [None, "low", None, "stable", None, None]
    assert gate.dropped == {("remark", "as Homer Simpson"): 2, ("remark", "see mrn-88776"): 1}
    assert _of_nobody("remark", kept, gate, roster) is kept
