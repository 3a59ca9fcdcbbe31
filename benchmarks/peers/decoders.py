"""Seconds of processor time in which other decoders get through the frames of a series, as one line of JSON.

    python decoders.py FOLDER SYNTAX [--repeats 3]

One thread, best of several runs. ``imagecodecs`` gets bare frames; ``dicomsdl`` reads the files.
"""

import argparse
import json
import time
from pathlib import Path

import dicomsdl
import imagecodecs
import pydicom
from pydicom.encaps import generate_frames

DECODERS = {
    "jpeg lossless": ("jpeg8_decode", "ljpeg_decode", "jpegsof3_decode"),
    "jpeg-ls": ("jpegls_decode",),
    "jpeg 2000": ("jpeg2k_decode",),
    "rle": (),
}


def best(work, repeats):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("syntax", choices=list(DECODERS))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    paths = [str(path) for path in sorted(given.folder.iterdir())]
    frames = [next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)) for path in paths]
    found = {}
    for name in DECODERS[given.syntax]:
        decode = getattr(imagecodecs, name)
        found[f"imagecodecs.{name}"] = best(lambda decode=decode: [decode(frame) for frame in frames], given.repeats)
    found["dicomsdl"] = best(lambda: [dicomsdl.open(path).pixelData(storedvalue=True) for path in paths], given.repeats)
    print(json.dumps(found))
