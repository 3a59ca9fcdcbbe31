"""Compiled loops over voxels: resampling along axes and along an affine.

Call them through ``builder.kernels.sampling``, which imports numba on the first call and not on import. Results have
the same bytes for any number of threads and on any machine: loops run in a fixed order, no BLAS is called, and no
fast-math flag is set, so LLVM may use wide registers but may not reorder sums or fuse multiplications with additions.
"""
