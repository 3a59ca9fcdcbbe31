"""Compiling ahead: one process fills the cache before many workers need it at once."""

from collections.abc import Iterable

import numpy as np

from builder.kernels.sampling import DTYPES, resample
from builder.kernels.taps import Line, Method


def compile_kernels(methods: Iterable[Method | str] = tuple(Method), dtypes: Iterable[str] = DTYPES) -> None:
    """Compile the kernels along axes for these methods and types, or load them from the cache.

    A combination that :func:`builder.kernels.sampling.sample` refuses is passed over. Kernels along an affine are
    compiled when the first oblique grid is met.
    """
    lines = (Line(2, 0.25, 0.5), Line(2, 0.25, 0.5), Line(2, 0.25, 0.5))
    for dtype in dtypes:
        for method in (Method(name) for name in methods):
            if dtype == "bool" and method in (Method.LINEAR, Method.CUBIC):
                continue
            if method is Method.MAJORITY and dtype not in ("uint8", "uint16", "bool"):
                continue
            resample(np.zeros((2, 2, 2), dtype=dtype), lines, method=method, fill=0)
