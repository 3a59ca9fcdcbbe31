"""Decoding with gdcm in a process of its own, because a damaged stream can make gdcm abort the process that it runs in.

gdcm is pydicom's first choice for JPEG, JPEG-LS and JPEG 2000. Its exceptions on streams that contradict themselves do
not reach Python but end the process (seen with gdcm 3.2.6), and no check of the markers proves that a stream is free of
them. Here such a death costs the instance at hand. The process is started on first use and reused.
"""

import atexit
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydicom.pixels import get_decoder

from builder.decode.apart import Apart, Died
from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing

Argument = TypeVar("Argument")

_LOCK = threading.Lock()
_PROCESSES: dict[int, Apart] = {}
"""The process of each caller by its process id, because a forked process must not share the pipes of its parent."""

PREFERRED = {
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # lossless: every decoder gives the same values
}
"""pydicom's plugin by transfer syntax, where the one that it tries first, gdcm, is not the fastest."""


@dataclass(frozen=True)
class Encoded:
    """Pixel Data of an instance or of one frame, with pydicom's options; ``raw`` keeps colours as they are stored."""

    syntax: str
    content: bytes
    options: dict[str, Any]
    raw: bool
    plugin: str = ""


def decode_encoded(encoded: Encoded) -> NDArray[Any]:
    """Decode all frames with pydicom, in the other process where it would try gdcm. May raise CaseError."""
    with parsing(Reason.UNDECODABLE_PIXELS, "no decoder reads the transfer syntax"):
        available = get_decoder(encoded.syntax).available_plugins
    plugin = PREFERRED.get(encoded.syntax, "")
    if plugin in available:
        return decode_by_pydicom(replace(encoded, plugin=plugin))
    return decode_apart(decode_by_pydicom, encoded) if "gdcm" in available else decode_by_pydicom(encoded)


def decode_by_pydicom(encoded: Encoded) -> NDArray[Any]:
    """Decode all frames in this process. May raise CaseError UNDECODABLE_PIXELS."""
    decoder = get_decoder(encoded.syntax)
    with warnings.catch_warnings(), parsing(Reason.UNDECODABLE_PIXELS, "the decoder failed"):
        warnings.simplefilter("ignore")  # pydicom warns about lengths and padding that are checked elsewhere
        values: NDArray[Any] = decoder.as_array(
            encoded.content, raw=encoded.raw, decoding_plugin=encoded.plugin, **encoded.options
        )[0]
        return values


def decode_apart(decode: Callable[[Argument], NDArray[Any]], argument: Argument) -> NDArray[Any]:
    """Call a decoder in the other process.

    Raises
    ------
    CaseError
        What the decoder raises, or UNDECODABLE_PIXELS when its process died.
    MemoryError
        The process was killed, as the system does when memory runs out; that says nothing about the stream.
    """
    with _LOCK:
        process = _PROCESSES.get(os.getpid()) or _new_process()
        try:
            values: NDArray[Any] = process.call(decode, argument)
        except Died as death:
            if death.status == -signal.SIGKILL:
                raise MemoryError("the process that decodes with gdcm was killed") from None
            detail = "found a stream on which gdcm ends its process, expected pixels"
            raise CaseError(Reason.UNDECODABLE_PIXELS, detail) from None
    return values


def _new_process() -> Apart:
    """Make ready the process of this caller, which ends with it."""
    process = _PROCESSES[os.getpid()] = Apart(messages=subprocess.DEVNULL)
    atexit.register(process.__exit__, None, None, None)
    return process
