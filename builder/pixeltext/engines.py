"""Engines that read text in a picture, on one thread and without a network. What they read never leaves this module."""

import csv
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from PIL import Image

from builder.errors import MissingExtra, ResourceError
from builder.pixeltext.views import Picture

Box = tuple[int, int, int, int]
"""(row_from, row_to, column_from, column_to), half-open."""

LONGEST_S = 120
"""Seconds after which Tesseract is given up for one picture."""


@dataclass(frozen=True)
class Reading:
    """A piece of text that an engine read: where, how surely, and how many different letters and digits it has."""

    box: Box
    score: float
    characters: int


class Engine(Protocol):
    """Reads pictures. ``name`` goes into the table of what was found."""

    @property
    def name(self) -> str:
        """Name and version of the engine."""

    def read(self, picture: Picture) -> list[Reading]:
        """Return every piece of text, however unsure."""


@cache
def rapid() -> "Engine":
    """Return RapidOCR with the models that its wheel holds (PP-OCRv6, Apache-2.0), loaded once a process.

    Raises
    ------
    MissingExtra
        Without the extra ``text``.
    """
    try:
        import cv2
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MissingExtra("rapidocr", "text") from error
    cv2.setNumThreads(1)
    options: dict[str, Any] = {
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Global.log_level": "critical",
        "Global.text_score": 0.0,  # the score is returned, and judged by ``finding``
        "Det.limit_side_len": 32,  # the caller has enlarged the picture
        "Det.box_thresh": 0.3,
    }
    return _Rapid(RapidOCR(params=options))


class _Rapid:
    def __init__(self, reader: Any) -> None:
        from importlib.metadata import version

        self.name = f"rapidocr {version('rapidocr')}"
        self._reader, self._reading = reader, threading.Lock()

    def read(self, picture: Picture) -> list[Reading]:
        with self._reading:
            said = self._reader(np.repeat(picture[..., None], 3, axis=-1), use_det=True, use_cls=True, use_rec=True)
        if said.boxes is None or said.txts is None:
            return []
        return [
            Reading(_around(corners), float(score), characters_in(text))
            for corners, text, score in zip(said.boxes, said.txts, said.scores, strict=True)
        ]


def _around(corners: Any) -> Box:
    """Return the box around four (column, row) corners."""
    left, top = np.floor(np.min(corners, axis=0)).astype(int)
    right, bottom = np.ceil(np.max(corners, axis=0)).astype(int)
    return max(int(top), 0), int(bottom), max(int(left), 0), int(right)


@cache
def tesseract() -> "Engine":
    """Return Tesseract as a second opinion.

    Raises
    ------
    ResourceError
        If there is no command ``tesseract`` on the path.
    """
    command = shutil.which("tesseract")
    if command is None:
        raise ResourceError(
            "found no command tesseract on the path, expected one for a second opinion; install it (Debian: apt-get "
            "install tesseract-ocr), or leave out --second-opinion"
        )
    first = _output([command, "--version"], b"").split("\n")[0]
    return _Tesseract(command, first.strip())


@dataclass(frozen=True)
class _Tesseract:
    command: str
    name: str

    def read(self, picture: Picture) -> list[Reading]:
        sink = io.BytesIO()
        Image.fromarray(picture).save(sink, format="PNG", compress_level=0)
        said = _output([self.command, "stdin", "stdout", "--psm", "11", "tsv"], sink.getvalue())
        return list(_words(said))


def _words(table: str) -> Iterator[Reading]:
    """Yield the words of Tesseract's table (level 5), with its confidence as a part of one."""
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == "5":
            left, top, width, height = (int(row[name]) for name in ("left", "top", "width", "height"))
            box = (top, top + height, left, left + width)
            yield Reading(box, float(row["conf"]) / 100, characters_in(row["text"] or ""))


def _output(command: list[str], given: bytes) -> str:
    """Return what Tesseract says, through pipes: no picture is written to the disk."""
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=True, timeout=LONGEST_S, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        raise ResourceError(f"tesseract failed ({type(error).__name__}), expected what it reads in a picture") from None
    return done.stdout.decode("utf-8", "replace")


def characters_in(text: str) -> int:
    """Return how many different letters and digits a text has."""
    return len({letter for letter in text.casefold() if letter.isalnum()})
