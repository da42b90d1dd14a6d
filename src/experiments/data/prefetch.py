"""Threads that compute results before they are requested."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], threads: int, waiting: int) -> Iterator[Result]:
    """Yields `function(item)` for each item in order, computing at most `waiting` results before they are requested.

    An exception in a thread is raised when its result is due. The threads end when the iterator does, also by an exception.
    Without threads, each result is computed when it is requested.
    """
    if not threads:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, "prefetch")
    started: collections.deque[Future[Result]] = collections.deque()
    try:
        for item in items:
            started.append(pool.submit(function, item))
            if len(started) > waiting:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
