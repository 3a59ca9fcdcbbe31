"""Resampling against SimpleITK, scipy, nnU-Net's routine and the floor, in one process and one run.

    python benchmarks/resample.py [--slices 50] [--threads 2] [--peer-python PYTHON]

A head-like int16 volume of (slices, 512, 512) at 2.5 x 0.68 x 0.68 mm goes to 1 mm isotropic; label maps hold five
structures. Every peer runs on one thread unless ``--threads`` is given, and gets the same grid. The floor reads the
input and writes the output once. With one thread times are CPU time, which a busy machine disturbs less than wall time;
with more they are wall time. They are the best of several runs for the fast ones and of one run for those that
take seconds; compilation is done before. Aims: linear at least 25 x SimpleITK and at most 3 x the floor; cubic at
least 35 x nnU-Net's routine and SimpleITK's B-spline.

``--peer-python`` has the extra ``peers``: nnU-Net's own functions run there, on the same arrays, in the same run and by
the same clock, on one thread (they have no other way).
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from figures import figure
from numpy.typing import NDArray
from scipy import ndimage

from builder.kernels.sampling import sample
from builder.model.geometry import Geometry
from builder.transforms.resample import make_grid

Array = NDArray[Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Setting:
    """Two grids, and how times on them are taken and compared: ``floors`` in seconds, ``nnunet`` seconds by routine."""

    source: Geometry
    target: Geometry
    floors: tuple[float, float]
    threads: int
    clock: Clock
    nnunet: Mapping[str, float]


def main() -> None:
    """Print times, ratios and disagreements."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=50)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--peer-python", type=Path)
    arguments = options.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(arguments.threads)
    source, image, labels = make_head(arguments.slices)
    target = make_grid(source, (1.0, 1.0, 1.0))
    print(f"{source.shape} int16 to {target.shape}, {arguments.threads} thread(s)\n")
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    floors = measure_floors(image, target.shape, clock=clock)
    for seconds, where in zip(floors, ("in fresh memory", "in memory used before"), strict=True):
        figure(f"floor {where}", seconds * 1e3, "ms")
        print(f"{'floor: input read, output written ' + where:56s} {seconds * 1e3:6.1f} ms")
    nnunet = {}
    if arguments.peer_python is not None:
        nnunet = ask_nnunet(arguments.peer_python, image, labels, source, target, clock=clock)
    setting = Setting(source, target, floors, arguments.threads, clock, nnunet)
    compare_images(image, setting)
    compare_labels(labels, setting)


def compare_images(image: Array, setting: Setting) -> None:
    """Linear, cubic and nearest of an image, each beside its peers."""
    source, target, clock = setting.source, setting.target, setting.clock

    def ours(method: str, antialias: str = "none") -> Callable[[], Array]:
        options: dict[str, Any] = {"method": method, "antialias": antialias, "threads": setting.threads}
        return lambda: sample(image, source, target, fill=-1024, **options)

    zoom = {"zoom": np.divide(target.shape, source.shape), "mode": "nearest", "grid_mode": True}
    peers: dict[str, list[tuple[str, Callable[[], Array]]]] = {
        "linear": [
            ("SimpleITK linear", lambda: ask_itk(image, source, target, sitk.sitkLinear)),
            ("scipy zoom, order 1", lambda: ndimage.zoom(image, order=1, **zoom)),
        ],
        "cubic": [
            ("SimpleITK B-spline", lambda: ask_itk(image, source, target, sitk.sitkBSpline)),
            ("scipy zoom, order 3", lambda: ndimage.zoom(image, order=3, **zoom)),
        ],
        "nearest": [("SimpleITK nearest", lambda: ask_itk(image, source, target, sitk.sitkNearestNeighbor))],
    }
    for method, others in peers.items():
        mine = report(f"builder {method}", ours(method), setting)
        for name, other in others:
            compare(name, other, mine, clock=clock)
        if method == "cubic":
            show_peers({NNUNET[name]: s for name, s in setting.nnunet.items() if name != "labels"}, mine)
        exact = ask_itk(image.astype(np.float32), source, target, ITK[method])
        error = np.abs(ours(method)() - exact).max()
        in_float = np.abs(sample(image.astype(np.float32), source, target, method=method, fill=-1024) - exact).max()
        print(f"{'':4s}largest difference from SimpleITK in float: int16 {error:.4f}, float32 {in_float:.6f}")
    report("builder linear, lowpass", ours("linear", "lowpass"), setting)
    report("builder cubic, lowpass", ours("cubic", "lowpass"), setting)


def compare_labels(labels: Array, setting: Setting) -> None:
    """Five structures: each label linear and the heaviest kept, against the same done label by label in SimpleITK."""
    source, target = setting.source, setting.target

    def one_by_one() -> Array:
        best = np.zeros(target.shape, np.float32)
        out = np.zeros(target.shape, np.uint8)
        for label in range(int(labels.max()) + 1):
            weight = ask_itk((labels == label).astype(np.float32), source, target, sitk.sitkLinear)
            won = weight > best
            out[won], best[won] = label, weight[won]
        return out

    for method in ("majority", "nearest"):
        mine = report(
            f"builder five labels, {method}",
            lambda method=method: sample(labels, source, target, method=method, fill=0, threads=setting.threads),
            setting,
        )
        if method == "majority":
            compare("SimpleITK linear, label by label", one_by_one, mine, clock=setting.clock)
            show_peers({NNUNET["labels"]: setting.nnunet["labels"]} if setting.nnunet else {}, mine)


