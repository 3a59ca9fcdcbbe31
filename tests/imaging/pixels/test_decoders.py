"""The compiled decoders against encoders and decoders of others, and against damaged bytes."""

import copy
import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from builder.decode.format import JPEG_LOSSLESS, RLE, pixel_format
from builder.errors import CaseError, Reason
from builder.imaging.parse import leniently, parse_instance
from builder.imaging.pixels.codestreams import Stated, stated_by_jpeg_2000, stated_by_jpeg_ls
from builder.imaging.pixels.lossless import decode_frame
from builder.imaging.pixels.stored import LOSSY_STREAM, masked, stored_values, stream_notes
from tests import synthetic

Corpus = Callable[[str], Path]

OTHERS = {"rle": (RLELossless, "pydicom"), "jpeg2000": (JPEG2000Lossless, "pylibjpeg")}
ENCODINGS = ("rle", "jpeg_lossless", "jpegls", "jpeg2000")
OWN = {RLE, *JPEG_LOSSLESS, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless}
"""Transfer syntaxes whose frames do not go through pydicom's decoders, or not all of them."""


def image(values: NDArray[np.int64], *, encoding: str, signed: bool = False, bits: int = 16) -> Dataset:
    """One slice with these stored values; some not encoded by gdcm, which writes past its memory on tiny pictures."""
    made = synthetic.mr_series(
        slices=1, shape=values.shape, voxels=values[None].astype(float), signed=signed, bits_stored=bits,
        encoding="explicit" if encoding in OTHERS else encoding,
    )  # fmt: skip
    dataset = made.images[0]
    if encoding in OTHERS:
        syntax, plugin = OTHERS[encoding]
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return dataset


@given(
    rows=st.integers(4, 40), columns=st.integers(4, 40), bits=st.sampled_from([10, 12, 16]),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["noise", "flat", "ramp", "extremes"]), encoding=st.sampled_from(ENCODINGS),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_picture_comes_back(rows: int, columns: int, bits: int, seed: int, kind: str, encoding: str) -> None:
    if encoding == "jpeg2000":  # its encoder halves a picture five times
        rows, columns = rows + 28, columns + 28
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    values = {
        "noise": rng.integers(0, top + 1, (rows, columns)),
        "flat": np.full((rows, columns), seed % (top + 1)),
        "ramp": np.add.outer(np.arange(rows), np.arange(columns)) * 37 % (top + 1),
        "extremes": rng.integers(0, 2, (rows, columns)) * top,
    }[kind]
    assume(encoding != "jpegls" or kind in ("flat", "ramp"))  # the encoder gives up where nothing can be saved
    dataset = image(values, encoding=encoding, bits=bits)
    np.testing.assert_array_equal(stored_values(dataset, pixel_format(dataset))[0], values)


