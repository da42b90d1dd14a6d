"""BatchNorm of batches whose images are divided among processes.

`torch.nn.SyncBatchNorm` does the same, but only on GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise(module: nn.Module) -> None:
    """Replace every BatchNorm layer in `module` by one with the same parameters that uses the whole batch in training."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            layer = SynchronisedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            layer.weight, layer.bias = child.weight, child.bias
            layer.running_mean, layer.running_var = child.running_mean, child.running_var
            layer.num_batches_tracked = child.num_batches_tracked
            setattr(module, name, layer.train(child.training))
        else:
            synchronise(child)


class SynchronisedBatchNorm(_BatchNorm):
    """The statistics in training are those of the images of all processes. A process may have no image."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: the layer that this one replaces has checked it in the first forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        return self._normalised(input) if self.training else super().forward(input)

    @torch.compiler.disable  # torch.compile does not see through communication
    def _normalised(self, features: Tensor) -> Tensor:
        mean, variance, count = _statistics(features.detach())
        self._track(mean, variance, count)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        normalised: Tensor = _Normalise.apply(features, weight, bias, mean, variance, count, self.eps)
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics, as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.float()
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * (count / (count - 1)), factor)


def _statistics(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, number of values) per channel, over the images of all processes.

    All processes add up the same numbers in the same order, so that they get the same bits.
    """
    channels = features.shape[1]
    own = torch.zeros(2 * channels + 1, device=features.device)
    if len(features):
        own[:channels], own[channels:-1] = _moments(features.float())
        own[-1] = features.numel() // channels
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    parts = torch.stack(gathered).double()
    means, variances, counts = parts[:, :channels], parts[:, channels:-1], parts[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
    return mean.float(), variance.float(), count.float()


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel."""
    variance, mean = torch.var_mean(features, [axis for axis in range(features.ndim) if axis != 1], correction=0)
    return mean, variance


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, variance, count)
        ctx.eps = eps
        if not len(features):
            return torch.empty_like(features)
        return functional.batch_norm(features, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        """That of a normalisation by constants, without the parts that the mean and the variance pass on."""
        features, weight, mean, variance, count = ctx.saved_tensors
        own = torch.zeros(2, len(mean), device=mean.device)
        passed = torch.zeros_like(features)
        if len(features):
            passed, own[0], own[1] = torch.ops.aten.native_batch_norm_backward(
                gradients, features, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = own.clone()
        dist.all_reduce(sums)
        scale = (variance + ctx.eps).rsqrt()
        slope = weight * scale.square() * sums[0] / count
        constant = weight * scale * sums[1] / count - slope * mean
        shape = (1, -1, *(1,) * (features.ndim - 2))
        passed = passed - torch.addcmul(constant.view(shape), slope.view(shape), features).to(passed.dtype)
        return passed, own[0], own[1], None, None, None, None
