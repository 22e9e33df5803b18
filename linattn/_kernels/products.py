"""Matrix products written or added into any matrix whose rows, or columns, are contiguous.

The product of NumPy that numba offers copies what is not contiguous, and cannot add to its result.
These are one call of the same library each.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from linattn._kernels.jit import Generate, operation

_BYTE, _INT, _SIZE = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_POINTER = _BYTE.as_pointer()
# kind; how left and right lie; rows, columns, inner size; 1; left; right; beta; out
_ARGUMENTS = [_BYTE, *[_BYTE] * 2, *[_SIZE] * 3, _POINTER, *[_POINTER, _SIZE] * 2]
_GEMM = ir.FunctionType(_INT, [*_ARGUMENTS, _POINTER, _POINTER, _SIZE])


class _Matrix(NamedTuple):
    """A matrix in memory, by rows ("n") or by columns ("t"), these `stride` numbers apart."""

    rows: Any
    columns: Any
    data: Any
    order: Any
    stride: Any


def _matrix(context: Any, builder: Any, kind: Any, value: Any) -> _Matrix:
    held = context.make_array(kind)(context, builder, value)
    rows, columns = cgutils.unpack_tuple(builder, held.shape)
    down, right = cgutils.unpack_tuple(builder, held.strides)
    by_rows = builder.icmp_signed("==", right, ir.Constant(_SIZE, 8))
    order = builder.select(by_rows, ir.Constant(_BYTE, ord("n")), ir.Constant(_BYTE, ord("t")))
    stride = builder.ashr(builder.select(by_rows, down, right), ir.Constant(_SIZE, 3))
    # Of a single row the stride may be anything, but the library wants it to span the row.
    least = builder.select(by_rows, columns, rows)
    stride = builder.select(builder.icmp_signed("<", stride, least), least, stride)
    return _Matrix(rows, columns, builder.bitcast(held.data, _POINTER), order, stride)


def _constant(builder: Any, x: float) -> Any:
    """A pointer to a number."""
    slot = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), x))
    return builder.bitcast(slot, _POINTER)


def _product(beta: float) -> Generate:
    """The generator of out = left @ right + beta · out; `out` lies by rows."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, right, out = (
            _matrix(context, builder, kind, value)
            for kind, value in zip(signature.args, args, strict=True)
        )
        # By columns, as the library counts: outᵀ = rightᵀ leftᵀ.
        arguments = [ir.Constant(_BYTE, ord("d")), right.order, left.order]
        arguments += [right.columns, left.rows, left.columns, _constant(builder, 1.0)]
        arguments += [right.data, right.stride, left.data, left.stride]
        arguments += [_constant(builder, beta), out.data, out.stride]
        call = cgutils.get_or_insert_function(builder.module, _GEMM, "numba_xxgemm")
        builder.call(call, arguments)
        return context.get_dummy_value()

    return generate


@operation
def multiply(typing: Any, left: Any, right: Any, out: Any) -> tuple[Any, Generate]:
    """out = left @ right."""
    return types.void(left, right, out), _product(0.0)


@operation
def add_product(typing: Any, left: Any, right: Any, out: Any) -> tuple[Any, Generate]:
    """out += left @ right."""
    return types.void(left, right, out), _product(1.0)
