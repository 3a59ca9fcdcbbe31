"""Measure how much text is found: ``python -m tests.textscore --corpus FOLDER --out FILE`` (``make text-score``)."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from builder.pixeltext.engines import rapid, tesseract
from builder.pixeltext.finding import find_text
from tests.textscore.drawing import draw, real_planes
from tests.textscore.scoring import Scored, score, table


def main() -> None:
    """Draw, find, compare; what is measured is kept, so that a run that was cut off goes on."""
    parser = argparse.ArgumentParser(prog="python -m tests.textscore", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with unpacked archives of real files")
    parser.add_argument("--out", type=Path, required=True, help="file of what is measured, a line a picture")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--second-opinion", action="store_true", help="Tesseract beside RapidOCR")
    options = parser.parse_args()
    started = time.perf_counter()
    planes = real_planes([p for p in sorted(options.corpus.iterdir()) if p.is_dir()], most=300)
    engines = [rapid(), *([tesseract()] if options.second_opinion else [])]
    print(f"{len(planes)} real planes, {time.perf_counter() - started:.0f} s", flush=True)
    options.out.touch()
    done = [json.loads(line) for line in options.out.read_text().splitlines()]
    began = time.perf_counter()
    with options.out.open("a") as file:
        for number in range(len(done), options.pictures):
            if time.perf_counter() - began > options.seconds:
                break
            drawn = draw(number, planes)
            boxes = [found.box for found in find_text(drawn.pixels, engines)]
            one = asdict(score(drawn.traits, drawn.ink, boxes, drawn.pixels.shape))
            done.append({"number": number, **one})
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    spent = time.perf_counter() - began
    print(f"{len(done)} pictures; {spent:.0f} s now")
    print(table([Scored(one["traits"], tuple(one["inside"]), one["blanked"]) for one in done]))


if __name__ == "__main__":
    main()
