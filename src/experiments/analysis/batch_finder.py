"""The largest batch size that fits in memory, found by trying steps of training, each time in a new process."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch

from experiments.config import Config, UserError
from experiments.data import Splits, load_splits
from experiments.data.batches import Batches
from experiments.reports.features import prepared
from experiments.reports.terminal import silenced
from experiments.runs.weights import initial_weights
from experiments.training.devices import choose_device, deterministic
from experiments.training.evaluation import batch_size, predict
from experiments.training.learner import Learner, initial_model, training_batches
from experiments.training.out_of_memory import is_out_of_memory, limit_memory

LEAST = 2  # a batch of one image has no variance for BatchNorm
STEPS = 2  # the first one allocates the state of the optimizer
OF_A_RUN = ("experiments.experiment", "experiments.runs.tracker")  # modules that take memory, too
RESERVE = 512 << 20  # bytes on a CPU, for what a run does besides: MLflow, threads, the report


def largest_batch_size(config: Config, tell: Callable[[str], None]) -> tuple[int, int | None]:
    """(batch size that fits, one that does not) of a run of `config`; the second is None if all training images fit.

    Args:
        tell: called with the result of each try, in words.

    Raises:
        UserError: not even the smallest batch fits, or a mistake that only shows here, such as missing data.
    """
    images = len(load_splits(config.data).train)
    processes = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    processes.set_forkserver_preload([__name__, *OF_A_RUN])  # the imports take seconds

    def fits(size: int) -> bool:
        training = dataclasses.replace(config.training, batch_size=size)
        with ProcessPoolExecutor(1, processes) as pool:  # memory that a try has left would change the next one
            try:
                there = pool.submit(computes, dataclasses.replace(config, training=training)).result()
            except BrokenProcessPool:  # the system has killed it
                there = False
        tell(f"training.batch_size={size}: {'fits' if there else 'out of memory'}")
        return there

    least = LEAST * config.training.accumulate
    first = min(max(least, config.training.batch_size), images)
    largest, too_large = search(fits, first, least, images)
    if not largest:
        raise UserError(
            f"training.batch_size={too_large}: does not fit in memory; take a smaller network, or smaller images"
        )
    return largest, too_large


def search(fits: Callable[[int], bool], first: int, least: int, most: int) -> tuple[int, int | None]:
    """(largest size that fits, to within an eighth, or 0; smallest size that did not fit, or None).

    Sizes from `least` to `most` are tried: they are doubled or halved from `first` on, then bisected.
    """
    fitting, failing, size = 0, None, first
    while fitting < most and (failing is None or failing > least) and not (fitting and failing):
        if fits(size):
            fitting, size = size, min(2 * size, most)
        else:
            failing, size = size, max(size // 2, least)
    while fitting and failing and failing - fitting > max(1, fitting // 8):
        size = (fitting + failing) // 2
        if fits(size):
            fitting = size
        else:
            failing = size
    return fitting, failing


def computes(config: Config) -> bool:
    """Whether memory is enough for steps with the largest batch of an epoch and for an evaluation, beside what a run keeps there."""
    splits, device = load_splits(config.data), choose_device(config)
    try:
        if device.type == "cpu":
            limit_memory()
            reserve = np.empty(RESERVE, dtype=np.uint8)  # noqa: F841 - until the end
        with deterministic(config):  # its algorithms take more memory
            _compute(config, splits, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _compute(config: Config, splits: Splits, device: torch.device) -> None:
    learner = Learner.create(config, initial_model(config, splits, initial_weights(config)), splits.train, device)
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
    size = batch_size(splits.image_shape, device.type)
    some = Batches(inputs.validation[:size], size, device, streamed=False)
    predict(learner.eval_forward, some, learner.autocast, config.evaluation.tta)
