"""Threads: one for BLAS, whose number changes the bits of a product; several over clients."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
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


def available_threads() -> int:
    """Return how many threads may run clients: NUMBA_NUM_THREADS, or the processors there are."""
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@lru_cache(maxsize=4)
def thread_pool(count: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads, kept because starting one takes longer than a round."""
    return ThreadPoolExecutor(count, thread_name_prefix="linattn")


if hasattr(os, "register_at_fork"):  # a forked child has the pool, but none of its threads
    os.register_at_fork(after_in_child=thread_pool.cache_clear)
