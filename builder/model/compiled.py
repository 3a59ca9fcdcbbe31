"""The decorator for kernels: compile on first use, cache on disk, run without the interpreter's lock."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call for each set of argument types, and keep the machine code on disk.

    The cache is in ``NUMBA_CACHE_DIR`` when that is set, else in ``__pycache__`` beside the module, else, in a
    read-only installation, in the user's cache folder. When none of these is writable, each process compiles the kernel
    again. Code is cached by processor model, so different machines can share a folder.
    """
    try:
        return cast(Kernel, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba: "cannot cache function ...: no locator available"
        return cast(Kernel, njit(nogil=True)(function))
