"""The entry point to the kernels: sample a volume on another grid."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.kernels.taps import Antialias, Line, Method, make_taps
from builder.model.geometry import Geometry

Lines = tuple[Line, Line, Line]

ALIGNED_VOXELS = 1e-4
"""Largest drift, in source voxels over a whole target axis, at which two grids still count as aligned."""

SlabMaker: TypeAlias = Callable[[int, int], Iterator[NDArray[Any]]]
"""Makes a volume in slabs of the given numbers of slices and rows. A slab is valid until the next one is requested."""

DTYPES = ("int16", "uint16", "uint8", "bool", "float32")


def sample(
    volume: NDArray[Any],
    source: Geometry,
    target: Geometry,
    *,
    method: Method | str,
    fill: float,
    antialias: Antialias | str = Antialias.NONE,
    threads: int = 1,
) -> NDArray[Any]:
    """Sample a volume given on ``source`` at the voxel centres of ``target``.

    Grids whose axes agree, in any order and direction, are resampled along one axis at a time, which is fast. Oblique
    and sheared grids are sampled by a kernel that follows the affine.

    Parameters
    ----------
    volume
        (slice, row, column) int16, uint16, uint8, bool or float32.
    source, target
        Grids in LPS mm. The caller must ensure that they share a frame of reference.
    method
        ``nearest``; ``linear``; ``cubic`` (B-spline with prefilter, mirrored edges); or ``majority`` for label maps,
        which interpolates each label linearly and keeps the heaviest. At a tie a structure wins over background, and a
        lower value over a higher one.
    fill
        Value of target voxels whose centre is outside the field of view, that is, beyond the outer edges of the
        outermost voxels of ``source``. Between those edges and the outermost centres the edge value is continued.
    antialias
        ``lowpass`` filters each axis that shrinks. It needs aligned grids and ``linear`` or ``cubic``.
    threads
        Number of threads. The bytes of the result do not depend on it.

    Returns
    -------
    numpy.ndarray
        (slice, row, column) of ``target.shape`` and the volume's dtype, C-contiguous; integers rounded to the
        nearest, ties to even, and clamped to the type.

    Raises
    ------
    ValueError
        When shape, dtype, ``fill`` or ``antialias`` do not fit.
    """
    if volume.shape != source.shape:
        raise ValueError(f"volume: found shape {volume.shape}, expected the source grid's {source.shape}")
    matrix = index_map(source, target)
    aligned = aligned_lines(matrix, target.shape)
    if aligned is not None:
        order, lines = aligned
        turned = volume.transpose(order)
        return resample(turned, lines, method=method, fill=fill, antialias=antialias, threads=threads)
    method, antialias = Method(method), Antialias(antialias)
    if antialias is not Antialias.NONE:
        raise ValueError(
            f"antialias: found {antialias.value!r} for grids that are not aligned, expected 'none'; "
            "resample to an orthogonal grid of the same spacing first"
        )
    array = _checked(volume, method=method, fill=fill)
    from builder.kernels.oblique import sample_oblique

    out = sample_oblique(array, matrix, target.shape, method=method, fill=float(fill), threads=threads)
    return out.view(_native(volume))


def slab_maker(
    volume: NDArray[Any], source: Geometry, target: Geometry, *, method: Method | str, threads: int = 1
) -> SlabMaker | None:
    """Return a function that makes the result of ``sample`` in slabs, so that only one slab has to be in memory.

    Return None when the result cannot be made in slabs: for grids whose axes do not agree in order, for a target that
    reaches beyond the source's field of view, and for methods that need the whole volume.
    """
    aligned = aligned_lines(index_map(source, target), target.shape)
    if aligned is None or aligned[0] != (0, 1, 2):
        return None
    lines, method = aligned[1], Method(method)
    deep = 0 if threads == 1 else lines[1].size  # threads share whole slices: a few rows are too little work
    if any(line.inside(count) != (0, line.size) for line, count in zip(lines, volume.shape, strict=True)):
        return None
    array = _checked(volume, method=method, fill=0)
    if method is Method.LINEAR:
        from builder.kernels.linear import linear_slabs

        return lambda slices, rows: linear_slabs(array, lines, slices=slices, rows=max(rows, deep), threads=threads)
    if method is Method.NEAREST:
        from builder.kernels.nearest import nearest_slabs

        return lambda slices, rows: nearest_slabs(array, lines, slices=slices, rows=max(rows, deep), threads=threads)
    return None


def resample(
    volume: NDArray[Any],
    lines: Lines,
    *,
    method: Method | str,
    fill: float,
    antialias: Antialias | str = Antialias.NONE,
    threads: int = 1,
) -> NDArray[Any]:
    """Sample a volume at the points of three lines along its axes; the other parameters are those of :func:`sample`."""
    method, antialias = Method(method), Antialias(antialias)
    if antialias is not Antialias.NONE and method not in (Method.LINEAR, Method.CUBIC):
        raise ValueError(f"antialias: found {antialias.value!r} with {method.value!r}, expected 'linear' or 'cubic'")
    array = _checked(volume, method=method, fill=fill)
    spans = [line.inside(count) for line, count in zip(lines, array.shape, strict=True)]
    shape = (lines[0].size, lines[1].size, lines[2].size)
    if all(span == (0, n) for span, n in zip(spans, shape, strict=True)):
        return _dispatch(array, lines, method, antialias, threads).view(_native(volume))
    out = np.full(shape, fill, dtype=array.dtype)
    if all(stop > first for first, stop in spans):
        inner = tuple(line.part(first, stop) for line, (first, stop) in zip(lines, spans, strict=True))
        where = tuple(slice(first, stop) for first, stop in spans)
        out[where] = _dispatch(array, (inner[0], inner[1], inner[2]), method, antialias, threads)
    return out.view(_native(volume))


def index_map(source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """Return the (3, 4) float64 map from target voxel index (slice, row, column, 1) to continuous source voxel index.

    Digits that are rounding errors of the affines are dropped, so that grids which differ by whole voxels do so
    exactly. Plain sums replace a linear algebra library, whose bits differ between machines.
    """
    a, b, c = (source.affine[:3, axis] for axis in range(3))
    inverse = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    inverse = inverse / (inverse[0] * a).sum()
    columns = [target.affine[:3, axis] for axis in range(3)] + [target.affine[:3, 3] - source.affine[:3, 3]]
    matrix = np.stack([(inverse * column).sum(axis=1) for column in columns], axis=1)
    return np.concatenate([np.round(matrix[:, :3], 12), np.round(matrix[:, 3:], 10)], axis=1)


def aligned_lines(
    matrix: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[tuple[int, int, int], Lines] | None:
    """Return the source axis that runs along each target axis, and a line along each; None when axes do not agree."""
    steps = matrix[:, :3]
    order = tuple(int(axis) for axis in np.abs(steps).argmax(axis=0))
    if sorted(order) != [0, 1, 2]:
        return None
    drift = np.abs(steps) * np.asarray(shape, dtype=np.float64)
    drift[list(order), [0, 1, 2]] = 0.0
    if drift.max() > ALIGNED_VOXELS:
        return None
    lines = [Line(shape[t], float(matrix[s, 3]), float(steps[s, t])) for t, s in enumerate(order)]
    return (order[0], order[1], order[2]), (lines[0], lines[1], lines[2])


def _checked(volume: NDArray[Any], *, method: Method, fill: float) -> NDArray[Any]:
    """Return the volume in the form that the kernels accept: C-contiguous, native byte order, bool as uint8."""
    if volume.ndim != 3 or volume.dtype.name not in DTYPES:
        raise ValueError(f"volume: found {volume.ndim} axes of {volume.dtype}, expected 3 of {', '.join(DTYPES)}")
    if method is Method.MAJORITY and volume.dtype.name not in ("uint8", "uint16", "bool"):
        raise ValueError(f"volume: found {volume.dtype} labels, expected uint8, uint16 or bool")
    if volume.dtype == np.bool_ and method not in (Method.NEAREST, Method.MAJORITY):
        raise ValueError(f"method: found {method.value!r} for bool voxels, expected 'nearest' or 'majority'")
    array = np.ascontiguousarray(volume, dtype=_native(volume))
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        if fill != int(fill) or not limits.min <= fill <= limits.max:
            raise ValueError(f"fill: found {fill}, expected a whole number that {array.dtype} holds")
    return array


def _native(volume: NDArray[Any]) -> np.dtype[Any]:
    return volume.dtype.newbyteorder("=")


def _dispatch(array: NDArray[Any], lines: Lines, method: Method, antialias: Antialias, threads: int) -> NDArray[Any]:
    """Run the kernel of ``method``. Kernels are imported here because importing numba is slow."""
    if all(line == Line(n, 0.0, 1.0) for line, n in zip(lines, array.shape, strict=True)):
        return array.copy()
    if method is Method.NEAREST:
        from builder.kernels.nearest import resample_nearest

        return resample_nearest(array, lines, threads=threads)
    if method is Method.MAJORITY:
        from builder.kernels.majority import resample_majority

        return resample_majority(array, lines, threads=threads)
    shrinks = antialias is Antialias.LOWPASS and any(abs(line.step) > 1 for line in lines)
    if method is Method.LINEAR and not shrinks:
        from builder.kernels.linear import resample_linear

        return resample_linear(array, lines, threads=threads)
    from builder.kernels.filtered import resample_filtered

    taps = [make_taps(line, n, method=method, antialias=antialias) for line, n in zip(lines, array.shape, strict=True)]
    return resample_filtered(array, (taps[0], taps[1], taps[2]), threads=threads)
