"""Write pictures whose truth is known: a bright square, a bright cross, or nothing, in noise."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builder.errors import SpecError, counted

SIDE: Final = 64
"""Rows and columns of a picture."""

FORMS: Final = ("square", "cross", "nothing")


@dataclass(frozen=True)
class PicturesSummary:
    """What was written where."""

    folder: Path
    pictures: int

    @property
    def text(self) -> str:
        """A line for people."""
        what = "of one person each, with masks, boxes, classes and reports"
        return f"{self.folder}: {counted(self.pictures, 'picture')} {what}"

    def facts(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {"folder": str(self.folder), "pictures": self.pictures}


def write_pictures(folder: Path, *, patients: int, seed: int) -> PicturesSummary:
    """Write ``images/<patient>.png``, ``masks/<patient>.png``, ``findings.csv`` and ``reports.jsonl``.

    A row of the table has the class of the picture and the box around the form, in pixels from the corner of the first
    one; a picture with nothing in it has an empty box. All of it follows from the seed.

    Raises
    ------
    SpecError
        If the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"--to: found files in {folder}, expected a new or empty folder")
    random, rows, reports = np.random.default_rng(seed), ["image,form,x,y,width,height"], []
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    for number in range(patients):
        form, name = FORMS[number % len(FORMS)], f"P{number:05d}.png"
        size = SIDE // 4
        row, column = (int(n) for n in random.integers(0, SIDE - size, 2))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[row : row + size, column : column + size] = _drawn(form, size)
        pixels = random.integers(0, 60, mask.shape, np.uint8) + 150 * mask
        for place, values in (("images", pixels), ("masks", mask)):
            (folder / place / name).write_bytes(_png(values))
        rows.append(f"{name},{form},{f'{column},{row},{size},{size}' if mask.any() else ',,,'}")
        reports.append(json.dumps({"image": name, "text": _sentence(form)}))
    (folder / "findings.csv").write_text("\n".join(rows) + "\n")
    (folder / "reports.jsonl").write_text("\n".join(reports) + "\n")
    return PicturesSummary(folder, patients)


def _drawn(form: str, size: int) -> NDArray[np.uint8]:
    """Return a form that fills (size, size) pixels; the arms of a cross are a quarter as wide."""
    rows, columns = np.indices((size, size))
    middle = slice(3 * size // 8, size - 3 * size // 8)
    arm = np.isin(rows, np.arange(size)[middle]) | np.isin(columns, np.arange(size)[middle])
    return np.asarray({"square": np.ones_like(arm), "cross": arm, "nothing": np.zeros_like(arm)}[form], np.uint8)


def _sentence(form: str) -> str:
    return "There is nothing but noise." if form == "nothing" else f"There is a bright {form} on a dark ground."


def _png(values: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()
