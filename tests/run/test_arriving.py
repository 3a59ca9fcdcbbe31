"""Small tasks run here until the workers are there; each runs once, and the cluster is closed however it ends."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from builder.errors import SourceError, SpecError
from builder.run.arriving import Arriving
from builder.stages.graph import Outcome, Task


@dataclass
class Cluster:
    """Opens when it is told to, and notes what it is given."""

    gate: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    ran: list[str] = field(default_factory=list)
    width: int = 2

    @contextmanager
    def open(self) -> Iterator["Cluster"]:
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        yield self
        self.closed.set()

    def dismiss(self) -> None:
        raise AssertionError("the context ends the workers")

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            self.ran.append(task.key)
            yield Outcome(task, task.function(task.argument))


def refuse(argument: object) -> None:
    raise SourceError("no answer", host="archive", attempt=1)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_tasks_run_here_until_the_workers_come_and_each_once(cluster: Cluster) -> None:
    tasks = [Task(f"t-{n}", abs, -n) for n in range(6)]
    with Arriving(cluster.open()) as runner:
        outcomes = runner.run(tasks)
        found = [next(outcomes) for _ in range(3)]
        cluster.gate.set()
        assert runner.width == 2  # it waits for them
        found += outcomes
        assert not cluster.closed.is_set()
    assert sorted((o.task.key, o.value) for o in found) == [(f"t-{n}", n) for n in range(6)]
    assert cluster.ran == ["t-3", "t-4", "t-5"]
    assert cluster.closed.is_set()


@pytest.mark.parametrize("large", [Task("large", abs, 1, memory=1), Task("deadly", abs, 1, deadly=True)])
def test_what_may_be_large_or_deadly_waits_for_workers(cluster: Cluster, large: Task) -> None:
    with Arriving(cluster.open()) as runner:
        outcomes = runner.run([Task("small", abs, 2), large])
        threading.Timer(0.2, cluster.gate.set).start()
        assert [o.value for o in outcomes] == [2, 1]
    assert cluster.ran == ["small", large.key]


def test_what_a_source_did_not_answer_to_is_left_to_the_workers(cluster: Cluster) -> None:
    with Arriving(cluster.open()) as runner:
        outcomes = runner.run([Task("refused", refuse, 0), Task("small", abs, 1)])
        assert next(outcomes).value == 1
        cluster.gate.set()
        with pytest.raises(SourceError):
            next(outcomes)
    assert cluster.ran == ["refused"]


@pytest.mark.parametrize("tasks", [[Task("small", abs, 1)], [Task("large", abs, 1, memory=1)], []])
def test_what_the_start_raises_arrives(cluster: Cluster, tasks: list[Task]) -> None:
    cluster.fault = SpecError("found a number, expected none")
    cluster.gate.set()
    with Arriving(cluster.open()) as runner:
        while not runner._opened.done():
            pass
        with pytest.raises(SpecError, match="expected none"):
            list(runner.run(tasks))


def test_workers_end_when_they_are_dismissed_and_after_an_error(cluster: Cluster) -> None:
    cluster.gate.set()
    with Arriving(cluster.open()) as runner:
        assert [o.value for o in runner.run([Task("large", abs, 1, memory=1)])] == [1]
        runner.dismiss()
        assert cluster.closed.wait(60)
        runner.dismiss()
    other = Cluster()
    threading.Timer(0.1, other.gate.set).start()
    with pytest.raises(KeyError), Arriving(other.open()):
        raise KeyError
    assert other.closed.is_set()


def test_what_closing_raises_arrives(cluster: Cluster) -> None:
    @contextmanager
    def opened() -> Iterator[Any]:
        yield cluster
        raise OSError("found a process that does not end")

    with pytest.raises(OSError, match="does not end"), Arriving(opened()):
        pass
