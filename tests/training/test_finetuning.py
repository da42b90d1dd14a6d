"""Training with frozen layers, learning rates per layer, and batches in parts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from conftest import DIGITS
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.batches import Batches
from experiments.data.rows import split_in_parts
from experiments.experiment import run
from experiments.training import loop
from experiments.training.learner import Learner, initial_model, training_batches

CPU = torch.device("cpu")
SMALL = ("model.filters=4", "model.dense_width=16")
CNN_KEYS = [f"~model.{key}" for key in ("filters", "kernel_size", "dense_width", "blocks", "dropout")]


class Resnet(nn.Module):
    """torchvision's ResNet-18 with random weights."""

    head_prefix = "net.fc."

    def __init__(self, image_shape, classes):
        super().__init__()
        self.net = models.resnet18(num_classes=classes)

    def forward(self, images):
        return self.net(images)


RESNET = ["model._target_=test_finetuning.Resnet", *CNN_KEYS]


class Silent:
    def step(self, *_):
        pass


def learner_of(*overrides, images=100):
    settings = compose_config([*DIGITS, "data.seed=1", *overrides])
    splits = load_splits(settings.data)
    splits = dataclasses.replace(
        splits, train=splits.train[np.arange(images)], validation=splits.validation[np.arange(40)]
    )
    return Learner.create(settings, initial_model(settings, splits), splits.train, CPU), splits


def epochs(learner, splits, *numbers):
    batches = training_batches(learner.config, splits.train, CPU), Batches(splits.validation, 50, CPU)
    return list(loop.train(learner, *batches, numbers, Silent()))


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize(
    "network", [SMALL, ("model=fastnet", "model.widths=[4,4]"), RESNET], ids=["cnn", "fastnet", "resnet"]
)
def test_frozen_layers_do_not_change(network, optimizer):
    """Neither by weight decay, nor by an average, nor by statistics of batches; the head is trained."""
    learner, splits = learner_of(
        *network, f"optimizer={optimizer}", "optimizer.weight_decay=0.1", "training.freeze=backbone", "training.ema=0.5"
    )
    before = copied(learner.model)
    # an evaluation that averages views has no frozen features: every step computes all layers
    epochs(dataclasses.replace(learner, cut=None, forward=learner.model), splits, 1, 2)
    head = {name for name in before if name.startswith(f"network.{learner.model.head_prefix}")}
    assert changed(learner.model, before) == changed(learner.eval_model, before) == head
    assert learner.optimizer.parameters == sum(before[name].numel() for name in head)


def test_the_whole_network_is_trained_from_an_epoch_on():
    learner, splits = learner_of(*RESNET, "training.freeze=backbone", "training.unfreeze_epoch=3", "training.ema=0.5")
    before = copied(learner.model)
    first = epochs(learner, splits, 1, 2)
    assert changed(learner.model, before) == {"network.net.fc.weight", "network.net.fc.bias"}
    assert changed(learner.eval_model, before) == changed(learner.model, before)
    third = epochs(learner, splits, 3)
    everything = {
        f"network.{name}" for name, _ in learner.model.network.named_parameters()
    }  # not BatchNorm's statistics
    assert changed(learner.model, before) == changed(learner.eval_model, before) == everything
    (group,) = learner.optimizer.groups
    steps = dict(zip(group.parameters, group.state["steps"]))
    net = learner.model.network.net
    assert steps[net.fc.bias] == 3 * steps[net.conv1.weight] == 9  # of 3 batches
    assert all(np.isfinite(epoch.train_loss) for epoch in (*first, *third))


def test_only_named_modules_are_frozen():
    learner, splits = learner_of(*RESNET, "training.freeze=[net.conv1,net.bn1,net.layer1]")
    before = copied(learner.model)
    epochs(learner, splits, 1)
    moved = changed(learner.model, before)
    assert "network.net.layer2.0.bn1.running_mean" in moved and "network.net.layer2.0.conv1.weight" in moved
    assert not any(name.startswith(("network.net.conv1", "network.net.bn1", "network.net.layer1")) for name in moved)


@pytest.mark.slow
@pytest.mark.numbers
@pytest.mark.parametrize(
    "overrides",
    [
        ("training.freeze=backbone", "training.unfreeze_epoch=3"),
        ("training.freeze=['0']", "training.unfreeze_epoch=3", "training.ema=0.9", "optimizer=muon"),
        (
            "training.freeze=backbone",
            "training.unfreeze_epoch=3",
            "optimizer.backbone_lr=0.1",
            "optimizer.layer_decay=0.5",
        ),
        ("training.freeze=backbone",),
        ("training.accumulate=4", "augment.mixup=0.2"),
    ],
)
def test_a_run_that_is_cut_anywhere_continues_to_the_same_bits(tmp_path, monkeypatch, overrides):
    settings = compose_config(
        [
            *DIGITS,
            *SMALL,
            "model.dropout=0.2",
            "early_stopping.patience=null",
            "training.epochs=4",
            "tracking=none",
            *overrides,
        ]
    )
    found = []
    for cuts in ((), (1, 2, 3)):
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        monkeypatch.chdir(folder)
        for last in cuts:
            assert run(settings, should_prune=lambda epoch, _, last=last: epoch == last).pruned
        run(settings)
        (path,) = folder.glob("outputs/runs/*/checkpoint.pt")
        found.append(torch.load(path, weights_only=True))
    for other in found[1:]:
        for name, tensor in found[0]["model"].items():
            assert torch.equal(tensor, other["model"][name]), name
        losses = [[(epoch["train/loss"], epoch["val/loss"]) for epoch in one["history"]] for one in (found[0], other)]
        assert losses[0] == losses[1]
        assert str(other["optimizer"]) == str(found[0]["optimizer"])


