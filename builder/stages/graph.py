"""Define tasks: the units of work that a serial or distributed runner executes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

WORKER_BYTES = 256 << 20
"""Bytes a worker uses before it does anything: interpreter and libraries."""


@dataclass(frozen=True)
class Task:
    """One call of a module-level function.

    Parameters
    ----------
    key
        Stage and keyed name, e.g. ``shard-3f2a...``. Dashboards show it, so it never contains an identifier.
    function
        Importable by every worker, and safe to run twice, also concurrently.
    argument
        Small and picklable: plan rows and locations, never voxels.
    lane
        Tasks that share a non-empty lane also share a limit on how many run at once, so that one server is not
        overloaded.
    memory
        Projected peak bytes, taken from headers; 0 when it is not worth stating.
    isolate
        Called with ``argument`` and a worker's memory in bytes when the task killed its process repeatedly, also when
        it ran alone. It finds and records the cause, so that the next run of the task leaves it out.
    deadly
        Whether the task runs decoders that may kill its process on damaged files. A runner keeps it out of its own
        process.
    """

    key: str
    function: Callable[[Any], Any]
    argument: Any
    lane: str = ""
    memory: int = 0
    isolate: Callable[[Any, int], Any] | None = None
    deadly: bool = False


@dataclass(frozen=True)
class Outcome:
    """The small receipt that a task returned."""

    task: Task
    value: Any


class Runner(Protocol):
    """Runs tasks and yields outcomes in any order. Errors that a task does not handle itself propagate."""

    @property
    def width(self) -> int:
        """Return how many tasks can run at once."""
        ...

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run each task once, or again after failures, and yield each outcome once."""
        ...

    def dismiss(self) -> None:
        """Say that there are no more tasks, so that workers started for them may end."""
        ...
