"""Reading the header of any DICOM file with pydicom, within limits on size and work."""

import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, cast

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.headers.references import References, is_annotation, references
from builder.headers.values import PRESENT, WANTED, NotAValue, cell, joined_identity
from builder.headers.views import VIEW_CODE_SEQUENCE, coded_view
from builder.model.tables import IDENTITY

HEADER_LIMIT: Final = 256 * 2**20
"""Maximum number of bytes read from a header, or from an inflated data set."""

READ_LIMIT: Final = 4_000_000
"""Maximum number of reads that pydicom may ask for. This bounds the work one file can cost. A count gives the same
verdict on every machine; a time limit would not."""

ITEM_LIMIT: Final = 400_000
"""Maximum number of sequence items in a file. The largest known segmentations have half as many. pydicom takes 50 us
for each item, even for an empty one."""

EMPTY_ITEM_LIMIT: Final = 50_000
"""Maximum number of items without a value: nothing in them, or one element of length 0. Real objects have a few. Empty
items are the cheapest way to cost a reader time, 20 s for 3 MB of them, so they have a limit of their own."""

_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_EMPTY_ITEMS = (
    re.compile(rb"\xfe\xff\x00\xe0(?:[\x00\x08]\x00\x00\x00|\xff{4}(?:.{6}\x00\x00)?\xfe\xff\x0d\xe0)", re.DOTALL),
    re.compile(rb"\xff\xfe\xe0\x00(?:\x00\x00\x00[\x00\x08]|\xff{4}(?:.{6}\x00\x00)?\xff\xfe\xe0\x0d)", re.DOTALL),
)
_BLOCK = 64 * 2**10
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_TAGS = [*(w.tag for w in WANTED), VIEW_CODE_SEQUENCE]
_KIND_TAGS = [0x00080016, 0x00080060]
_LONG_TYPES = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True)
class Header:
    """The contents of a DICOM file's header.

    Parameters
    ----------
    values
        Maps column names to values, for the header columns that have one.
    references
        What an annotation object points to; empty for images.
    notes
        ``column: what was wrong`` for each value that could not be used. The value itself is left out.
    sha256
        Digest of the bytes before the Pixel Data element, or of the whole file when it has none. For a deflated file,
        the digest covers the file meta information and the inflated bytes.
    pixel_offset, pixel_length
        Offset and length in bytes of the value of Pixel Data (7FE0,0010). Set only when the pixels are native and the
        file is not deflated.
    directory
        True for a DICOMDIR (PS3.10 section 8).
    """

    values: Mapping[str, Any]
    sha256: str
    transfer_syntax_uid: str | None = None
    references: References = field(default_factory=References)
    notes: tuple[str, ...] = ()
    pixel_offset: int | None = None
    pixel_length: int | None = None
    directory: bool = False


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """Read the header of one DICOM file, with or without preamble, in any transfer syntax.

    Parameters
    ----------
    read
        ``read(start, length)`` returns bytes of the file.
    size
        Length of the file in bytes.

    Raises
    ------
    CaseError
        UNREADABLE when the header cannot be parsed or is cut off, TOO_LARGE when it is over the limits.
    OSError
        When ``read`` raises it; it is passed on unchanged.
    """
    window = Window(read, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns about values it reads leniently; the notes record them
        try:
            with parsing(Reason.UNREADABLE, "pydicom cannot parse the header"):
                return _header(window)
        except CaseError:
            if window.fault is not None:  # the source failed, not pydicom and not the file
                raise window.fault from None
            raise


class ItemCount:
    """Counts the sequence items of a file as its bytes come in, in either byte order.

    pydicom would parse a sequence of undefined length at once and one of defined length on first access, so the bytes
    are counted before either. Pixel bytes that happen to look like an item tag are counted too, so the count may be a
    little too high.
    """

    def __init__(self) -> None:
        self._items = 0
        self._empty = 0

    def add(self, content: bytes) -> None:
        """Count the items in ``content``. Raise CaseError TOO_LARGE when a limit is passed."""
        items = max(content.count(tag) for tag in _ITEMS)
        self._items += items
        if self._items > ITEM_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"found more than {ITEM_LIMIT} items of sequences, expected at most that")
        if items:
            self._empty += max(sum(1 for _ in empty.finditer(content)) for empty in _EMPTY_ITEMS)
        if self._empty > EMPTY_ITEM_LIMIT:
            found = f"found more than {EMPTY_ITEM_LIMIT} items of sequences that hold no value"
            raise CaseError(Reason.TOO_LARGE, f"{found}, expected at most that")


