"""Compiled loops over voxels: resampling along axes and along an affine.

``builder.kernels.sampling`` is the entrance; it imports numba on the first call, never on import. All results are the
same bytes for any number of threads and on any machine: loops run in a fixed order, no fast-math flag is set (LLVM may
use wide registers, yet may neither reorder sums nor fuse a multiplication with an addition), and no BLAS is called.
"""
