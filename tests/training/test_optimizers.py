"""Which parameters an optimizer treats how, and its updates."""

import copy

import pytest
import torch
from torch import nn

from experiments.config.composition import with_defaults
from experiments.config.loading import compose_config
from experiments.training import operators
from experiments.training.averaging import ExponentialMovingAverage
from experiments.training.optimizers import Group, Optimizer, make_optimizer, orthogonalize


class Net(nn.Sequential):
    """Two frozen filters, a convolution, a norm, and two dense layers."""

    def __init__(self):
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 2, 1),
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.Linear(8, 3),
        )
        super().__init__(*layers)
        self[0].requires_grad_(False)


def optimizer_of(model, *overrides):
    return make_optimizer(model, compose_config(overrides).optimizer)


def names(model, group):
    return {name for name, parameter in model.named_parameters() if any(parameter is p for p in group.parameters)}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_can_exclude_biases_and_norms(name):
    model = Net()
    decay = (f"optimizer={name}", "optimizer.weight_decay=0.1", "optimizer.lr=0.2")
    (everything,) = optimizer_of(model, *decay).groups
    weights, rest = optimizer_of(model, *decay, "optimizer.weight_decay_exclude=bias_and_norm").groups
    assert names(model, weights) == {"1.weight", "4.weight", "5.weight"}
    assert names(model, rest) == {"1.bias", "2.weight", "2.bias", "4.bias", "5.bias"}
    assert names(model, everything) == names(model, weights) | names(model, rest)
    assert (everything.weight_decay, weights.weight_decay, rest.weight_decay) == (0.1, 0.1, 0)
    assert everything.lr == weights.lr == rest.lr == 0.2


def test_muon_trains_the_layers_between_the_first_and_the_last():
    model = Net()
    hidden, head, rest = optimizer_of(model, "optimizer=muon", "optimizer.lr=0.1", "optimizer.adam_lr=0.01").groups
    assert names(model, hidden) == {"1.weight", "4.weight"}  # the first is frozen
    assert names(model, head) == {"5.weight"}
    assert names(model, rest) == {"1.bias", "2.weight", "2.bias", "4.bias", "5.bias"}
    assert [group.lr for group in (hidden, head, rest)] == [0.1, 0.01, 0.01]
    model[0].requires_grad_(True)
    assert names(model, optimizer_of(model, "optimizer=muon").groups[0]) == {"1.weight", "4.weight"}
    model[4].requires_grad_(False)
    assert names(model, optimizer_of(model, "optimizer=muon").groups[0]) == {"1.weight"}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_the_singular_values_of_an_update_are_about_one(shape, precision):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, -1.6, min(shape))) @ right
    found = orthogonalize(matrix.to(precision)).float()
    values = torch.linalg.svdvals(found)
    assert found.shape == shape and values.min() > 0.65 and values.max() < 1.25
    assert torch.nn.functional.cosine_similarity(found, left @ right).min() > 0.9


@pytest.mark.parametrize("normalize_filters", [False, True])
def test_a_step_of_muon(normalize_filters):
    """For a convolution, against the definition; with more rows than columns the step is longer."""
    weight = nn.Parameter(torch.randn(40, 4, 2, 2, generator=torch.Generator().manual_seed(1)))
    settings = compose_config(
        ["optimizer=muon", "optimizer.momentum=0.5", f"optimizer.normalize_filters={normalize_filters}"]
    ).optimizer
    optimizer = Optimizer([Group([weight], settings, 0.1, 0.2, torch.float32)])
    momentum, expected = torch.zeros_like(weight), weight.detach().clone()
    for seed in range(3):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        momentum = 0.5 * momentum + weight.grad
        update = orthogonalize((weight.grad + 0.5 * momentum).view(40, 16)).view(weight.shape)
        if normalize_filters:
            expected = expected / expected.flatten(1).norm(dim=1).square().mean().sqrt()
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * (40 / 16) ** 0.5 * update
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


