"""Resampling stays within three times what goes in and comes out, measured from outside numpy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from builder.kernels.sampling import Line, resample

def read(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

dtype, method, antialias, *shape = sys.argv[1:]
volume = np.full((48, 320, 320), 1, dtype)
volume[::2] = 2
options = dict(method=method, fill=0, antialias=antialias)
resample(np.zeros((2, 2, 2), volume.dtype), (Line(1, 0, 2.0),) * 3, **options)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here (proc(5))
before = read("VmRSS")
lines = tuple(Line(int(o), (n / int(o) - 1) / 2, n / int(o)) for n, o in zip(volume.shape, shape))
out = resample(volume, lines, **options)
print((read("VmHWM") - before + volume.nbytes) / (volume.nbytes + out.nbytes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("dtype", "method", "antialias", "shape"),
    [
        ("int16", "linear", "none", (120, 220, 220)),
        ("int16", "cubic", "none", (120, 220, 220)),
        ("int16", "cubic", "lowpass", (24, 400, 400)),
        ("uint8", "majority", "none", (120, 220, 220)),
    ],
)
def test_peak_is_bounded(dtype, method, antialias, shape):
    command = [sys.executable, "-c", MEASURE, dtype, method, antialias, *map(str, shape)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ratio = json.loads(done.stdout)
    assert 0.9 <= ratio <= 3.0  # input and output, at least
