"""The parse boundary: any exception from a parser of outside bytes is reported as a fault of those bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element

from builder.errors import BuilderError, CaseError, Reason


@contextmanager
def parsing(reason: Reason, what: str) -> Iterator[None]:
    """Raise CaseError with ``reason`` for any exception that a parser raises on bytes in memory.

    Every class is caught because parsers document few of the exceptions that damaged bytes can trigger, so no list of
    classes would be complete. MemoryError passes, because it says nothing about the bytes. Never read from a source
    inside this block: its OSError would be reported as a parse error.

    Parameters
    ----------
    what
        Which parser failed at what. Only the class of the exception is added, because its message may quote the file.
    """
    try:
        yield
    except (BuilderError, MemoryError):
        raise
    except Exception as error:
        raise CaseError(reason, f"{what} ({type(error).__name__})") from error


@contextmanager
def elements_as(reason: Reason) -> Iterator[None]:
    """Raise CaseError with ``reason`` when a data element turns out to be damaged.

    pydicom converts the value of an element on first access, long after it parsed the file. This block reports such a
    late error in the same way as a parse error, and lets every other exception pass.
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
    """Return what pydicom could not convert, or None when ``error`` did not come from converting an element.

    pydicom raises many classes here, so the traceback is searched for its converter.
    """
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is convert_raw_data_element.__code__:
            raw = trace.tb_frame.f_locals.get("raw")
            tag = raw.tag if isinstance(raw, RawDataElement) else None
            name = "a private element" if tag is None or tag.is_private else keyword_for_tag(tag) or str(tag)
            return f"found a value of {name} that cannot be read ({type(error).__name__}), expected one of its VR"
        trace = trace.tb_next
    return None