def test_learning_rates_fall_from_the_head_to_the_first_layer():
    """The first step of plain SGD is the gradient times the learning rate of the layer."""
    plain = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0")
    steps = []
    for options in ((), ("optimizer.backbone_lr=0.5", "optimizer.layer_decay=0.1")):
        learner, splits = learner_of(*SMALL, *plain, "optimizer.lr=0.01", *options)
        before = copied(learner.model)
        learner.set_lr(1.0)
        learner.step(next(iter(Batches(splits.train, 50, CPU))), 1)
        assert learner.lr == pytest.approx(0.01)
        steps.append({name: tensor - before[name] for name, tensor in learner.model.state_dict().items()})
    for layer, share in (("9", 1), ("7", 0.05), ("3", 0.005), ("0", 0.0005)):
        for kind in ("weight", "bias"):
            name = f"network.{layer}.{kind}"
            torch.testing.assert_close(steps[1][name], steps[0][name] * share, rtol=2e-2, atol=1e-7)


def test_shares_with_weight_decay_and_muon():
    learner, _ = learner_of(
        *SMALL, "optimizer=muon", "optimizer.weight_decay=0.1", "optimizer.backbone_lr=0.1", "optimizer.lr=0.02"
    )
    found = [(group.settings.name, round(group.base_lr, 6), group.weight_decay) for group in learner.optimizer.groups]
    assert found == [
        ("muon", 0.002, 0.1), ("adamw", 0.003, 0.1), ("adamw", 0.003, 0.0), ("adamw", 0.0003, 0.1), ("adamw", 0.0003, 0.0),
    ]  # fmt: skip
    assert learner.lr == pytest.approx(0.02)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.class_weights=balanced", "training.label_smoothing=0.1"),
        ("augment.mixup=0.2",),
        ("augment.cutmix=1", "training.class_weights=balanced", "training.label_smoothing=0.2"),
        ("training.gradient_clip=0.5", "augment=strong", "training.sampler=balanced"),
    ],
)
@pytest.mark.parametrize("parts", [2, 5, 32])
def test_a_batch_in_parts_is_the_same_batch(overrides, parts):
    """Also the smaller last batch, of 13 images; the random numbers are the same."""
    found = []
    for accumulate in (1, parts):
        learner, splits = learner_of(
            *SMALL, "optimizer=sgd", "optimizer.lr=0.1", *overrides, f"training.accumulate={accumulate}", images=77
        )
        results = [
            (epoch.train_loss, epoch.train_accuracy, epoch.validation.loss) for epoch in epochs(learner, splits, 1, 2)
        ]
        found.append((results, learner.model.state_dict(), torch.get_rng_state()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)
    assert torch.equal(found[0][2], found[1][2])


@pytest.mark.parametrize("parts", range(1, 33))
def test_parts_of_a_batch(parts):
    size = -(-32 // parts)
    for images in range(1, 41):
        sizes = [len(part) for part, _ in split_in_parts(torch.zeros(images), torch.zeros(images), 32, parts)]
        assert sum(sizes) == images and max(sizes) - min(sizes) <= 1
        assert max(sizes) <= max(size, 3) and (size == 1 or images == 1 or min(sizes) >= 2)


def test_a_part_of_one_image_is_refused_where_there_is_batch_norm():
    with pytest.raises(
        UserError, match=r"training\.accumulate=32: must be at most 16 for this network, because Norm needs"
    ):
        learner_of("model=fastnet", "model.widths=[4]", "training.accumulate=32")
    learner, splits = learner_of("model=fastnet", "model.widths=[4]", "training.accumulate=16")
    epochs(learner, splits, 1)


def test_waiting_for_a_better_epoch_begins_with_the_whole_network(here):
    """With steps so small that the accuracy stays the same, it would stop after the second epoch."""
    still = [
        "optimizer.lr=1e-9",
        "early_stopping.monitor=val/accuracy",
        "early_stopping.patience=1",
        "training.epochs=6",
    ]
    frozen = ["training.freeze=backbone", "training.unfreeze_epoch=4"]
    for options, expected in (([], 2), (frozen, 4)):
        result = run(compose_config([*DIGITS, *SMALL, "tracking=none", *still, *options]))
        assert len(result.history) == expected
    assert result.metrics["trainable_parameters"] == result.metrics["parameters"]
