"""Running out of memory, of the GPU or of the machine: one message with what to do instead of a traceback."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.config import Config
from experiments.config.command_line import Command
from experiments.config.errors import RunFailed
from experiments.files.limits import memory_limit

# In messages of errors without a class of their own: of the CPU; of MPS and CUDA's driver; of CUDA's and the CPU's libraries.
TEXTS = re.compile(
    r"can't allocate memory|out of memory|ALLOC_FAILED|^could not (create a (primitive|memory object)|execute a primitive)$"
)
REQUESTED = re.compile(r"tried to allocate [\d.]+ \w+", re.IGNORECASE)


class OutOfMemory(RunFailed):
    """A step needs more memory than there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and TEXTS.search(str(error)) is not None


@contextlib.contextmanager
def advised(config: Config, command: Command) -> Iterator[None]:
    """Replace an error of this block by what would fit, if memory could not be allocated.

    Raises:
        OutOfMemory: naming the key, its value, and what to do.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RunFailed) or not is_out_of_memory(error):
            raise
        message = advice(config, command, str(error))
    else:
        return
    raise OutOfMemory(message)  # here, so that the error, whose frames keep tensors alive, is gone


def advice(config: Config, command: Command, reason: str) -> str:
    """What to do where a batch does not fit; `reason` is torch's message."""
    training, requested = config.training, REQUESTED.search(reason)
    why = f"t{requested[0][1:]}" if requested else reason.partition("\n")[0]
    parts = [f"out of memory ({why}): training.batch_size={training.batch_size} does not fit"]
    if 2 * training.accumulate <= training.batch_size:
        half = -(-training.batch_size // (2 * training.accumulate))
        parts.append(f"training.accumulate={2 * training.accumulate} computes it in parts of {half} images")
    find = str(command.single(command.overrides)).replace("train.py", "scripts/find_batch.py", 1)
    return f"{'; '.join(parts)}; this finds the largest batch size that fits:  {find}"


def limit_memory() -> None:
    """Limit the memory of this process to what is free now: an allocation then fails, before the system kills the process."""
    if sys.platform != "linux":
        return
    import resource  # not on Windows

    def kilobytes(file: str, name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+)", Path(file).read_text(encoding="utf-8"))[1])  # type: ignore[index]

    used, allocated = (kilobytes("/proc/self/status", name) for name in ("VmRSS", "VmData"))
    free = min(kilobytes("/proc/meminfo", "MemAvailable"), memory_limit() // 1024 - used)
    limit = 1024 * (allocated + max(0, free) * 9 // 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    known = [value for value in (soft, hard, limit) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
