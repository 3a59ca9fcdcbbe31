"""How kernels are compiled: late, cached, without fused arithmetic, and where nothing can be written."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from builder.kernels.sampling import resample
from builder.kernels.taps import Line

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import numpy as np, sys
from builder.kernels.sampling import resample
from builder.kernels.taps import Line
lines = (Line(3, 0.25, 0.5), Line(3, 0.25, 0.5), Line(3, 0.25, 0.5))
out = resample(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), lines, method="nearest", fill=0)
from builder.kernels import nearest
print(out.sum(), sum(nearest._pick.stats.cache_hits.values()), nearest._pick.stats.cache_path)
"""


def run_python(code, *, cwd, **environment):
    kept = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def installed(tmp_path):
    """A copy of the package without any cache."""
    shutil.copytree(ROOT / "builder", tmp_path / "builder", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_importing_transforms_loads_no_compiler():
    code = "import sys, builder.transforms; print({'numba', 'scipy', 'SimpleITK'} & set(sys.modules))"
    assert run_python(code, cwd=ROOT) == "set()"


def test_a_second_process_finds_the_compiled_kernel(installed):
    assert " 0 " in run_python(RUN, cwd=installed)
    assert " 1 " in run_python(RUN, cwd=installed)


def test_an_installation_that_cannot_be_written_falls_back(installed, tmp_path):
    (installed / "builder" / "kernels" / "__pycache__").write_text("a file where the folder would be")
    home = tmp_path / "home"
    home.write_text("no folder for the user's cache either")
    assert run_python(RUN, cwd=installed, HOME=str(home), XDG_CACHE_HOME=str(home)).startswith("126 0 None")


def test_every_compiled_module_loads_where_nothing_can_be_written(installed, tmp_path):
    """Numba refuses to decorate a function whose machine code it can keep nowhere."""
    modules = []
    for path in sorted((installed / "builder").rglob("*.py")):
        if re.search(r"^@(compiled|njit)", path.read_text("utf-8"), re.MULTILINE):
            (path.parent / "__pycache__").exists() or (path.parent / "__pycache__").write_text("no folder")
            modules.append(".".join(path.relative_to(installed).with_suffix("").parts))
    assert {"builder.headers.scan", "builder.kernels.linear", "builder.imaging.pixels.rle"} <= {*modules}
    home = tmp_path / "home"
    home.write_text("no folder either")
    code = f"import {', '.join(modules)}; from builder.cli import main; main(['--version'])"
    assert run_python(code, cwd=installed, HOME=str(home), XDG_CACHE_HOME=str(home))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
def test_no_kernel_fuses_a_multiplication_with_an_addition():
    """A fused operation rounds once instead of twice: it would change bytes between processors."""
    from builder.kernels import boxes, filtered, linear

    cube = np.zeros((8, 8, 8), dtype=np.float32)
    boxes.best_box(cube, cube.ravel(), (0.0, 0.0, 0.0, 1.0, 1.0, 1.0), first=0.1, least=0.2)
    volume = np.zeros((3, 9, 9), dtype=np.int16)
    lines = (Line(5, 0.1, 0.5), Line(5, 0.1, 0.5), Line(5, 0.1, 0.5))
    resample(volume, lines, method="linear", fill=0)
    resample(volume, lines, method="cubic", fill=0)
    for kernel in (linear._blend, filtered._filter_planes, boxes._search):
        fresh = cast(Any, type(kernel))(kernel.py_func, targetoptions=kernel.targetoptions)
        fresh.compile(kernel.signatures[0])
        text = "\n".join(fresh.inspect_asm().values())
        assert "mulps" in text or "mulpd" in text  # vectorised
        assert "vfmadd" not in text
        assert "vfnmadd" not in text