pytestmark = pytest.mark.numbers
TORCHS = [
    (["optimizer=adam", "optimizer.weight_decay=0.1"], torch.optim.Adam, {"eps": 1e-7, "weight_decay": 0.1}),
    (["optimizer=adam"], torch.optim.Adam, {"eps": 1e-7}),
    (["optimizer=adamw"], torch.optim.AdamW, {"weight_decay": 0.01}),
    (["optimizer=sgd"], torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    (["optimizer=sgd", "optimizer.nesterov=false"], torch.optim.SGD, {"momentum": 0.9, "weight_decay": 5e-4}),
    (["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false"], torch.optim.SGD, {"weight_decay": 5e-4}),
]
PRIVATE = ("ADAM", "ADAMW", "SGD", "ADD", "LERP")


def test_this_pytorch_has_the_private_operators():
    assert all(getattr(operators, name) is not None for name in PRIVATE)
    assert operators.cpu_has_bf16() in (True, False) and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")


@pytest.mark.parametrize("private", [True, False], ids=["private", "documented"])
@pytest.mark.parametrize(("overrides", "kind", "settings"), TORCHS)
def test_updates_are_those_of_torch(overrides, kind, settings, private, monkeypatch):
    """To the bit; without the private operators up to rounding."""
    for name in () if private else PRIVATE:
        monkeypatch.setattr(operators, name, None)
    model = Net().to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    optimizer = optimizer_of(model, *overrides, "optimizer.lr=0.01")
    theirs = kind([p for p in twin.parameters() if p.requires_grad], lr=0.01, fused=True, **settings)
    for seed in range(4):
        for network in (model, twin):
            generator = torch.Generator().manual_seed(seed)
            for name, parameter in network.named_parameters():
                gradient = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
                parameter.grad = None if name == "4.bias" and seed == 1 else gradient
        optimizer.step()
        theirs.step()
    for mine, expected in zip(model.parameters(), twin.parameters()):
        if private:
            assert torch.equal(mine, expected)
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_averages_without_the_private_operator(monkeypatch):
    found = []
    for lerp in (operators.LERP, None):
        monkeypatch.setattr(operators, "LERP", lerp)
        model = Net()
        average = ExponentialMovingAverage(model, 0.9)
        with torch.no_grad():
            model[4].weight.add_(1)
        average.update(3)
        found.append(average.model[4].weight)
    torch.testing.assert_close(*found)
    assert not torch.equal(found[0], Net()[4].weight)


MUONS_ADAM = {"adam_beta1": 0.8, "adam_beta2": 0.99, "adam_epsilon": 1e-4}


@pytest.mark.parametrize("values", [{}, MUONS_ADAM], ids=["default", "other"])
def test_the_rest_is_trained_by_torchs_adamw(values):
    model = Net()
    twin = copy.deepcopy(model)
    overrides = [f"optimizer.{key}={value}" for key, value in values.items()]
    optimizer = optimizer_of(model, "optimizer=muon", "optimizer.weight_decay=0.3", *overrides)
    beta1, beta2, epsilon = values.values() or (0.9, 0.95, 1e-8)
    spared = [p for p in twin.parameters() if p.requires_grad and p.ndim < 2]
    theirs = torch.optim.AdamW(
        [{"params": [twin[5].weight], "weight_decay": 0.3}, {"params": spared, "weight_decay": 0.0}],
        lr=0.003, betas=(beta1, beta2), eps=epsilon, fused=True,
    )  # fmt: skip
    for seed in range(3):
        for network in (model, twin):
            generator = torch.Generator().manual_seed(seed)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        theirs.step()
    assert torch.equal(model[5].weight, twin[5].weight) and torch.equal(model[2].weight, twin[2].weight)
    assert not torch.equal(model[4].weight, twin[4].weight)


def test_a_run_of_muon_that_was_saved_without_the_keys_of_its_adam_has_their_defaults():
    config = compose_config(["optimizer=muon"])
    saved = config.to_dict()
    for key in MUONS_ADAM:
        del saved["optimizer"][key]
    assert with_defaults(saved) == config


def test_muon_saved_and_loaded_continues_to_the_same_bits(tmp_path):
    def train(model, optimizer, seeds):
        for seed in seeds:
            images = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()

    model = Net()
    optimizer = optimizer_of(model, "optimizer=muon")
    train(model, optimizer, range(3))
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state")
    train(model, optimizer, range(3, 6))

    other = Net()
    again = optimizer_of(other, "optimizer=muon")
    for part, state in zip((other, again), torch.load(tmp_path / "state", weights_only=True)):
        part.load_state_dict(state)
    train(other, again, range(3, 6))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other.parameters(), model.parameters()))
