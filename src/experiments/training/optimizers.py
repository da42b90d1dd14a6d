"""Optimizers, and which parameters they treat how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import config

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5, which takes (0, 1] to about 1 in a few steps
NEWTON_SCHULZ_STEPS = 5


@dataclass
class Group:
    """Parameters that one rule updates.

    Attributes:
        settings: those of the rule.
        base_rate: the learning rate of which a schedule takes its share, `rate`.
        state: what the rule remembers, a tensor a parameter under each name.
        precision: that Muon orthogonalises in.
    """

    parameters: list[nn.Parameter]
    settings: config.OptimizerSettings
    base_rate: float
    weight_decay: float
    precision: torch.dtype

    def __post_init__(self) -> None:
        self.rate = self.base_rate
        self._rule, names = RULES[self.settings.name]
        self.state = {name: [_zeros(name, parameter) for parameter in self.parameters] for name in names}

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        rows = zip(self.parameters, *self.state.values())
        updated = [(row[0], row[0].grad, *row[1:]) for row in rows if row[0].grad is not None]
        if updated:
            self._rule(self, *map(list, zip(*updated)))


def _zeros(name: str, parameter: nn.Parameter) -> Tensor:
    return torch.zeros((), device=parameter.device) if name == "steps" else torch.zeros_like(parameter)


class Optimizer:
    """Groups of parameters, each updated by its rule.

    These are torch's own fused kernels, without `torch.optim` around them: of a step of the notebook's network with 32
    pictures that takes a tenth, and it imports torch's compiler, which takes 2 s.
    """

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups

    def zero_grad(self) -> None:
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            group.step()

    def state_dict(self) -> dict[str, Any]:
        """What the rules remember; the learning rates follow from the position in the run."""
        return {"groups": [group.state for group in self.groups]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for group, saved in zip(self.groups, state["groups"], strict=True):
            for name, tensors in group.state.items():
                for tensor, value in zip(tensors, saved[name], strict=True):
                    tensor.copy_(value)


def make_optimizer(
    model: nn.Module, settings: config.OptimizerSettings, precision: torch.dtype = torch.float32
) -> Optimizer:
    """The optimizer that `settings` name, over the parameters of `model` that learn.

    Args:
        precision: that Muon orthogonalises in.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = [(parameters, settings)]
    if isinstance(settings, config.MuonSettings):
        hidden = _hidden(model)
        rest = [parameter for parameter in parameters if all(parameter is not other for other in hidden)]
        parts = [(hidden, settings), (rest, _of_the_rest(settings))]
    groups = []
    for some, rule in parts:
        spared = [p for p in some if p.ndim < 2 and settings.weight_decay_exclude == "bias_and_norm"]
        decayed = [p for p in some if all(p is not other for other in spared)]
        for chosen, weight_decay in ((decayed, settings.weight_decay), (spared, 0.0)):
            if chosen:
                groups.append(Group(chosen, rule, rule.lr, weight_decay, precision))
    return Optimizer(groups)


def _hidden(model: nn.Module) -> list[nn.Parameter]:
    """The weights between the first layer and the last that learn; of these two a frozen one counts as well."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    return [parameter for parameter in weights[1:-1] if parameter.requires_grad]


def _of_the_rest(muon: config.MuonSettings) -> config.AdamSettings:
    """What trains biases, norms, and the first and the last layer beside Muon."""
    common = {field.name: getattr(muon, field.name) for field in dataclasses.fields(config.OptimizerSettings)}
    return config.AdamSettings(**common | {"name": "adamw", "lr": muon.adam_lr}, beta1=0.9, beta2=0.95, epsilon=1e-8)


Tensors = list[Tensor]


def _adam(
    group: Group, parameters: Tensors, gradients: Tensors, means: Tensors, squares: Tensors, steps: Tensors
) -> None:
    """Adam (Kingma and Ba, 2015), or with decoupled weight decay AdamW (Loshchilov and Hutter, 2019)."""
    settings = group.settings
    assert isinstance(settings, config.AdamSettings)
    torch._foreach_add_(steps, 1)
    kernel = torch._fused_adamw_ if settings.name == "adamw" else torch._fused_adam_
    kernel(
        parameters, gradients, means, squares, [], steps, lr=group.rate, beta1=settings.beta1, beta2=settings.beta2,
        weight_decay=group.weight_decay, eps=settings.epsilon, amsgrad=False, maximize=False,
    )  # fmt: skip


def _sgd(group: Group, parameters: Tensors, gradients: Tensors, momenta: Tensors) -> None:
    settings = group.settings
    assert isinstance(settings, config.SGDSettings)
    torch._fused_sgd_(
        parameters, gradients, momenta if settings.momentum else [], lr=group.rate, momentum=settings.momentum,
        nesterov=settings.nesterov, weight_decay=group.weight_decay, dampening=0.0, maximize=False, is_first_step=False,
    )  # fmt: skip


def _muon(group: Group, parameters: Tensors, gradients: Tensors, momenta: Tensors) -> None:
    """Orthogonalised momentum (Jordan et al., 2024, kellerjordan.github.io/posts/muon), with decoupled weight decay.

    A convolution's weights are taken as a matrix (out, in * height * width). The update is the momentum with its
    singular values made about 1, times sqrt(rows / columns) where that is larger than 1. Weights whose scale
    a normalisation undoes would grow, and so learn ever more slowly: `normalize_filters` keeps their size.
    """
    settings = group.settings
    assert isinstance(settings, config.MuonSettings)
    for weight, gradient, momentum in zip(parameters, gradients, momenta):
        momentum.mul_(settings.momentum).add_(gradient)
        matrix = (gradient.add(momentum, alpha=settings.momentum) if settings.nesterov else momentum).flatten(1)
        update = orthogonalized(matrix.to(group.precision)).reshape(weight.shape).to(weight.dtype)
        scale = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
        if settings.normalize_filters:
            weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.mul_(1 - group.rate * group.weight_decay).add_(update, alpha=-group.rate * scale)


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


RULES: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {  # and what each remembers
    "adam": (_adam, ("means", "squares", "steps")),
    "adamw": (_adam, ("means", "squares", "steps")),
    "sgd": (_sgd, ("momenta",)),
    "muon": (_muon, ("momenta",)),
}
