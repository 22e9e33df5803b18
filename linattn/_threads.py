"""Threads: one for BLAS, whose number changes the bits of a product; several over clients."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache
from itertools import pairwise
from threading import Lock, local
from typing import TypeVar

from threadpoolctl import LibController, ThreadpoolController

S = TypeVar("S")
T = TypeVar("T")
_here = local()  # .busy: whether this thread is one of several that share the processors


@lru_cache(maxsize=1)
def _blas_libraries() -> tuple[LibController, ...]:
    # scipy's BLAS, which the compiled kernels call, is loaded with scipy.linalg.
    import scipy.linalg  # noqa: F401

    held = ThreadpoolController().select(user_api="blas")
    return tuple(held.lib_controllers)


_lock = Lock()
_before: list[list[int]] = []  # how many threads BLAS had when each context that is open began


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread, so that results do not depend on the machine.

    The number is one of the process: it is restored when the last of several contexts ends.
    """
    with _lock:
        counts = [library.num_threads for library in _blas_libraries()]
        _before.append(_before[0] if _before else counts)
        if any(count != 1 for count in counts):
            _set_threads([1] * len(counts))
    try:
        yield
    finally:
        with _lock:
            counts = _before.pop()
            if not _before and any(count != 1 for count in counts):
                _set_threads(counts)


def _set_threads(counts: list[int]) -> None:
    for library, count in zip(_blas_libraries(), counts, strict=True):
        library.set_num_threads(count)


def available_threads() -> int:
    """Return how many threads may run clients: NUMBA_NUM_THREADS, or the processors there are.

    One in a thread of `each_in_threads`, where the others have something to do.
    """
    if getattr(_here, "busy", False):
        return 1
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


def in_threads(work: Callable[[slice], T], bounds: Sequence[int]) -> list[T]:
    """Return work(slice) of every part between consecutive bounds, in order.

    The first part runs in the calling thread, each of the others in one of its own, in the context
    of the caller: `numpy.errstate` holds there, too.
    """
    first, *others = (slice(a, b) for a, b in pairwise(bounds))
    if not others:
        return [work(first)]
    held = [thread_pool(len(others)).submit(copy_context().run, work, part) for part in others]
    return [work(first), *(one.result() for one in held)]


def each_in_threads(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return work(item) of every item, in order; every thread takes the next when it is free."""
    waiting, lock = list(enumerate(items)), Lock()
    out: dict[int, T] = {}
    waiting.reverse()

    def take(_: slice) -> None:
        _here.busy = count > 1
        try:
            while True:
                with lock:
                    if not waiting:
                        return
                    index, item = waiting.pop()
                out[index] = work(item)
        finally:
            _here.busy = False

    count = min(available_threads(), len(waiting))
    in_threads(take, range(max(count, 1) + 1))
    return [out[index] for index in sorted(out)]
