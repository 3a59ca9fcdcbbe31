"""Asking the processor for memory before it is needed."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from builder.kernels.compiled import compiled

LINE_BYTES = 64
"""Bytes that one request brings; a processor with longer lines gets some requests twice."""


@compiled
def prefetch(row: Any) -> None:
    """Start to bring a contiguous (n,) array into the cache; nothing waits for it and no value changes."""
    for i in range(0, row.shape[0], LINE_BYTES // row.itemsize):
        _prefetch_element(row, i)


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch_element(_context: Any, array: Any, index: Any) -> Any:
    """LLVM's own request (``llvm.prefetch``: for reading, to stay in all caches); no-operation where there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        word = cgutils.int32_t
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        request = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], shape)
        builder.call(request, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate
