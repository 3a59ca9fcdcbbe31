"""gdcm runs in a process of its own: a stream that ends that process is refused, and costs nothing else."""

import os
import signal
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from builder.decode.format import pixel_format
from builder.decode.fragile import decode_apart
from builder.errors import CaseError, Reason
from builder.imaging.pixels.stored import stored_values
from builder.labels.frames import Frames, frame_pixels
from tests import synthetic

JPEG = bytes.fromhex("ffd8ffc0001108000800080301220002110103110100ffd9")
J2K = bytes.fromhex("ff4fff510029000000000008000000080000000000000000000000080000000800000000000000000001070101")
HEADERS = {"90": J2K, "91": J2K}
"""Frame headers of 8 x 8 pixels, after which nothing follows."""


def abort(argument: int) -> Any:
    os.abort()


def be_killed(argument: int) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def number(argument: int) -> Any:
    return np.array([argument, os.getpid()])


def test_a_decoder_that_aborts_costs_its_stream_only() -> None:
    first = decode_apart(number, 1)
    with pytest.raises(CaseError) as caught:
        decode_apart(abort, 2)
    assert caught.value.reason is Reason.UNDECODABLE_PIXELS
    after, again = decode_apart(number, 3), decode_apart(number, 4)
    assert [first[0], after[0], again[0]] == [1, 3, 4]
    assert len({os.getpid(), int(first[1]), int(after[1])}) == 3
    assert after[1] == again[1]  # the process is started once


def test_a_process_that_is_killed_is_no_fault_of_the_stream() -> None:
    with pytest.raises(MemoryError):
        decode_apart(be_killed, 1)


def test_a_forked_process_has_a_decoder_of_its_own() -> None:
    mine = int(decode_apart(number, 1)[1])
    code = os.fork()
    if code == 0:
        os._exit(int(decode_apart(number, 1)[1]) == mine)
    assert os.waitpid(code, 0)[1] == 0


class Reached(BaseException):
    """Not caught by pydicom, as a death would not be."""


def reach(*_: Any) -> Any:
    raise Reached


@pytest.mark.parametrize("number", ["50", "51", "57", "70", "80", "81", "90", "91"])
@pytest.mark.parametrize(("samples", "bits"), [(1, 8), (1, 16), (3, 8), (3, 16)])
def test_no_stream_reaches_gdcm_in_this_process(
    number: str, samples: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header without pixels, so that every decoder is tried."""
    syntax = f"1.2.840.10008.1.2.4.{number}"
    monkeypatch.setitem(get_decoder(syntax)._available, "gdcm", reach)
    monkeypatch.setattr("gdcm.Image", reach)
    image = synthetic.ct_series(slices=1, shape=(8, 8)).images[0]
    image.SamplesPerPixel, image.PhotometricInterpretation = samples, "RGB" if samples == 3 else "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PlanarConfiguration = bits, bits, bits - 1, 0
    image.PixelData = encapsulate([HEADERS.get(number, JPEG)])
    image.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(CaseError):
        stored_values(image, pixel_format(image))
    with pytest.raises(CaseError):
        list(frame_pixels(image, Frames((), np.zeros((3, 2)), (8, 8), None, (), 1), indices=[0]))
