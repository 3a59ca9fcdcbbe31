"""A short campaign of mutations; ``make file-mutations`` runs a long one."""

from collections import Counter

import pytest

from tests.files.mutations import campaign


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_refused_or_read_as_its_peer_reads_it() -> None:
    found = Counter(verdict for _, _, verdict in campaign(400, 7))
    assert {*found} <= {"refused", "equal"}, found
    assert found["equal"] > 40
