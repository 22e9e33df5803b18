"""Parts of arrays as vectors, matrices and cubes, without the checks of slices and reshapes.

A view keeps nothing alive: it is for arrays that the caller holds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import populate_array

from linattn._kernels.jit import Generate, operation


def _view(dimensions: int, source: Any) -> tuple[Any, Generate]:
    """The view of `dimensions` sizes that begins at a place of an array that lies in one piece."""
    kind = types.Array(source.dtype, dimensions, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, args[0])
        out = context.make_array(kind)(context, builder)
        size = ir.Constant(args[1].type, 8)
        shape, strides = list(args[2:]), [size]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        populate_array(
            out,
            data=builder.gep(held.data, [args[1]]),
            shape=cgutils.pack_array(builder, shape),
            strides=cgutils.pack_array(builder, strides),
            itemsize=size,
            meminfo=None,
        )
        return out._getvalue()

    return kind(source, *[types.intp] * (1 + dimensions)), generate


@operation
def vector(typing: Any, source: Any, at: Any, size: Any) -> tuple[Any, Generate]:
    """`size` numbers from place `at` on."""
    return _view(1, source)


@operation
def matrix(typing: Any, source: Any, at: Any, rows: Any, columns: Any) -> tuple[Any, Generate]:
    """A matrix from place `at` on."""
    return _view(2, source)


@operation
def cube(typing: Any, source: Any, at: Any, a: Any, b: Any, c: Any) -> tuple[Any, Generate]:
    """An array with three axes from place `at` on."""
    return _view(3, source)