def too_many_elements() -> CaseError:
    """Return the error to raise when a file has more elements than ``READ_LIMIT`` allows."""
    return CaseError(Reason.TOO_LARGE, f"found more than {READ_LIMIT // 2} elements, expected at most that")


class Window:
    """A seekable stream for pydicom that fetches blocks when they are needed and counts the reads.

    ``fault`` keeps the OSError that reading the file raised, because pydicom may mistake it for the end of the file.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self.size = size
        self._read = read
        self._data = b""
        self._position = 0
        self._reads = 0
        self._items = ItemCount()
        self.fault: OSError | None = None

    def read(self, length: int = -1) -> bytes:
        """Read up to ``length`` bytes. Raise CaseError TOO_LARGE when a limit is reached."""
        self._reads += 1
        if self._reads > READ_LIMIT:
            raise too_many_elements()
        start = self._position
        end = self.size if length < 0 else start + length
        if end > len(self._data):
            end = min(end, self.size)
            self._fetch(end)
        if end <= start:
            return b""
        self._position = end
        return self._data[start:end]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which may lie past the end of the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the current position."""
        return self._position

    def before(self, end: int) -> bytes:
        """Return the first ``end`` bytes of the file."""
        self._fetch(end)
        return self._data[:end]

    def _fetch(self, end: int) -> None:
        if end > HEADER_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"the header is longer than {HEADER_LIMIT:,} bytes")
        while len(self._data) < end:
            start = len(self._data)
            wanted = min(max(_BLOCK, end - start, start), self.size - start, HEADER_LIMIT - start)
            try:
                part = self._read(start, wanted)
            except OSError as error:
                self.fault = error
                raise
            if len(part) < wanted:
                raise CaseError(Reason.SOURCE_CHANGED, "the file is shorter than its listing said")
            self._items.add(part)
            self._data += part


def _header(window: Window) -> Header:
    deflated = _deflated_start(window)
    if deflated is None:
        meta = b""
        stream = window
        parse = _parse
    else:
        meta = window.before(deflated)
        inflated = _inflated(window, deflated)
        stream = Window(lambda start, length: inflated[start : start + length], len(inflated))
        parse = _parse_inflated
    annotating = is_annotation(*_kind(parse(stream, _KIND_TAGS, _StopAfter(0x00080060))))
    stop = _StopAfter()
    dataset = parse(stream, None if annotating else _TAGS, stop)
    end = stream.tell() if stop.reached else max(stream.tell(), stream.size)  # beyond the end of a truncated file
    if not stop.reached and stream.tell() < stream.size:
        raise CaseError(Reason.UNREADABLE, "pydicom cannot parse the header to its end")
    if end > stream.size:
        raise CaseError(Reason.UNREADABLE, "the file ends inside an element of its header")
    offset, length, notes = _pixel_extent(stream, dataset, end)
    values, more = _values(dataset)
    if not values.get("view_position"):
        view, why = _coded_view(dataset)
        values |= {"view_position": view} if view else {}
        more = (*more, *why)
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    return Header(
        values=values,
        sha256=hashlib.sha256(meta + stream.before(end)).hexdigest(),
        transfer_syntax_uid=str(syntax).strip(" \0") or None if syntax else None,
        references=references(dataset) if annotating else References(),
        notes=(*notes, *more),
        pixel_offset=offset if deflated is None else None,
        pixel_length=length if deflated is None else None,
        directory=_is_directory(dataset),
    )


def _parse(stream: Window, tags: list[int] | None, stop: "_StopAfter") -> Dataset:
    """Parse the elements in ``tags``, or all elements, up to where ``stop`` says."""
    stream.seek(0)
    return read_partial(cast(BinaryIO, stream), stop, None, True, tags)


def _parse_inflated(stream: Window, tags: list[int] | None, stop: "_StopAfter") -> Dataset:
    """Do the same as ``_parse`` for the inflated bytes of a deflated file."""
    stream.seek(0)
    dataset = read_dataset(cast(BinaryIO, stream), False, True, stop_when=stop, specific_tags=tags)
    dataset.set_original_encoding(False, True, None)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


@dataclass
class _StopAfter:
    """Stop at the first pixel element, or at the first element whose tag is above ``last``."""

    last: int = 0xFFFFFFFF
    reached: bool = False

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        self.reached = int(tag) in _PIXELS or int(tag) > self.last
        return self.reached


