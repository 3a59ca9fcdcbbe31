"""Define the case boundary: an exception inside one case excludes that case and nothing else.

Code that parses external bytes raises CaseError (``builder.headers.boundary``). Any other exception that arrives here
is a bug in this program. It costs its case, not the build. Its traceback goes to the private journal, the end of the
build reports it, and the next build tries the case again.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.errors import BuilderError, CaseError, Reason
from builder.headers.boundary import damaged_element

OnInternalError = Literal["exclude", "stop"]
"""What an unforeseen exception does: exclude its case, or stop the build (``--strict``, and in tests)."""

STRICT_VARIABLE = "BUILDER_STRICT"
"""Environment variable that makes ``stop`` the default."""

NOT_OF_A_CASE = (MemoryError, OSError, ImportError)
"""Faults of the machine, a transport or the installation. They stop the task, and the runner decides what to do."""

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class InternalError:
    """An unforeseen exception, for the private journal.

    Parameters
    ----------
    where
        Keyed name of the case, or a description of what else was left out.
    trace
        The frames and the classes of the exceptions. Messages are left out, because they may quote the archive;
        ``--strict`` shows them.
    """

    where: str
    trace: str


@dataclass
class Faults:
    """What to do about unforeseen exceptions, and how many there were.

    ``note`` is called for each one; a build writes them to its journal.
    """

    action: OnInternalError = "exclude"
    note: Callable[[InternalError], None] = lambda _: None
    count: int = 0

    def add(self, errors: Iterable[InternalError]) -> None:
        """Count and note the errors of what was left out."""
        for error in errors:
            self.count += 1
            self.note(error)


def default_action(environment: Mapping[str, str]) -> OnInternalError:
    """Return ``stop`` if ``BUILDER_STRICT`` is set to anything but 0, otherwise ``exclude``."""
    return "stop" if environment.get(STRICT_VARIABLE, "0") not in ("", "0") else "exclude"


def fault_of_case(error: Exception, *, on_internal_error: OnInternalError = "exclude") -> CaseError:
    """Return the reason for excluding the case in which ``error`` was raised.

    Raises
    ------
    Exception
        ``error`` itself, if it is no fault of a case, or if it is unforeseen and such errors stop the build.
    """
    if isinstance(error, CaseError):
        return error
    damage = None if isinstance(error, (BuilderError, MemoryError)) else damaged_element(error)
    if damage is not None:  # also where pydicom reports bytes in memory that end too early as an OSError
        return CaseError(Reason.UNREADABLE, damage)
    if isinstance(error, (BuilderError, *NOT_OF_A_CASE)):
        raise error
    if on_internal_error == "stop":
        raise error
    detail = f"found {type(error).__name__} in {_place(error)}, expected a sample or a reason; a fault of this program"
    return CaseError(Reason.INTERNAL_ERROR, detail)


def describe(error: BaseException, where: str) -> InternalError:
    """Return the journal entry for an exception."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        frames = "".join(traceback.format_tb(seen.__traceback__))
        parts.append(f"{frames}{type(seen).__module__}.{type(seen).__qualname__}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return InternalError(where, "\nbecause of\n".join(parts))


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame that belongs to this program."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return f"{_PACKAGE.name}/{path.relative_to(_PACKAGE).as_posix()} line {frame.lineno}"
    return "a library"
