"""Standard output that may be lost: a closed terminal or pipe, a full disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Output:
    """Standard output of a run, which goes on if nothing can be written any more; `error` says why."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, call: Callable[..., object], *arguments: str) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
