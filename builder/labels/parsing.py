"""The boundary where label objects are parsed: whatever a parser raises there refuses the label, with a reason."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import CaseError, Reason

DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What parsers of label objects raise on damaged bytes. Memory, transport and files are never at fault here."""


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turn what a parser raises into a refusal that says which kind of object did not parse.

    Only code that takes values out of an object belongs inside: a fault of our own arithmetic must stay visible.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE, or the refusal that the code inside raised.
    """
    try:
        yield
    except DAMAGE as error:
        detail = f"found {what} that does not parse ({type(error).__name__})"
        raise CaseError(Reason.LABEL_UNREADABLE, detail) from error
