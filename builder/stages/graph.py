"""Tasks: what a runner, serial or distributed, is given."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One call of a module-level function.

    Parameters
    ----------
    key
        Stage and keyed name, e.g. ``shard-3f2a...``: what dashboards and logs show, so never an identifier.
    function
        Importable by every worker; safe to run twice, also at once.
    argument
        Small and picklable: plan rows and locations, never voxels.
    lane
        Tasks of one non-empty lane share a bound on how many run at once (one server's patience).
    memory
        Projected peak bytes, from headers; 0 when not worth stating.
    isolate
        Called with ``argument`` and the bytes a worker has, after the task killed its process again and again, alone
        too: finds and records what is at fault, so that the next run of the task leaves it out.
    deadly
        Whether it runs decoders that may end its process on damaged files: a runner keeps such a task out of its own.
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
    """What a task returned: a small receipt."""

    task: Task
    value: Any


class Runner(Protocol):
    """Runs tasks; yields outcomes in any order. Errors other than those a task handles itself propagate."""

    @property
    def width(self) -> int:
        """How many tasks can run at once."""
        ...

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Each task once or, after failures, again; each outcome once."""
        ...

    def dismiss(self) -> None:
        """There are no more tasks: workers that were started for them may end."""
        ...
