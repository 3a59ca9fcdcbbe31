"""Run tasks serially, in a for-loop."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from builder.decode.apart import Apart, Died
from builder.errors import ResourceError
from builder.stages.graph import Outcome, Task


@dataclass(frozen=True)
class SerialRunner:
    """Runs every task in order, in this process, or in a separate one if the task may kill its process.

    If the separate process dies, the task's ``isolate`` finds the cases at fault and the task runs again without them.
    """

    @property
    def width(self) -> int:
        return 1

    def dismiss(self) -> None:
        """Do nothing: there are no workers."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield one outcome per task, in the order of the tasks.

        Raises
        ------
        ResourceError
            When a task's process dies repeatedly and no case can be blamed.
        """
        with Apart() as apart:
            for task in tasks:
                yield Outcome(task, _apart(task, apart) if task.deadly else task.function(task.argument))


def _apart(task: Task, apart: Apart) -> Any:
    try:
        return apart.call(task.function, task.argument)
    except Died as first:
        if task.isolate is None:
            raise _unexplained(task, first) from None
    task.isolate(task.argument, 0)
    try:
        return apart.call(task.function, task.argument)
    except Died as again:
        raise _unexplained(task, again) from None


def _unexplained(task: Task, death: Died) -> ResourceError:
    how = f"of signal {-death.status}" if death.status < 0 else f"with exit code {death.status}"
    return ResourceError(
        f"task {task.key}: its process died {how}, and no single case is at fault; what is finished is kept: "
        "give the machine more memory, and run the same command again",
        projected=task.memory,
    )
