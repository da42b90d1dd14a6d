"""A network compiled by torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def compiled(model: nn.Module, device: torch.device, sizes: int) -> Callable[[Tensor], Tensor]:
    """`model` by torch.compile, with CUDA graphs on a GPU; each size of a batch and of an image is compiled separately.

    PyTorch counts the compilations of a process. Beyond a limit it would run the model without compiling it, which may
    change the numbers. So each run starts at 0, the limit fits its shapes, and a run that reaches it fails.
    """
    from torch import _dynamo  # takes 2 s

    _dynamo.reset()
    _dynamo.config.recompile_limit = 8 * 2 * sizes  # 8 is PyTorch's default, for one shape
    _dynamo.config.fail_on_recompile_limit_hit = True
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(model, mode=mode, dynamic=False)
