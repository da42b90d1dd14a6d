"""2x2 max-pooling, with or without ReLU, in one pass over the memory of a CPU, for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

try:  # after torch, because they share threads
    from experiments.models import _pooling as kernel  # type: ignore[attr-defined]
except ImportError:  # installed without a C compiler that supports OpenMP
    kernel = None

LAYOUT = torch.channels_last


def fits_kernel(features: Tensor) -> bool:
    """Whether the kernel was compiled and supports these features; torch.compile is faster without it."""
    return (
        kernel is not None
        and features.device.type == "cpu"
        and features.dtype in (torch.float32, torch.bfloat16)
        and features.is_contiguous(memory_format=LAYOUT)
        and not torch.compiler.is_compiling()
    )


def max_pool2x2(features: Tensor, relu: bool) -> Tensor:
    """`max_pool2d(features, 2)`, with `relu` also ReLU, for features that fit the kernel.

    (batch, C, H, W) to (batch, C, H // 2, W // 2). Values and gradients are those of PyTorch to the last bit.
    """
    maxima: Tensor = _MaxPool.apply(features, relu)
    return maxima


class MaxPool2x2(nn.MaxPool2d):
    """`MaxPool2d(2)`, faster in training on a CPU."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, features: Tensor) -> Tensor:
        return (
            max_pool2x2(features, relu=False) if self.training and fits_kernel(features) else super().forward(features)
        )


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, relu: bool) -> Tensor:
        batch, channels, height, width = ctx.shape = features.shape
        half = (batch, channels, height // 2, width // 2)
        maxima = torch.empty(half, dtype=features.dtype, memory_format=LAYOUT)
        ctx.positions = torch.empty(half, dtype=torch.uint8, memory_format=LAYOUT)
        _call(kernel.forward, (features, maxima, ctx.positions), ctx.shape, relu)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        features = torch.empty(ctx.shape, dtype=gradients.dtype, memory_format=LAYOUT)
        _call(kernel.backward, (features, gradients.contiguous(memory_format=LAYOUT), ctx.positions), ctx.shape)
        return features, None


def _call(function: Any, tensors: tuple[Tensor, Tensor, Tensor], shape: torch.Size, relu: bool = False) -> None:
    batch, channels, height, width = shape
    pointers = (tensor.data_ptr() for tensor in tensors)
    function(*pointers, batch, height, width, channels, tensors[0].element_size(), torch.get_num_threads(), relu)
