"""One run by several processes: torchrun --nproc-per-node=2 train.py data=digits

ranks = join(config, command)                     # `OneProcess` without torchrun, which has the same methods
splits = ranks.in_turn(lambda: load_splits(config.data))
stop = ranks.decided(lambda: stopping.update(epoch))

Every process trains on its own rows of every batch. The first one, rank 0, leads: it decides, writes and prints.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from experiments.config import Config, UserError, processes
from experiments.config.processes import Processes, launched

if TYPE_CHECKING:  # a mistake in the data is shown before torch is imported, which takes seconds
    from torch import Tensor, nn

    from experiments.data import Images
    from experiments.data.rows import Rows
    from experiments.training.parallel import Parallel

T = TypeVar("T")
TIMEOUT = timedelta(seconds=45)  # of the communication in a step; what may take longer waits in `Connection.meet`


class OneProcess:
    """A run of this process alone: the methods of `Ranks`, without anything to wait for."""

    rank, count, leads = 0, 1, True
    rows: Rows | None = None

    def in_turn(self, function: Callable[[], T]) -> T:
        return function()

    def decided(self, decide: Callable[[], T]) -> T:
        return decide()

    def watching(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def part(self, images: Images) -> Images:
        return images

    def sum(self, values: Tensor) -> Tensor:
        return values

    def mean(self, values: Tensor) -> float:
        return values.mean().item()

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        return rows

    def hand_on(self, give: Callable[[], T], take: Callable[[T], None]) -> None: ...

    def parallel(self, module: Callable[[Tensor], Tensor], config: Config) -> Callable[[Tensor], Tensor]:
        return module

    def check(self, config: Config, images: int) -> None: ...

    def synchronise(self, model: nn.Module) -> None: ...

    def same_buffers(self, model: nn.Module) -> None: ...


class Ranks:
    """This process among several ones.

    Attributes:
        rank: the number of this process, from 0.
        leads: it is rank 0.
        rows: of a batch that this process trains on.
    """

    def __init__(self, here: Processes, config: Config, how_to_continue: str) -> None:
        from torch import distributed as dist

        from experiments.data.rows import Rows
        from experiments.training.connection import Connection
        from experiments.training.devices import device_type

        self.rank, self.count, self.leads = here.rank, here.count, here.rank == 0
        training = config.training
        self.rows: Rows | None = Rows(self.rank, self.count, training.batch_size, training.accumulate)
        kind, self._local = device_type(config), training.batch_norm == "local"
        if kind == "mps":
            raise UserError("device=mps: several processes need device=cpu or device=cuda")
        self._connection = Connection(self.rank, self.count, how_to_continue)
        processes.at_end(self._connection.end)
        if not self.leads:
            logging.disable(logging.WARNING)  # rank 0 prints the same ones
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        group = dist.PrefixStore("group", self._connection.store)
        dist.init_process_group(backend, store=group, rank=self.rank, world_size=self.count, timeout=TIMEOUT)

    def in_turn(self, function: Callable[[], T]) -> T:
        """What `function` returns in this process: called when rank 0 has called it, which downloads and fills caches."""
        if self.leads:
            result = function()
        self._connection.meet(0)
        if not self.leads:
            result = function()
        self._connection.meet(*range(self.count))
        return result

    def decided(self, decide: Callable[[], T]) -> T:
        """What `decide` returns in rank 0, in every process: None, or a value that JSON has."""
        return self._connection.decided(decide)

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Turn an error of the communication in this block into a message."""
        return self._connection.watching()

    def hand_on(self, give: Callable[[], T], take: Callable[[T], None]) -> None:
        """Call `take` in the other processes with what `give` returns in rank 0: containers and tensors."""
        import torch
        from torch import distributed as dist

        written = io.BytesIO()
        if self.leads:
            torch.save(give(), written)
        self._connection.meet(*range(self.count))
        held = [written.getvalue()]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        if not self.leads:
            take(torch.load(io.BytesIO(held[0]), map_location="cpu", weights_only=True))

    def largest(self, number: int) -> Callable[[], int]:
        """Begin to find the largest number of all processes; the result waits for it."""
        import torch
        from torch import distributed as dist

        found = torch.tensor(number)
        work = dist.all_reduce(found, dist.ReduceOp.MAX, async_op=True)

        def result() -> int:
            work.wait()
            return int(found)

        return result

    def parallel(self, module: Callable[[Tensor], Tensor], config: Config) -> Parallel:
        """The module with gradients that are the mean over all processes."""
        from torch import nn

        from experiments.training.parallel import Parallel

        assert isinstance(module, nn.Module)
        return Parallel(module, self.rank, config.seed, config.training.accumulate, self._local)

    def part(self, images: Images) -> Images:
        """The images that this process evaluates.

        Raises:
            UserError: there are fewer images than processes.
        """
        import numpy as np

        if len(images) < self.count:
            raise UserError(f"data: {len(images)} images cannot be divided among {self.count} processes")
        return images[np.array_split(np.arange(len(images)), self.count)[self.rank]]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same in each of them: added in float64, so that the order does not matter."""
        import torch
        from torch import distributed as dist

        total = values.to("cpu", torch.float64 if values.is_floating_point() else torch.int64, copy=True)
        dist.all_reduce(total)
        return total.to(values.device, values.dtype)

    def mean(self, values: Tensor) -> float:
        """The mean over the values of all processes."""
        import torch

        total, count = self.sum(torch.tensor([values.double().sum().item(), len(values)], dtype=torch.float64)).tolist()
        return float(total / count)

    def gathered(self, rows: Tensor, count: int) -> Tensor:
        """The rows of all processes, of which each has a part, see `part`."""
        import numpy as np
        from torch import distributed as dist

        own = np.array_split(np.arange(count), self.count)[self.rank]
        together = rows.new_zeros((count, *rows.shape[1:]))
        together[own[0] : own[-1] + 1] = rows
        dist.all_reduce(together)
        return together

    def check(self, config: Config, images: int) -> None:
        """Raise a UserError if a process has too few images of a batch for BatchNorm; `images`: in the training set."""
        from experiments.data.batches import batch_sizes

        assert self.rows is not None
        sizes = batch_sizes(images, config.training.batch_size, merge=True)
        if self._local and min(len(part) for size in {sizes[0], *sizes[-2:]} for part in self.rows.of(size)) < 2:
            raise UserError(
                f"training.batch_norm=local: a batch of {min(sizes)} has fewer than 2 images for each of {self.count} "
                "processes; use training.batch_norm=synchronised, or a larger training.batch_size"
            )

    def synchronise(self, model: nn.Module) -> None:
        """Let BatchNorm use the whole batch, unless training.batch_norm is local."""
        from experiments.models.batch_norm import synchronise

        if not self._local:
            synchronise(model)

    def same_buffers(self, model: nn.Module) -> None:
        """Give `model` the running statistics of rank 0, if those of the processes differ."""
        from torch import distributed as dist

        for buffer in model.buffers() if self._local else ():
            dist.broadcast(buffer, src=0)


def join(config: Config, how_to_continue: str) -> OneProcess | Ranks:
    """Connect this process with the others that torchrun has started; `how_to_continue`: the end of a message.

    Raises:
        UserError: the device cannot be used by several processes.
    """
    here = launched()
    return OneProcess() if here.count == 1 else Ranks(here, config, how_to_continue)
