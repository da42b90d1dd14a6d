"""The largest batch size that fits in memory, found by trying steps of training."""

from __future__ import annotations

import dataclasses
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from experiments.config import Config, UserError
from experiments.data import Splits, load_splits
from experiments.files.limits import memory_limit
from experiments.models.weights import Weights
from experiments.reports.features import prepared
from experiments.reports.terminal import silenced
from experiments.runs.weights import initial_weights
from experiments.training.devices import choose_device
from experiments.training.learner import Learner, initial_model, training_batches
from experiments.training.out_of_memory import is_out_of_memory

LEAST = 2  # a batch of one image has no variance for BatchNorm
STEPS = 3  # the first one allocates the state of the optimizer


def largest_batch_size(config: Config, tell: Callable[[str], None]) -> tuple[int, int | None]:
    """(batch size that fits, one that does not) of a run of `config`; the second is None if all training images fit.

    Args:
        tell: called with the result of each try, in words.

    Raises:
        UserError: not even the smallest batch fits, or a mistake that only shows here, such as missing data.
    """
    splits = load_splits(config.data)
    device = choose_device(config)
    weights = initial_weights(config)
    if device.type == "cpu":
        limit_memory()

    def fits(size: int) -> bool:
        there = fits_in_memory(config, splits, device, weights, size)
        tell(f"training.batch_size={size}: {'fits' if there else 'out of memory'}")
        return there

    least = LEAST * config.training.accumulate
    largest, too_large = search(
        fits, min(max(least, config.training.batch_size), len(splits.train)), least, len(splits.train)
    )
    if not largest:
        raise UserError(f"training.batch_size={too_large}: does not fit in memory, and smaller ones make no sense")
    return largest, too_large


def search(fits: Callable[[int], bool], first: int, least: int, most: int) -> tuple[int, int | None]:
    """(largest size that fits, to within a sixteenth, or 0; smallest size that did not fit, or None).

    Sizes from `least` to `most` are tried: they are doubled or halved from `first` on, then bisected.
    """
    fitting, failing, size = 0, None, first
    while fitting < most and (failing is None or failing > least) and not (fitting and failing):
        if fits(size):
            fitting, size = size, min(2 * size, most)
        else:
            failing, size = size, max(size // 2, least)
    while fitting and failing and failing - fitting > max(1, fitting // 16):
        size = (fitting + failing) // 2
        if fits(size):
            fitting = size
        else:
            failing = size
    return fitting, failing


def fits_in_memory(config: Config, splits: Splits, device: torch.device, weights: Weights | None, size: int) -> bool:
    """Whether steps with the largest batch of an epoch can be computed, at a batch size of `size`."""
    training = dataclasses.replace(config.training, batch_size=size)
    there = True
    try:
        _step(dataclasses.replace(config, training=training), splits, device, weights)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        there = False
    gc.collect()  # what the step has left, now that its frames are gone
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return there


def _step(config: Config, splits: Splits, device: torch.device, weights: Weights | None) -> None:
    learner = Learner.create(config, initial_model(config, splits, weights), splits.train, device)
    with silenced():
        inputs = prepared(learner, splits)
    batches = training_batches(config, inputs.train, device, inputs.validation)
    epoch = config.training.epochs  # the last one trains all layers, with images of full size
    learner.train_mode(epoch)
    place = max(range(len(batches)), key=batches.sizes.__getitem__)
    for _ in range(STEPS):
        loss, _ = learner.step(next(batches.from_step(place)), epoch)
        if learner.average:
            learner.average.update(place)
    loss.item()  # waits for a GPU


def limit_memory() -> None:
    """Limit the memory of this process to what is free now: an allocation then fails, before the system kills the process."""
    if sys.platform != "linux":
        return
    import resource  # not on Windows

    def kilobytes(file: str, name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+)", Path(file).read_text())[1])  # type: ignore[index]

    used, allocated = (kilobytes("/proc/self/status", name) for name in ("VmRSS", "VmData"))
    free = min(kilobytes("/proc/meminfo", "MemAvailable"), memory_limit() // 1024 - used)
    limit = 1024 * (allocated + max(0, free) * 9 // 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    known = [value for value in (soft, hard, limit) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
