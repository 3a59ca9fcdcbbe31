"""What somebody tries who wants a hidden number, or an unapproved file to pass: each gets a message, no more."""

import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from builder.errors import LayoutError, PrivacyError, SpecError
from builder.federation.differencing import Told, tell
from builder.federation.documents import Receipt, Spec, written
from builder.federation.pooling import pool
from builder.federation.signing import load_key, make_key, public_of, read_signed, sign
from builder.federation.suppression import suppress
from builder.federation.tables import ANY, Column, Counts, Disclosed, count
from tests.endtoend.trees import ROOT
from tests.federation.conftest import NO_NETWORK
from tests.federation.test_documents import EXAMPLES

SEX = Column("sex", ("F", "M"))
GRADE = Column("grade", ("high", "low"))
K = 5


def newcomers(first: Disclosed, second: Disclosed, cell):
    """Fewest and most newcomers of a cell in an archive that only grew; the attacker's own arithmetic."""
    cells = list(product(*[c.levels for c in first.columns]))

    def row(pattern):
        return [float(all(want in (ANY, have) for want, have in zip(pattern, c, strict=True))) for c in cells]

    nothing = [0.0] * len(cells)
    facts = [(row(p) + nothing, n) for p, n in first.shown.items()]
    facts += [(row(p) + row(p), n) for p, n in second.shown.items()]  # the archive before, and who came
    rules = LinearConstraint(np.array([r for r, _ in facts]), [n for _, n in facts], [n for _, n in facts])
    goal = np.array(nothing + row(cell))
    ends = []
    for sign_ in (1, -1):
        answer = milp(sign_ * goal, constraints=rules, integrality=np.ones(2 * len(cells), dtype=int))
        ends.append(np.inf if answer.x is None else sign_ * answer.fun)
    return ends


@pytest.mark.parametrize("seed", range(4))
def test_1_offers_repeated_while_an_archive_grows_tell_of_no_few_newcomers(seed):
    random = np.random.default_rng(seed)
    cells = list(product(SEX.levels, GRADE.levels))
    numbers = random.integers(2, 40, len(cells))
    ledger: list[Told] = []
    refused = []
    for version in range(4):
        counts = Counts((SEX, GRADE), dict(zip(cells, numbers.tolist(), strict=True)))
        try:
            ledger.append(tell(counts, K, people=f"v{version}", question="q", ledger=ledger))
        except PrivacyError as error:
            refused.append(str(error))
        numbers = numbers + random.choice([0, 0, 1, 2, 7], len(cells))
    assert ledger
    assert all("earlier offer again" in message for message in refused)
    for one, first in enumerate(ledger):
        for second in ledger[one + 1 :]:
            for cell in cells:
                low, high = newcomers(first.table, second.table, cell)
                assert high - low >= K or low >= K or low == high == 0


def test_2_bands_that_overlap_those_of_an_earlier_spec():
    counts = [Counts((Column("age", ("young", "old"), f"below {edge}"),), {("young",): 20, ("old",): 30})
              for edge in (60, 61)]  # fmt: skip
    first = tell(counts[0], K, people="a", question="q")
    with pytest.raises(PrivacyError, match="age: found other levels than it was told with before"):
        tell(counts[1], K, people="a", question="q", ledger=[first])


def test_3_a_rule_that_leaves_one_person_out():
    first = tell(Counts((SEX,), {("F",): 20, ("M",): 30}), K, people="a", question="all")
    with pytest.raises(PrivacyError, match="send the earlier offer again"):
        tell(Counts((SEX,), {("F",): 19, ("M",): 30}), K, people="b", question="all but one", ledger=[first])


def test_4_strata_so_fine_that_each_holds_one_person():
    columns = tuple(Column(name, tuple(map(str, range(60)))) for name in ("day", "minute"))
    with pytest.raises(PrivacyError, match="3,600 cells of day x minute"):
        tell(count(columns, [("1", "1")] * 20), K, people="a", question="q")


def test_5_a_vocabulary_made_of_names_finds_nobody():
    named = Column("name", ("Smith", "other"))
    told = tell(count((named,), [("Smith",)] + [("other",)] * 30), K, people="a", question="q").table
    assert not {("Smith",), ("other",)} & set(told.shown)
    with pytest.raises(SpecError, match="found a value beside its levels"):
        count((named,), [("Miller",)])


def test_6_a_spec_that_asks_for_less_protection():
    for k in (0, 1, 2):
        with pytest.raises(PrivacyError, match=f"k: found {k}, expected 3 or more"):
            suppress(Counts((SEX,), {("F",): 20}), k)


def test_7_numbers_of_a_site_that_were_changed_on_the_way():
    honest = Disclosed((SEX,), K, {(ANY,): 50, ("F",): 20, ("M",): 30}, ())
    with pytest.raises(LayoutError, match="south: found strata that do not add up"):
        pool({"north": honest, "south": Disclosed((SEX,), K, {(ANY,): 22, ("F",): 20}, (("M",),))})


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("keys")
    for name in ("coordinator", "stranger"):
        make_key(folder / name)
    return tuple(load_key(folder / name) for name in ("coordinator", "stranger"))


def test_8_an_altered_spec(keys):
    spec = next(d for d in EXAMPLES if isinstance(d, Spec))
    signature = sign(spec, keys[0])
    other = spec.model_copy(update={"spec": spec.spec + "deid: {}\n"})
    with pytest.raises(LayoutError, match="that was changed after the coordinator signed it"):
        read_signed(written(other, signature), Spec, where="spec.json", pinned={public_of(keys[0]): "the coordinator"})


def test_9_a_foreign_signature_and_none(keys):
    spec = next(d for d in EXAMPLES if isinstance(d, Spec))
    pinned = {public_of(keys[0]): "the coordinator"}
    with pytest.raises(PrivacyError, match="expected the key of the coordinator"):
        read_signed(written(spec, sign(spec, keys[1])), Spec, where="spec.json", pinned=pinned)
    with pytest.raises(PrivacyError, match="found the spec without a signature"):
        read_signed(written(spec), Spec, where="spec.json", pinned=pinned)


def test_10_a_signature_of_one_document_under_another(keys):
    spec, receipt = EXAMPLES[0], next(d for d in EXAMPLES if isinstance(d, Receipt))
    pinned = {public_of(keys[0]): "north"}
    with pytest.raises(LayoutError, match="changed after north signed it"):
        read_signed(written(receipt, sign(spec, keys[0])), Receipt, where="receipt.json", pinned=pinned)
    with pytest.raises(LayoutError, match="found a spec, expected a receipt"):
        read_signed(written(spec, sign(spec, keys[0])), Receipt, where="receipt.json", pinned=pinned)


def test_nothing_of_a_federation_can_open_a_connection():
    """All tests of this folder run so, in this process and in others: files are the only way."""
    words = "found that a site uses a network"
    with pytest.raises(PermissionError, match=words):
        socket.create_connection(("localhost", 9))
    own = {**os.environ, "PYTHONPATH": f"{NO_NETWORK}{os.pathsep}{ROOT}"}
    reach = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    assert words in subprocess.run(reach, env=own, capture_output=True, text=True).stderr
