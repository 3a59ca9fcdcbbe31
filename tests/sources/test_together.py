"""Several things at once, with results in order; a server is asked for as many objects at once as it may be."""

import threading
import time
from pathlib import Path

import pytest

from builder.sources import Idc, contents
from builder.sources.politeness import Politeness
from builder.sources.together import in_order
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.servers import Reply, http_server
from tests.sources.test_tcia_and_idc import Bucket, write_index


@pytest.mark.parametrize("width", [1, 3])
def test_results_come_in_order_and_an_error_in_its_turn(width: int) -> None:
    begun: list[int] = []

    def step(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        if number == 20:
            raise ValueError(number)
        return number

    got: list[int] = []

    def take() -> None:
        for result in in_order(step, range(100), width=width):
            got.append(result)
            assert len(begun) - len(got) <= 2 * width  # what waits is bounded

    with pytest.raises(ValueError, match="20"):
        take()
    assert got == list(range(20))
    assert len(begun) < 40


def test_a_bucket_is_asked_for_as_much_at_once_as_it_may_be(tmp_path: Path) -> None:
    """Index and objects come by as many connections as are allowed, each object whole once, and no more at once."""
    files = make_archive(tmp_path / "archive")
    held = Bucket(write_index(files, tmp_path / "index.parquet"))
    lock, now, most = threading.Lock(), [0], [0]

    def answer(target: str, headers: dict[str, str]) -> Reply:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return held(target, headers)

    contents._opened.cache_clear()
    with http_server(answer) as url:
        source = Idc(
            index=str(tmp_path / "index.parquet"), collections=("mine",), endpoint=url, polite=Politeness(connections=3)
        ).kept_in(str(tmp_path / "content"))
        entries = list(source.list())
        index_partition(source, 0, entries)
        assert most == [3]
        most[0] = 0
        whole = source.model_copy().kept_in(str(tmp_path / "other"))
        held.ranges.clear()
        whole.bring(entries)
        assert len(held.ranges) == len(entries)
        assert most == [3]
        assert {whole.read(entry) for entry in entries} == set(files.values())
        assert len(held.ranges) == len(entries)