def _kind(dataset: Dataset) -> tuple[str | None, str | None]:
    """Return the SOP Class UID and the Modality."""
    values, _ = _values(dataset)
    return values.get("sop_class_uid"), values.get("modality")


def _deflated_start(window: Window) -> int | None:
    """Return where the deflated data set begins, or None for a file that is not deflated (PS3.10 section 7.1)."""
    head = window.before(min(window.size, 132))
    if head[128:132] != b"DICM":
        return None
    start = 132
    deflated = False
    while (element := window.before(min(window.size, start + 8))[start:]) and element[:2] == b"\x02\0":
        if len(element) < 8:
            return None
        length = int.from_bytes(element[6:8], "little")
        start += 8
        if element[4:6] in _LONG_TYPES:
            length = int.from_bytes(window.before(min(window.size, start + 4))[start:], "little")
            start += 4
        if start + length > window.size:
            return None
        if element[2:4] == b"\x10\0":
            syntax = window.before(start + length)[start:].strip(b" \0")
            deflated = syntax == DeflatedExplicitVRLittleEndian.encode()
        start += length
    return start if deflated else None


def _inflated(window: Window, start: int) -> bytes:
    machine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    data = machine.decompress(window.before(min(window.size, HEADER_LIMIT))[start:], HEADER_LIMIT)
    if machine.unconsumed_tail:
        raise CaseError(Reason.TOO_LARGE, f"the deflated data set is longer than {HEADER_LIMIT:,} bytes")
    if not machine.eof:
        raise CaseError(Reason.UNREADABLE, "the deflated data set is cut off")
    return data


def _pixel_extent(stream: Window, dataset: Dataset, end: int) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Return offset and length of native Pixel Data, with a note when the file ends before they do."""
    stream.seek(end)
    head = stream.read(12)
    if len(head) < 8:
        return None, None, ()
    implicit, little = dataset.original_encoding
    order = "little" if little else "big"
    long = not implicit and head[4:6] in _LONG_TYPES
    skip, raw = (12, head[8:12]) if long else (8, head[4:8] if implicit else head[6:8])
    length = int.from_bytes(raw, "little" if order == "little" else "big")
    if length == 0xFFFFFFFF or head[:4] not in (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10"):
        return None, None, ()
    cut = end + skip + length > stream.size
    return end + skip, length, ("pixel_data: cut off",) if cut else ()


def _values(dataset: Dataset) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the cells by column name, with notes on the values that could not be used."""
    encodings = _encodings(dataset)
    values: dict[str, Any] = {}
    notes = []
    for wanted in WANTED:
        if wanted.tag not in dataset:
            continue
        if wanted.vr == "SQ":
            values[wanted.column.name] = PRESENT
            continue
        element = dataset.get_item(wanted.tag)
        raw = getattr(element, "value", None)
        if not isinstance(raw, bytes):
            if raw not in (None, ""):
                notes.append(f"{wanted.column.name}: not a plain value")
            continue
        vr = str(getattr(element, "VR", None) or wanted.vr)
        if wanted.column.name.startswith("pixel_padding") and values.get("pixel_representation") == 1 and vr != "SS":
            vr = "SS"
        little = bool(getattr(element, "is_little_endian", True))
        try:
            value = cell(wanted, raw, vr=vr, little=little, encodings=encodings)
        except NotAValue as error:
            notes.append(f"{wanted.column.name}: {error}")
            continue
        if value is not None:
            values[wanted.column.name] = value
    who = joined_identity(values)
    return values if who is None else values | {IDENTITY.name: who}, tuple(notes)


def _coded_view(dataset: Dataset) -> tuple[str | None, tuple[str, ...]]:
    """Return the view that a code states. Damage to it costs only the view: a build removes the sequence unread."""
    try:
        with parsing(Reason.UNREADABLE, "pydicom cannot parse the view"):
            return coded_view(dataset), ()
    except CaseError:
        return None, ("view_position: its code sequence cannot be parsed",)


def _encodings(dataset: Dataset) -> list[str]:
    """Return the Python codecs of the Specific Character Set (0008,0005); Latin-1 when it is missing or unknown."""
    if 0x00080005 not in dataset:
        return ["iso8859"]
    raw = getattr(dataset.get_item(0x00080005), "value", None)
    text = raw.decode("latin-1") if isinstance(raw, bytes) else str(raw or "")
    names = [part.strip(" \0") for part in text.split("\\")]
    try:
        return list(convert_encodings(names)) or ["iso8859"]
    except (LookupError, ValueError):
        return ["iso8859"]


def _is_directory(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", {})
    return bool(meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)
