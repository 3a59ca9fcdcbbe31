"""The serial runner: a for-loop."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.stages.graph import Outcome, Task


@dataclass(frozen=True)
class SerialRunner:
    """Runs every task in this process, in order."""

    @property
    def width(self) -> int:
        return 1

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """One outcome a task, in the order of the tasks."""
        for task in tasks:
            yield Outcome(task, task.function(task.argument))
