"""Keep what benchmarks find, so that the figures of two commits can be compared.

A script calls ``figure`` beside each line that it prints. Nothing is kept unless BUILDER_FIGURES names a file, as
``everything.py`` does for the scripts that it runs.
"""

import json
import os
from pathlib import Path
from typing import Final, Literal

VARIABLE: Final = "BUILDER_FIGURES"


def figure(name: str, value: float, unit: str, *, better: Literal["less", "more"] = "less") -> None:
    """Append one line of JSON: what was measured, its value and unit, and which direction is better."""
    if place := os.environ.get(VARIABLE):
        with Path(place).open("a") as file:
            file.write(json.dumps({"name": name, "value": float(value), "unit": unit, "better": better}) + "\n")
