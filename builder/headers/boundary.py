"""The parse boundary: whatever a parser of bytes from outside raises is a fault of those bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element

from builder.errors import BuilderError, CaseError, Reason


@contextmanager
def parsing(reason: Reason, what: str) -> Iterator[None]:
    """Raise CaseError with ``reason`` for anything that a parser raises on bytes in memory.

    Parsers document few of their exceptions, and damaged bytes reach the others: a list of classes is never complete.
    Only MemoryError passes, because it says nothing about the bytes. Code that reads from a source must not run in
    here: its OSError would be taken for a complaint of the parser.

    Parameters
    ----------
    what
        Which parser failed at what. The message of the exception may quote the file, so only its class is added.
    """
    try:
        yield
    except (BuilderError, MemoryError):
        raise
    except Exception as error:
        raise CaseError(reason, f"{what} ({type(error).__name__})") from error


@contextmanager
def elements_as(reason: Reason) -> Iterator[None]:
    """Raise CaseError with ``reason`` where a data element turns out to be damaged.

    pydicom converts the value of an element when somebody first asks for it, long after the file was parsed. This
    brings such a late complaint to the same end as an early one, and lets every other exception pass.
    """
    try:
        yield
    except CaseError:
        raise
    except Exception as error:
        found = damaged_element(error)
        if found is None or isinstance(error, MemoryError):
            raise
        raise CaseError(reason, found) from error


def damaged_element(error: BaseException) -> str | None:
    """What pydicom could not convert, where ``error`` was raised while it converted an element; else None."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is convert_raw_data_element.__code__:
            raw = trace.tb_frame.f_locals.get("raw")
            tag = raw.tag if isinstance(raw, RawDataElement) else None
            name = "a private element" if tag is None or tag.is_private else keyword_for_tag(tag) or str(tag)
            return f"found a value of {name} that cannot be read ({type(error).__name__}), expected one of its VR"
        trace = trace.tb_next
    return None
