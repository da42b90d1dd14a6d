"""A network whose gradients are added up over several processes."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Parallel:
    """A module whose backward pass gives every process the mean of the gradients of all, by DistributedDataParallel.

    Dropout draws other random numbers in each process, and torch's generator of the CPU, from which all of them draw the
    order of the images, does not change.
    """

    def __init__(self, module: nn.Module, rank: int, seed: int, parts: int, syncs_buffers: bool) -> None:
        self.module, self._rank, self._seed, self._parts = module, rank, seed, parts
        self._syncs_buffers = syncs_buffers
        self._wrapped: DistributedDataParallel | None = None
        self._trained: list[nn.Parameter] = []
        self._epoch, self._calls = 0, 0
        self.adds = False  # the gradients of the next call are only added to those of this process

    def begin(self, epoch: int, step: int) -> None:
        """Called before the step after `step` of an epoch; which parameters are trained may have changed."""
        self._epoch, self._calls = epoch, step * self._parts
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if list(map(id, trained)) != list(map(id, self._trained)):
            self._trained, self._wrapped = trained, None

    def __call__(self, images: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            self._seed_call(images.device)
            wrapped = self._wrapped or self._wrap(images)
            with wrapped.no_sync() if self.adds else contextlib.nullcontext():
                logits: Tensor = wrapped(images)
        self._calls += 1
        return logits

    def _seed_call(self, device: torch.device) -> None:
        words = np.random.SeedSequence((self._seed, self._epoch, self._calls, self._rank)).generate_state(1)
        torch.default_generator.manual_seed(int(words[0]))
        if device.type == "cuda":
            torch.cuda.manual_seed(int(words[0]))

    def _wrap(self, images: Tensor) -> DistributedDataParallel:
        """The wrapper, after one backward pass that changes nothing.

        DistributedDataParallel divides the gradients into buckets anew after its first backward pass, and the position in
        a bucket decides in which order the numbers of more than two processes are added. A run that continues must add
        them as one that was not interrupted.
        """
        if not self._syncs_buffers:  # they are the same in all processes; the method is that of PyTorch's documentation
            names = [name for name, _ in self.module.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.module, names)
        wrapped = DistributedDataParallel(self.module)
        before = [buffer.clone() for buffer in self.module.buffers()]
        wrapped(images).sum().backward()
        for buffer, value in zip(self.module.buffers(), before):
            buffer.copy_(value)
        for parameter in self._trained:
            parameter.grad = None
        self._seed_call(images.device)
        self._wrapped = wrapped
        return wrapped