@pytest.mark.parametrize("encoding", ["jpegls", "jpeg2000"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("said", "bits"), [(16, 16), (12, 12), (16, 12), (10, 12), (8, 8), (12, 8)])
def test_streams_that_say_another_precision_or_sign_give_what_pydicom_gives(
    encoding: str, signed: bool, said: int, bits: int
) -> None:
    """``said`` bits in the stream and ``bits`` in the data set, which may be signed where the stream is not."""
    values = np.add.outer(np.arange(64), np.arange(64)) * 37 % (1 << min(said, bits))
    dataset = image(values, encoding=encoding, bits=said)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    form = pixel_format(dataset)
    with leniently():
        theirs = pixel_array(dataset, raw=True)
    np.testing.assert_array_equal(stored_values(dataset, form)[0], masked(theirs, form))


@pytest.mark.parametrize("encoding", ["jpegls", "jpeg2000"])
def test_frames_that_cannot_be_told_apart_here_are_left_to_pydicom(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.add.outer(np.arange(64), np.arange(64)) * 37 % 4096
    dataset = image(values, encoding=encoding)

    def refuse(*_: object) -> None:
        raise CaseError(Reason.UNDECODABLE_PIXELS, "frames")

    monkeypatch.setattr("builder.imaging.pixels.stored.encapsulated_frames", refuse)
    np.testing.assert_array_equal(stored_values(dataset, pixel_format(dataset))[0], values)


@pytest.mark.parametrize(("encoding", "said"), [("jpegls", stated_by_jpeg_ls), ("jpeg2000", stated_by_jpeg_2000)])
def test_what_a_stream_states(encoding: str, said: Callable[[bytes], Stated | None]) -> None:
    (frame,) = generate_frames(image(np.arange(1443).reshape(37, 39), encoding=encoding).PixelData, number_of_frames=1)
    assert said(frame) == Stated(37, 39, 1, 16, None if encoding == "jpegls" else False)
    assert said(frame[:8]) is None
    assert said(b"\0" + frame) is None


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="dcmtk is not installed")
@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_is_decoded_as_dcmtk_encodes_it(predictor: int, corpus: Corpus, tmp_path: Path) -> None:
    source = sorted((corpus("segmentation") / "lidc_0314_slab" / "ct").iterdir())[3]
    target = tmp_path / "encoded.dcm"
    options = ["--encode-lossless", "--selection-value", str(predictor)]
    subprocess.run(["dcmcjpeg", *options, str(source), str(target)], check=True, capture_output=True)
    dataset = dcmread(target)
    assert dataset.file_meta.TransferSyntaxUID in JPEG_LOSSLESS
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    values = decode_frame(frame, pixel_format(dataset))
    np.testing.assert_array_equal(values.view(np.int16), pixel_array(dcmread(source)))


def test_the_corpus_decodes_as_pydicom_decodes_it(corpus: Corpus) -> None:
    compared = 0
    for path in sorted(p for p in corpus("odd").rglob("*") if p.is_file()):
        if path.suffix in {".nii", ".gz", ".json", ".md", ".txt"} or "malformed" in path.parts:
            continue
        try:
            dataset = parse_instance(path.read_bytes())
            with leniently():
                form = pixel_format(dataset)
            if form.samples != 1 or form.syntax not in OWN:
                continue
            ours = stored_values(dataset, form)
        except CaseError:
            continue
        with leniently():
            np.testing.assert_array_equal(ours, pixel_array(dataset, raw=True).reshape(ours.shape))
        compared += 1
    assert compared >= 12


@cache
def sound(encoding: str) -> tuple[Dataset, bytes]:
    """A slice, and its one frame."""
    whole = image(np.arange(1600).reshape(40, 40) * 7 % 4096, encoding=encoding)
    (frame,) = generate_frames(whole.PixelData, number_of_frames=1)
    return whole, frame


@given(cut=st.integers(0, 1600), flip=st.integers(0, 1600), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damaged_bytes_give_a_reason_or_a_picture(encoding: str, cut: int, flip: int, value: int) -> None:
    whole, frame = sound(encoding)
    damaged = bytearray(frame)
    damaged[flip % len(damaged)] = value
    dataset = copy.deepcopy(whole)
    dataset.PixelData = encapsulate([bytes(damaged[: max(2, len(damaged) - cut)])])
    form = pixel_format(dataset)
    try:
        assert stored_values(dataset, form).shape == (1, 40, 40)
    except CaseError as error:
        assert error.reason == Reason.UNDECODABLE_PIXELS  # noqa: PT017


@pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="dcmtk is not installed")
def test_extended_jpeg_of_twelve_bits_is_decoded_as_dcmtk_decodes_it(corpus: Corpus, tmp_path: Path) -> None:
    source = corpus("odd") / "odd_singles" / "orthanc" / "TransferSyntaxes" / "1.2.840.10008.1.2.4.51.dcm"
    subprocess.run(["dcmdjpeg", str(source), str(tmp_path / "decoded.dcm")], check=True, capture_output=True)
    dataset = parse_instance(source.read_bytes())
    with leniently():
        ours = stored_values(dataset, pixel_format(dataset))[0]
        np.testing.assert_array_equal(ours, pixel_array(dcmread(tmp_path / "decoded.dcm")))


def test_a_baseline_stream_stated_to_be_lossless_is_decoded_and_noted(corpus: Corpus) -> None:
    dataset = parse_instance((corpus("odd") / "dcmjs_misc" / "sample-op.dcm").read_bytes())
    form = pixel_format(dataset)
    assert form.syntax in JPEG_LOSSLESS
    assert stream_notes(dataset, form) == (LOSSY_STREAM,)
    with leniently():
        ours = stored_values(dataset, form)[0]
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    np.testing.assert_array_equal(ours, np.asarray(Image.open(io.BytesIO(frame))))
    honest = image(np.arange(400).reshape(20, 20) % 256, encoding="jpeg_lossless", bits=16)
    assert stream_notes(honest, pixel_format(honest)) == ()


def test_restart_intervals_begin_a_new_prediction() -> None:
    half = np.add.outer(np.arange(12), np.arange(16)) * 37 % 4096
    dataset = image(half, encoding="jpeg_lossless")
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    frame = frame.rstrip(b"\0")
    assert frame.endswith(b"\xff\xd9")
    sof, sos = frame.index(b"\xff\xc3"), frame.index(b"\xff\xda")
    start = sos + 2 + int.from_bytes(frame[sos + 2 : sos + 4], "big")
    header = bytearray(frame[:sos])
    header[sof + 5 : sof + 7] = (24).to_bytes(2, "big")
    interval = b"\xff\xdd\x00\x04" + (12 * 16).to_bytes(2, "big")
    coded = frame[start:-2]
    joined = bytes(header) + interval + frame[sos:start] + coded + b"\xff\xd0" + coded + b"\xff\xd9"
    form = replace(pixel_format(dataset), rows=24)
    np.testing.assert_array_equal(decode_frame(joined, form), np.vstack([half, half]))
