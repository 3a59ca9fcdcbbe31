"""How kernels are compiled: on first use, cached on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call for each set of argument types, and keep the machine code on disk.

    The cache lies in ``NUMBA_CACHE_DIR`` when that is set, else in ``__pycache__`` beside the module, else (a
    read-only installation) in the user's cache folder. Where none of them can be written the kernel is compiled anew
    in each process. Code is cached by processor model, so a shared folder serves unlike machines.
    """
    try:
        return cast(Kernel, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba: "cannot cache function ...: no locator available"
        return cast(Kernel, njit(nogil=True)(function))
