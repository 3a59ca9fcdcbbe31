"""What the codecs of a shard cost and save, on images and on masks, by processor time on one core.

    python benchmarks/codecs.py [--images FOLDER] [--rounds 5]

Chunks of 64^3: CT as int16 (below ``--images``, or synthetic), the same as float32 with noise below a unit (as
resampling leaves it) and packed to int16 in steps of 0.05, a mask of bytes, and that mask packed to bits. Ratio of
uncompressed to stored bytes (for packed fields: of the float32 bytes, for bits: of the mask's bytes), GB of
uncompressed voxels a second. The best round counts.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numcodecs.blosc as blosc
import numpy as np
from figures import figure
from numpy.typing import NDArray
from read import find_volumes, make_volume
from scipy import ndimage

from builder.model.zarr_format import CHECKSUM_BYTES
from builder.shards import CODECS
from builder.shards.streams import encode_chunk

EDGE = 64


def main() -> None:
    """Print one line a kind of field and codec."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    blosc.use_threads = False
    volumes = list(find_volumes(arguments.images)) if arguments.images else [make_volume()]
    images = cut(volumes)
    noise = np.random.default_rng(0)
    resampled = [image + noise.normal(0, 0.3, image.shape).astype(np.float32) for image in images]
    packed = [np.clip(np.rint(image / 0.05), -(2**15), 2**15 - 1).astype(np.int16) for image in resampled]
    masks = [label(image) for image in images]
    bits = [np.packbits(mask) for mask in masks]
    kinds = {
        "CT, int16": (images, sum(a.nbytes for a in images)),
        "resampled CT, float32": (resampled, sum(a.nbytes for a in resampled)),
        "the same packed to int16": (packed, sum(a.nbytes for a in resampled)),
        "mask, bytes": (masks, sum(a.nbytes for a in masks)),
        "mask, packed to bits": (bits, sum(a.nbytes for a in masks)),
    }
    print(f"{len(images)} chunks of {EDGE}^3\n{'':44s} ratio  encode  decode GB/s")
    for kind, (arrays, whole) in kinds.items():
        if kind.endswith("bits"):
            spent = best(lambda arrays=arrays: [np.unpackbits(a) for a in arrays], arguments.rounds)
            ratio = whole / sum(a.nbytes for a in arrays)
            print(f"{kind:26s} {'alone':16s} {ratio:6.1f} {'':7s} {whole / spent / 1e9:7.2f}")
        for name, codec in CODECS.items():
            ratio, encoded, decoded = measure(arrays, name, whole, arguments.rounds, unpack=kind.endswith("bits"))
            how = f"{name} {codec.compressor} {codec.level}"
            figure(f"{kind}, {name}, ratio", ratio, "x", better="more")
            figure(f"{kind}, {name}, encode", encoded, "GB/s", better="more")
            figure(f"{kind}, {name}, decode", decoded, "GB/s", better="more")
            print(f"{kind:26s} {how:16s} {ratio:6.1f} {encoded:7.2f} {decoded:7.2f}")


def measure(
    arrays: list[NDArray[np.generic]], name: str, whole: int, rounds: int, *, unpack: bool
) -> tuple[float, float, float]:
    """Ratio, and GB a second of encoding and decoding."""

    def encode() -> list[bytes]:
        return [encode_chunk(a, CODECS[name])[:-CHECKSUM_BYTES] for a in arrays]

    stored = encode()
    out = np.empty_like(arrays[0])

    def decode() -> None:
        for data in stored:
            blosc.decompress(data, out)
            if unpack:
                np.unpackbits(out)

    seconds = best(encode, rounds), best(decode, rounds)
    return whole / sum(map(len, stored)), whole / seconds[0] / 1e9, whole / seconds[1] / 1e9


def best(run: Callable[[], object], rounds: int) -> float:
    """Least processor time of a few runs."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return max(min(found), 1e-9)


def cut(volumes: list[NDArray[np.int16]]) -> list[NDArray[np.int16]]:
    """Chunks that lie on a grid, at most 48."""
    found = []
    for volume in volumes:
        for s in range(0, volume.shape[0] - EDGE + 1, EDGE):
            for r in range(0, volume.shape[1] - EDGE + 1, EDGE):
                for c in range(0, volume.shape[2] - EDGE + 1, EDGE):
                    found.append(np.ascontiguousarray(volume[s : s + EDGE, r : r + EDGE, c : c + EDGE]))
    return found[:: max(1, len(found) // 48)][:48]


def label(image: NDArray[np.int16]) -> NDArray[np.uint8]:
    """One structure with a smooth border, as a reader draws it."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 3)
    return np.asarray(smooth > np.quantile(smooth, 0.8)).astype(np.uint8)


if __name__ == "__main__":
    main()
