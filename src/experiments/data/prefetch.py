"""Work that threads do before its results are asked for."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(function: Callable[[Item], Made], items: Iterable[Item], threads: int, waiting: int) -> Iterator[Made]:
    """What `function` makes of each item, in their order, at most `waiting` of them before they are asked for.

    What it raises is raised here, in its turn. The threads end with the iterator, however that ends.
    """
    pool = ThreadPoolExecutor(threads, "prefetch")
    started: collections.deque[Future[Made]] = collections.deque()
    try:
        for item in items:
            started.append(pool.submit(function, item))
            if len(started) > waiting:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