ITK = {"linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}


def make_head(slices: int) -> tuple[Geometry, Array, Array]:
    """A grid, an image with smooth parts, edges and noise, and five balls of labels."""
    source = Geometry((slices, 512, 512), np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]] * [2.487, 0.68, 0.68, 1.0])
    rng = np.random.default_rng(7)
    z, y, x = np.ogrid[-1 : 1 : slices * 1j, -1:1:512j, -1:1:512j]
    body = np.where(z**2 * 0.5 + y**2 + x**2 * 1.4 < 0.8, 40 + 60 * np.sin(9 * x) * np.cos(7 * y), -1000)
    image = (body + rng.normal(0, 20, body.shape)).astype(np.int16)
    labels = np.zeros(source.shape, np.uint8)
    for number in range(5):
        ball = (z - 0.3 * number + 0.6) ** 2 + (y - 0.2 * number + 0.4) ** 2 + (x + 0.15 * number - 0.3) ** 2
        labels[ball < 0.02] = number + 1
    return source, image, labels


def ask_itk(array: Array, source: Geometry, target: Geometry, interpolator: int) -> Array:
    """SimpleITK's resampling into the input's type; its axes are reversed."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(source.spacing_mm[::-1])
    image.SetOrigin(source.origin_mm)
    frame = (target.origin_mm, target.spacing_mm[::-1], target.directions[:, ::-1].ravel())
    return sitk.GetArrayFromImage(
        sitk.Resample(image, target.shape[::-1], sitk.Transform(), interpolator, *frame, -1024)
        if array.dtype != np.uint8
        else sitk.Resample(image, target.shape[::-1], sitk.Transform(), interpolator, *frame, 0)
    )


NNUNET = {
    "cubic": "nnU-Net, order 3",
    "default": "nnU-Net's default, slices apart",
    "labels": "nnU-Net, one-hot, order 1",
}


def ask_nnunet(
    python: Path, image: Array, labels: Array, source: Geometry, target: Geometry, *, clock: Clock
) -> dict[str, float]:
    """Seconds of nnU-Net's functions in the other Python, one run each."""
    script = Path(__file__).parent / "peers" / "resampling.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "image.npy", image)
        np.save(Path(folder) / "labels.npy", labels)
        grid = {"shape": target.shape, "old_mm": list(source.spacing_mm), "new_mm": list(target.spacing_mm)}
        (Path(folder) / "grid.json").write_text(json.dumps(grid))
        command = [python, script, folder] + ["--wall"] * (clock is time.perf_counter)
        answer = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def measure_floors(image: Array, shape: tuple[int, ...], *, clock: Clock) -> tuple[float, float]:
    """Seconds to read the input and write the output once: into fresh memory, and into memory that was used before."""
    used = np.empty(shape, image.dtype)

    def fresh() -> Array:
        image.max()
        return np.full(shape, 1, image.dtype)

    def again() -> Array:
        image.max()
        used.fill(1)
        return used

    return best_of(fresh, clock=clock), best_of(again, clock=clock)


def best_of(work: Callable[[], Array], *, clock: Clock) -> float:
    """Seconds of the best of up to fifteen runs, of one run when it takes more than a second."""
    times: list[float] = []
    while len(times) < 15 and (not times or times[0] < 1.0):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def report(name: str, work: Callable[[], Array], setting: Setting) -> float:
    """Print our time beside the floor; the first call compiles."""
    work()
    seconds = best_of(work, clock=setting.clock)
    fresh, again = (seconds / floor for floor in setting.floors)
    figure(name, seconds * 1e3, "ms")
    figure(f"{name}, beside the floor", fresh, "x")
    print(f"\n{name:44s} {seconds * 1e3:9.1f} ms   {fresh:6.1f} x the floor ({again:.1f} in memory used before)")
    return seconds


def compare(name: str, work: Callable[[], Array], mine: float, *, clock: Clock) -> None:
    """Print a peer's time and how many times ours it is."""
    seconds = best_of(work, clock=clock)
    figure(name, seconds * 1e3, "ms")
    figure(f"{name}, beside ours", seconds / mine, "x", better="more")
    print(f"{'':4s}{name:40s} {seconds * 1e3:9.1f} ms   {seconds / mine:6.1f} x ours")


def show_peers(seconds: dict[str, float], mine: float) -> None:
    """Print what peers took that ran elsewhere."""
    for name, took in seconds.items():
        figure(name, took * 1e3, "ms")
        figure(f"{name}, beside ours", took / mine, "x", better="more")
        print(f"{'':4s}{name:40s} {took * 1e3:9.1f} ms   {took / mine:6.1f} x ours")


if __name__ == "__main__":
    main()
