"""Optimizers, and which parameters they treat how."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from experiments import config

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5, which takes (0, 1] to about 1 in a few steps
NEWTON_SCHULZ_STEPS = 5
REST = {"betas": (0.9, 0.95), "eps": 1e-8}  # of the Adam that trains what Muon does not


def make_optimizer(
    model: nn.Module, settings: config.Optimizer, precision: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, over the parameters of `model` that learn.

    Every group keeps its own rate of the start as `initial_lr`; a schedule sets `lr` as a share of that.

    Args:
        precision: that Muon orthogonalises in.
    """
    optimizer = _make(model, settings, precision)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _make(model: nn.Module, settings: config.Optimizer, precision: torch.dtype) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if isinstance(settings, config.Muon):
        hidden = _hidden(model)
        rest = [parameter for parameter in parameters if all(parameter is not other for other in hidden)]
        own = {"muon": True, "lr": settings.lr, "momentum": settings.momentum, "nesterov": settings.nesterov}
        others = {"muon": False, "lr": settings.rest_lr, "fused": True, **REST}
        return Muon(
            [own | group for group in _groups(hidden, settings)]
            + [others | group for group in _groups(rest, settings)],
            precision,
        )
    groups = _groups(parameters, settings)
    if isinstance(settings, config.Adam):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, settings.lr, (settings.beta1, settings.beta2), settings.epsilon, fused=True)
    assert isinstance(settings, config.SGD)
    return torch.optim.SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov, fused=True)


def _groups(parameters: list[nn.Parameter], settings: config.Optimizer) -> list[dict[str, Any]]:
    """Those with weight decay, and those without: biases, and the scales and shifts of norms, have one dimension."""
    spared = [p for p in parameters if p.ndim < 2] if settings.weight_decay_on == "weights" else []
    decayed = [p for p in parameters if p.ndim >= 2] if settings.weight_decay_on == "weights" else parameters
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _hidden(model: nn.Module) -> list[nn.Parameter]:
    """The weights between the first layer and the last that learn; of these two a frozen one counts as well."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    return [parameter for parameter in weights[1:-1] if parameter.requires_grad]


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for weights, Adam for everything else (Jordan et al., 2024, kellerjordan.github.io/posts/muon).

    Groups of `muon=True` have lr, momentum, nesterov, weight_decay, and weights of at least two dimensions, of which
    a convolution's are taken as a matrix (out, in * height * width). The update is the momentum with its singular
    values made about 1, times sqrt(out / in) where that is larger than 1. Other groups are those of a fused AdamW.
    Weight decay is decoupled in both.
    """

    def __init__(self, groups: list[dict[str, Any]], precision: torch.dtype) -> None:
        super().__init__(groups, {})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (self._orthogonal_step if group["muon"] else self._adam_step)(group)

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum: Tensor = state["momentum"].mul_(group["momentum"]).add_(weight.grad)
            direction = weight.grad.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
            matrix = direction.flatten(1)
            update = orthogonalized(matrix.to(self.precision)).reshape(direction.shape).to(weight.dtype)
            scale = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    def _adam_step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "mean": torch.zeros_like(parameter),
                    "square": torch.zeros_like(parameter),
                }
        means, squares, steps = (
            [self.state[parameter][name] for parameter in parameters] for name in ("mean", "square", "step")
        )
        adam(
            parameters, [parameter.grad for parameter in parameters], means, squares, [], steps,
            fused=True, decoupled_weight_decay=True, amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1],
            lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip


def orthogonalized(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly: the same singular vectors, with singular values between about 0.7 and 1.2.

    By Newton-Schulz iteration; very small singular values stay below that. Dtype and shape are those of `matrix`.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # the products are those of the shorter side
    x = wide / (wide.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if wide is not matrix else x
