"""Optimizers, and how each of them treats which parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config.optimizers import AdamSettings, MuonSettings, OptimizerSettings, SGDSettings
from experiments.training import operators

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5 takes (0, 1] to about 1 in a few steps
NEWTON_SCHULZ_STEPS = 5


@dataclass
class Group:
    """Parameters that are updated by the same rule.

    Attributes:
        settings: their class chooses the rule, see `RULES`.
        base_lr: the learning rate that a schedule multiplies by a factor to get `lr`.
        share: of the head's learning rate; a part of `base_lr`.
        state: the tensors that the rule keeps between steps, under each name one per parameter.
        precision: the dtype that Muon orthogonalises in.
    """

    parameters: list[nn.Parameter]
    settings: OptimizerSettings
    base_lr: float
    weight_decay: float
    precision: torch.dtype
    share: float = 1.0

    def __post_init__(self) -> None:
        self.lr = self.base_lr
        self._rule, names = RULES[type(self.settings)]
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

    It calls PyTorch's fused kernels directly. `torch.optim` would add a tenth to a step of the default network with 32
    images, and import PyTorch's compiler, which takes 2 s.
    """

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups

    @property
    def parameters(self) -> int:
        """How many numbers are trained, at first or later."""
        return sum(parameter.numel() for group in self.groups for parameter in group.parameters)

    def zero_grad(self) -> None:
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            group.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the rules, without learning rates: these follow from the position in the run."""
        return {"groups": [group.state for group in self.groups]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for group, saved in zip(self.groups, state["groups"], strict=True):
            for name, tensors in group.state.items():
                for tensor, value in zip(tensors, saved[name], strict=True):
                    tensor.copy_(value)


def make_optimizer(
    model: nn.Module,
    settings: OptimizerSettings,
    precision: torch.dtype = torch.float32,
    shares: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """The optimizer of `settings` for the trainable parameters of `model`.

    Args:
        precision: the dtype that Muon orthogonalises in.
        shares: parameters whose learning rate is a share of that of the others.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = [(parameters, settings)]
    if isinstance(settings, MuonSettings):
        hidden = _hidden_weights(model)
        others = [parameter for parameter in parameters if all(parameter is not weight for weight in hidden)]
        parts = [(hidden, settings), (others, _adam_settings(settings))]
    shared = [(alike, rule, share) for some, rule in parts for alike, share in _by_share(some, shares or {})]
    groups = []
    for some, rule, share in shared:
        excluded = [p for p in some if p.ndim < 2 and settings.weight_decay_exclude == "bias_and_norm"]
        decayed = [p for p in some if all(p is not other for other in excluded)]
        for chosen, weight_decay in ((decayed, settings.weight_decay), (excluded, 0.0)):
            if chosen:
                groups.append(Group(chosen, rule, rule.lr * share, weight_decay, precision, share))
    return Optimizer(groups)


def _by_share(
    parameters: list[nn.Parameter], shares: Mapping[nn.Parameter, float]
) -> list[tuple[list[nn.Parameter], float]]:
    """(parameters, their share of the learning rate), the largest share first."""
    found = sorted({shares.get(parameter, 1.0) for parameter in parameters}, reverse=True)
    return [([one for one in parameters if shares.get(one, 1.0) == share], share) for share in found]


def _hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """The trainable weights between the first layer and the last, which are left out even if they are frozen."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    return [parameter for parameter in weights[1:-1] if parameter.requires_grad]


def _adam_settings(muon: MuonSettings) -> AdamSettings:
    """The settings of AdamW for the parameters that Muon does not train: biases, norms, the first and the last layer."""
    common = {field.name: getattr(muon, field.name) for field in dataclasses.fields(OptimizerSettings)}
    return AdamSettings(
        **common | {"name": "adamw", "lr": muon.adam_lr},
        beta1=muon.adam_beta1,
        beta2=muon.adam_beta2,
        epsilon=muon.adam_epsilon,
    )


Tensors = list[Tensor]


def _adam(
    group: Group, parameters: Tensors, gradients: Tensors, means: Tensors, squares: Tensors, steps: Tensors
) -> None:
    settings = group.settings
    assert isinstance(settings, AdamSettings)
    operators.adam(
        parameters, gradients, means, squares, steps, decoupled=settings.name == "adamw", lr=group.lr,
        beta1=settings.beta1, beta2=settings.beta2, weight_decay=group.weight_decay, eps=settings.epsilon,
    )  # fmt: skip


def _sgd(group: Group, parameters: Tensors, gradients: Tensors, momenta: Tensors) -> None:
    settings = group.settings
    assert isinstance(settings, SGDSettings)
    operators.sgd(
        parameters, gradients, momenta, lr=group.lr, momentum=settings.momentum, nesterov=settings.nesterov,
        weight_decay=group.weight_decay,
    )  # fmt: skip


def _muon(group: Group, parameters: Tensors, gradients: Tensors, momenta: Tensors) -> None:
    """Orthogonalised momentum (Jordan et al., 2024, kellerjordan.github.io/posts/muon), with decoupled weight decay.

    The weights of a convolution are treated as a matrix (out, in * height * width). The update is the momentum with its
    singular values set to about 1, times sqrt(rows / columns) if that is larger than 1. Weights whose scale is
    cancelled by a normalisation would grow and learn ever more slowly; `normalize_filters` keeps their size.
    """
    settings = group.settings
    assert isinstance(settings, MuonSettings)
    for weight, gradient, momentum in zip(parameters, gradients, momenta):
        momentum.mul_(settings.momentum).add_(gradient)
        matrix = (gradient.add(momentum, alpha=settings.momentum) if settings.nesterov else momentum).flatten(1)
        update = orthogonalize(matrix.to(group.precision)).reshape(weight.shape).to(weight.dtype)
        scale = max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
        if settings.normalize_filters:
            weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.mul_(1 - group.lr * group.weight_decay).add_(update, alpha=-group.lr * scale)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximately the nearest orthogonal matrix: the same singular vectors, singular values between about 0.7 and 1.2.

    Computed by Newton-Schulz iteration; very small singular values stay smaller. Dtype and shape are those of `matrix`.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # so that the products have the smaller size
    x = wide / (wide.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if wide is not matrix else x


RULES: dict[type[OptimizerSettings], tuple[Callable[..., None], tuple[str, ...]]] = {  # rule, names of its state
    AdamSettings: (_adam, ("means", "squares", "steps")),
    SGDSettings: (_sgd, ("momenta",)),
    MuonSettings: (_muon, ("momenta",)),
}
