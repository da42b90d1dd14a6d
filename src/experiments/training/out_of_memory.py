"""Running out of memory, of the GPU or of the machine: one message with what to do instead of a traceback."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from experiments.config import Config
from experiments.config.command_line import Command
from experiments.config.errors import RunFailed

# In messages of errors without a class of their own: of the CPU; of MPS and CUDA's driver; of a library of CUDA.
TEXTS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
REQUESTED = re.compile(r"ried to allocate [\d.]+ \w+")


class OutOfMemory(RunFailed):
    """A step needs more memory than there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)


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
    size = f" (t{requested[0]})" if requested else ""
    parts = [f"out of memory{size}: training.batch_size={training.batch_size} does not fit"]
    if 2 * training.accumulate <= training.batch_size:
        half = -(-training.batch_size // (2 * training.accumulate))
        parts.append(f"training.accumulate={2 * training.accumulate} computes it in parts of {half} images")
    find = str(command.single(command.overrides)).replace("train.py", "scripts/find_batch.py", 1)
    return f"{'; '.join(parts)}; this finds the largest batch size that fits:  {find}"
