"""PyTorch's undocumented operators that the training uses, in one place, and the same computations by documented ones.

A PyTorch without one of them computes the same up to rounding, in more time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def _found(name: str) -> Any:
    """The operator of PyTorch; None if this version has none."""
    return getattr(torch, name, None)


ADAM, ADAMW, SGD = _found("_fused_adam_"), _found("_fused_adamw_"), _found("_fused_sgd_")
ADD, LERP = _found("_foreach_add_"), _found("_foreach_lerp_")


def adam(
    parameters: Tensors,
    gradients: Tensors,
    means: Tensors,
    squares: Tensors,
    steps: Tensors,
    *,
    decoupled: bool,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
) -> None:
    """One step of Adam (Kingma and Ba, 2015); with `decoupled`, of AdamW (Loshchilov and Hutter, 2019)."""
    kernel = ADAMW if decoupled else ADAM
    if kernel is not None and ADD is not None:
        ADD(steps, 1)
        kernel(
            parameters, gradients, means, squares, [], steps, lr=lr, beta1=beta1, beta2=beta2,
            weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    for parameter, gradient, mean, square, step in zip(parameters, gradients, means, squares, steps):
        step.add_(1)
        if decoupled:
            parameter.mul_(1 - lr * weight_decay)
        elif weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = (square / (1 - beta2**step)).sqrt_().add_(eps)
        parameter.sub_(mean / (1 - beta1**step) / size * lr)


def sgd(
    parameters: Tensors,
    gradients: Tensors,
    momenta: Tensors,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One step of stochastic gradient descent, with momenta that start at zero."""
    if SGD is not None:
        SGD(
            parameters, gradients, momenta if momentum else [], lr=lr, momentum=momentum, nesterov=nesterov,
            weight_decay=weight_decay, dampening=0.0, maximize=False, is_first_step=False,
        )  # fmt: skip
        return
    for parameter, gradient, average in zip(parameters, gradients, momenta):
        if weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        if momentum:
            average.mul_(momentum).add_(gradient)
            gradient = gradient.add(average, alpha=momentum) if nesterov else average
        parameter.sub_(gradient, alpha=lr)


def lerp(averages: Tensors, values: Tensors, weight: float) -> None:
    """Move every average towards its value by a fraction of their difference."""
    if LERP is not None:
        LERP(averages, values, weight)
        return
    for average, value in zip(averages, values):
        average.lerp_(value, weight)


def cpu_has_bf16() -> bool:
    """Whether this processor computes in bfloat16; also true if PyTorch does not say."""
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return check is None or bool(check())
