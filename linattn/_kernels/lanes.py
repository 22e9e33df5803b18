"""Eight numbers at once, summed in an order that the source fixes.

The compiler vectorizes a sum of numbers only where it may reorder it, and it may then reorder two
copies of one function differently: one that stands alone, and one inlined into a caller. Which copy
runs depends on what was compiled before and what came from the disk cache, and so would the bits.
Here lane k of a sum holds every eighth term, products are fused with additions, and nothing is left
to decide. `load` and `store` take any index of a contiguous array and touch eight entries from it.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from linattn._kernels.jit import Generate, operation, outer

WIDTH = 8
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class Lanes(types.Type):  # type: ignore[misc]
    """The type of eight numbers in a register."""


lanes = Lanes(name="Lanes")


@register_model(Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@outer
def padded(size: int) -> int:
    """The number of entries of whole registers that hold `size` of them."""
    return -(-size // WIDTH) * WIDTH


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """A pointer to eight entries of an array."""
    first = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(first, _VECTOR.as_pointer())


@operation
def load(typing: Any, array: Any, index: Any) -> tuple[Any, Generate]:
    """array[index : index + 8]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=8)

    return lanes(array, types.intp), generate


@operation
def store(typing: Any, array: Any, index: Any, value: Any) -> tuple[Any, Generate]:
    """array[index : index + 8] = value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@operation
def spread(typing: Any, x: Any) -> tuple[Any, Generate]:
    """One number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, nothing, _lanes([0] * WIDTH))

    return lanes(types.float64), generate


def _lanes(numbers: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_INT, len(numbers)), numbers)


@operation
def plus(typing: Any, left: Any, right: Any) -> tuple[Any, Generate]:
    """left + right."""
    return lanes(lanes, lanes), lambda context, builder, signature, args: builder.fadd(*args)


@operation
def times(typing: Any, left: Any, right: Any) -> tuple[Any, Generate]:
    """left · right."""
    return lanes(lanes, lanes), lambda context, builder, signature, args: builder.fmul(*args)


@operation
def times_plus(typing: Any, left: Any, right: Any, so_far: Any) -> tuple[Any, Generate]:
    """left · right + so_far, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, name = ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{WIDTH}f64"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return lanes(lanes, lanes, lanes), generate


@operation
def total(typing: Any, value: Any) -> tuple[Any, Generate]:
    """The sum of the lanes: pairs at distance four, then two, then one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (held,), half = args, WIDTH // 2
        while half:
            lower, upper = _lanes(list(range(half))), _lanes(list(range(half, 2 * half)))
            held = builder.fadd(
                builder.shuffle_vector(held, held, lower), builder.shuffle_vector(held, held, upper)
            )
            half //= 2
        return builder.extract_element(held, ir.Constant(_INT, 0))

    return types.float64(lanes), generate
