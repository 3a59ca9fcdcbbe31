"""What a PACS sends badly is never taken for missing data, and what came whole is not fetched twice."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydicom.dataset import Dataset

from builder.errors import IncompleteError, SourceError
from builder.run.pipeline import build
from builder.sources import Dimse, associations, contents, patience, politeness
from tests.endtoend.trees import KEY, command, tree
from tests.faults.pacs import FIND_FAULTS, GET_FAULTS, Pacs, served, start
from tests.faults.test_answers import PERSONS, SPEC, everything, listed
from tests.sources.quick import no_pauses
from tests.sources.servers import free_port
from tests.synthetic import ct_series

pytest.importorskip("pynetdicom")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of sockets that the faults close
    # a server of pynetdicom that ends while an idle association times out raises in the thread of that association
    pytest.mark.filterwarnings("ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"),
]
Everything = tuple[list[dict[str, Any]], list[bytes]]
FAULTS = [("find", fault) for fault in FIND_FAULTS] + [("get", fault) for fault in GET_FAULTS]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three persons with a series each."""
    found = {}
    for person in PERSONS:
        made = ct_series(tmp_path_factory.mktemp("archive"), slices=3, shape=(16, 16), patient_id=person)
        found |= {str(i.SOPInstanceUID): path.read_bytes() for i, path in zip(made.images, made.paths, strict=True)}
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setattr(associations, "TIMEOUT_S", 2.0)
    contents._opened.cache_clear()


@pytest.fixture(scope="module")
def expected(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Everything:
    """What a healthy PACS gives."""
    with served(Pacs(files)) as port:
        found = everything(source_at(port, tmp_path_factory.mktemp("healthy")))
    assert len(found[1]) == len(files)
    return found


class Forgetful(Pacs):
    """A PACS that counts nothing and leaves a result out the first time, as dcmqrscp does now and then."""

    asked: ClassVar[Counter[str]] = Counter()

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        with self.lock:
            query = event.identifier.to_json()
            self.asked[query] += 1
            first = self.asked[query] == 1
        for status, item in list(super().find(event))[first:]:
            for element in list(item or ()):
                if element.keyword.startswith("NumberOf"):
                    del item[element.tag]
            yield status, item


def test_a_list_that_nobody_counts_is_believed_when_it_comes_again(
    files: dict[str, bytes], expected: Everything, tmp_path: Path
) -> None:
    with served(Forgetful(files)) as port:
        assert everything(source_at(port, tmp_path)) == expected
    assert all(any(level in query for query in Forgetful.asked) for level in ("STUDY", "SERIES", "IMAGE"))


def source_at(port: int, folder: Path) -> Any:
    """A source with nothing kept yet."""
    made = Dimse.model_validate({"kind": "dimse", "host": "127.0.0.1", "port": port, "called_ae": "PACS"})
    return made.kept_in(str(folder))


@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_source(
    operation: str, fault: str, files: dict[str, bytes], expected: Everything, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A fault that passes leaves no trace; one that stays stops the run; then the PACS gives what it always gave."""
    monkeypatch.setattr(patience, "PATIENCE_S", 10.0)  # each try takes an association
    pacs = Pacs(files)
    with served(pacs) as port:
        pacs.fault, pacs.operation = fault, operation
        assert everything(source_at(port, tmp_path / "b")) == expected
        assert pacs.spoiled == 1
        if fault == "slow":
            return
        pacs.persistent = True
        source = source_at(port, tmp_path / "c")
        with pytest.raises(SourceError, match=r"dimse at 127.0.0.1|lists no object"):
            listed(everything(source))
        pacs.fault = ""
        assert everything(source) == expected


def test_a_restart_of_thirty_seconds(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pacs, port, began = Pacs(files), free_port(), []
    paused: list[float] = []

    def sleep(seconds: float) -> None:
        paused.append(seconds)
        if sum(paused) > 30 and not began:
            began.append(start(pacs, port=port))

    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: sum(paused), time=sum))
    assert len(everything(source_at(port, tmp_path))[1]) == len(files)
    began[0].shutdown()


def write_spec(folder: Path, port: int, **options: Any) -> Path:
    """A spec whose source is the PACS."""
    block = {"kind": "dimse", "host": "127.0.0.1", "port": port, "called_ae": "PACS"} | options
    text = ", ".join(f"{k}: {v if isinstance(v, (int, float)) else repr(v)}" for k, v in block.items())
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(source="{" + text + "}"))
    return path


def test_build_stops_and_then_gives_what_an_undisturbed_run_gives(files: dict[str, bytes], tmp_path: Path) -> None:
    pacs = Pacs(files)
    with served(pacs) as port:
        spec = write_spec(tmp_path, port)
        build(spec, to=tmp_path / "undisturbed")
        contents._opened.cache_clear()
        pacs.fault, pacs.operation, pacs.persistent = "partly failed", "get", True
        with pytest.raises(IncompleteError, match=r"the PACS says that 1 failed.*run the same command again"):
            build(spec, to=tmp_path / "disturbed")
        assert not (tmp_path / "disturbed" / "CURRENT").exists()
        pacs.fault = ""
        build(spec, to=tmp_path / "disturbed")
    assert tree(tmp_path / "disturbed") == tree(tmp_path / "undisturbed")


def test_after_a_kill_nothing_complete_comes_twice(files: dict[str, bytes], tmp_path: Path) -> None:
    child: list[subprocess.Popen[bytes]] = []
    ended = threading.Event()

    def stored() -> int:
        return len([p for p in (tmp_path / "out.private" / "content").glob("??/*/*") if p.is_file()])

    class Killing(Pacs):
        def get(self, event: Any) -> Iterator[Any]:
            killed = False
            try:
                for answer in super().get(event):
                    if len(self.sent) == 5 and child:
                        started = time.monotonic()
                        while stored() < 4 and time.monotonic() - started < 60:
                            time.sleep(0.01)  # a busy machine stores later than it answers
                        child[0].send_signal(signal.SIGKILL)
                        child[0].wait()
                        killed = True
                    yield answer
            finally:
                if killed:
                    ended.set()

    pacs = Killing(files)
    with served(pacs) as port:
        spec = write_spec(tmp_path, port, polite={"connections": 1})  # so that one series is on its way
        environment = {**os.environ, "BUILDER_KEY": KEY}
        child.append(
            subprocess.Popen(command("build", spec, "--to", tmp_path / "out"), env=environment, stdout=-3, stderr=-3)
        )
        assert child[0].wait(timeout=120) == -signal.SIGKILL
        child.clear()
        assert ended.wait(60)
        lost = len(pacs.sent) - stored()
        assert 1 <= lost <= 2  # the one in flight, and the next, which the server may send before it notices
        build(spec, to=tmp_path / "out")
    assert sorted(pacs.sent.count(uid) for uid in files) == [1] * (len(files) - lost) + [2] * lost


def test_associations_are_pooled(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(politeness, "LINGER_S", 60.0)
    pacs = Pacs(files)
    with served(pacs) as port:
        source = source_at(port, tmp_path).model_copy(update={"polite": politeness.Politeness(connections=1)})
        assert len(everything(source)[1]) == len(files)
        # one association lists 3 studies, 3 series and 3 x 3 instances; another one brings 3 series
        assert pacs.associations == [2, 1]
