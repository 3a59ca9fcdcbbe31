"""Faults drawn for the sources alone, without builds: what they give is whole, or they stop (``make faults-long``)."""

import gc
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builder.errors import SourceError
from builder.sources import associations, contents, http
from tests.faults.answers import FAULTS, Disturbed, disturbed_server
from tests.faults.pacs import FIND_FAULTS, GET_FAULTS, Pacs, served
from tests.faults.test_answers import KINDS, everything, healthy, source_of
from tests.faults.test_associations import source_at
from tests.sources.quick import no_pauses
from tests.synthetic import ct_series

RUNS = int(os.environ.get("BUILDER_FAULT_RUNS", "200"))
SEED = os.environ.get("BUILDER_FAULT_SEED", "21")
DRAWN = tuple(os.environ.get("BUILDER_FAULT_KINDS", "").split()) or (*KINDS, "dimse")
WRONG = tuple(filter(None, os.environ.get("BUILDER_FAULT_ONLY", "").split(","))) or FAULTS
"""What is drawn from: kinds of sources, and faults of the web servers among them."""

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of sockets that the faults close


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three persons with a series each."""
    found = {}
    for person in ("P1", "P2", "P3"):
        made = ct_series(tmp_path_factory.mktemp("archive"), slices=3, shape=(16, 16), patient_id=person)
        found |= {str(i.SOPInstanceUID): path.read_bytes() for i, path in zip(made.images, made.paths, strict=True)}
    return found


@contextmanager
def web(kind: str, files: dict[str, bytes], folder: Path, draw: random.Random) -> Iterator[tuple[Any, Any, str]]:
    """A source of a web server, what disturbs it, and what its fault is called."""
    disturbed = Disturbed(healthy(kind, files, folder))
    fault, share = draw.choice(WRONG), draw.random()
    disturbed.next_fault = lambda target: fault if draw.random() < share else ""  # type: ignore[method-assign]

    def mend() -> None:
        disturbed.next_fault = lambda target: ""  # type: ignore[method-assign]

    with disturbed_server(disturbed) as url:
        yield source_of(kind, url, folder, content="kept"), mend, fault


@contextmanager
def pacs(files: dict[str, bytes], folder: Path, draw: random.Random) -> Iterator[tuple[Any, Any, str]]:
    """The same of a PACS."""
    held, share = Pacs(files), draw.random()
    asked, fault = draw.choice([("find", f) for f in FIND_FAULTS] + [("get", f) for f in GET_FAULTS])
    held.fault, held.operation = fault, asked
    held.next_fault = lambda operation: fault if operation == asked and draw.random() < share else ""  # type: ignore[method-assign]

    def mend() -> None:
        held.next_fault = lambda operation: ""  # type: ignore[method-assign]

    with served(held) as port:
        yield source_at(port, folder / "kept"), mend, f"{asked} {fault}"


@pytest.mark.skipif(os.environ.get("BUILDER_FAULTS") != "long", reason="long: make faults-long")
def test_a_source_gives_everything_or_stops(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setattr(http, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(associations, "TIMEOUT_S", 2.0)
    tried: Counter[tuple[str, str]] = Counter()
    for number in range(RUNS):
        draw = random.Random(f"{SEED}/{number}")  # its own, so that a run is the same whatever the others ask
        kind, folder = draw.choice(DRAWN), tmp_path / str(number)
        folder.mkdir()
        contents._opened.cache_clear()
        context = pacs(files, folder, draw) if kind == "dimse" else web(kind, files, folder, draw)
        with context as (source, mend, fault):
            try:
                rows, objects = everything(source)
            except SourceError:
                tried[kind, "stopped"] += 1
            else:
                tried[kind, "gave everything"] += 1
                # a list that is empty each time stops the plan: a source lists at least one object
                assert not rows or len(objects) == len(files), (number, kind, fault)
                assert {row["status"] for row in rows} <= {"instance"}, (number, kind, fault)
            mend()
            rows, objects = everything(source)
            assert len(objects) == len(files), (number, kind, fault)
            assert len({row["sop_instance_uid"] for row in rows}) == len(files), (number, kind, fault)
        said = ", ".join(f"{kind} {count} {ended}" for (kind, ended), count in sorted(tried.items()))
        print(f"{number + 1} runs: {said}", file=sys.stderr, flush=True)
    gc.collect()  # while the warnings are still ignored: pytest collects once more at its end, where none is
