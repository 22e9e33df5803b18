"""One BLAS thread: the number of threads changes the bits of a matrix product."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    # scipy's BLAS, which the compiled kernels call, is loaded with scipy.linalg.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread, so results do not depend on the machine."""
    context: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return context
