"""What the process keeps of memory that nobody uses: little, and nothing between the stages of a build."""

import ctypes
import sys

_M_ARENA_MAX = -8
"""mallopt(3): the number of heaps."""


def keep_one_heap() -> None:
    """Let all threads share a heap, where the C library is glibc; called before there are threads.

    By itself it makes one for every few threads, and what is free in one cannot be used by the others: that was 15 MB
    of 371 in a build of 12 series. Arrays of whole pages, which are what threads allocate here, are in no heap.
    """
    library = _c_library()
    if library is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the system what is free: kept arrays, Arrow's pool and the heap."""
    import pyarrow as pa  # not at the top: the command line starts with this module, and may have little to do

    from builder.kernels.buffers import let_go

    let_go()
    pa.default_memory_pool().release_unused()
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def _c_library() -> ctypes.CDLL | None:
    """glibc; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
