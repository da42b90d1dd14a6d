"""Which layers are frozen, which of them are in evaluation mode, and how far from the head a layer is."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from experiments.config import UserError
from experiments.models import freezing
from experiments.models.classifier import Classifier, Normalize, list_layers

SHAPE = (3, 32, 32)


class Stacked(nn.Module):
    """A classifier of several layers, as VGG has it, behind a convolution with a norm."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(0.5))
        self.pool = nn.AdaptiveAvgPool2d(1)
        layers = (nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
        self.classifier = nn.Sequential(*layers)

    def forward(self, images):
        return self.classifier(self.pool(self.features(images)).flatten(1))


class Wrapped(nn.Module):
    """A network in a network, whose head is not defined last."""

    head_prefix = "inner.fc."

    def __init__(self):
        super().__init__()
        self.inner = models.resnet18(num_classes=3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.inner(images)


def tiny_vit():
    return models.VisionTransformer(32, 16, 3, 2, 8, 16, num_classes=3)


def classifier(network):
    return Classifier(Normalize((0, 0, 0), (1, 1, 1)), network)


def trained(model):
    return {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (Stacked, {"classifier.5.weight", "classifier.5.bias"}),
        (Wrapped, {"inner.fc.weight", "inner.fc.bias"}),
        (tiny_vit, {"heads.head.weight", "heads.head.bias"}),
        (lambda: models.mobilenet_v3_small(num_classes=3), {"classifier.3.weight", "classifier.3.bias"}),
        (lambda: models.squeezenet1_1(num_classes=3), {"classifier.1.weight", "classifier.1.bias"}),
        (lambda: models.convnext_tiny(num_classes=3), {"classifier.2.weight", "classifier.2.bias"}),
    ],
)
def test_the_backbone_is_all_but_the_head(network, head):
    model = classifier(network())
    everything = trained(model)
    freezing.freeze(model, "backbone")
    assert trained(model) == head and set(model.frozen) == everything - head
    freezing.set_trainable(model, True)
    assert trained(model) == everything


def test_what_the_network_itself_freezes_stays_frozen():
    model = classifier(Stacked())
    model.network.features[0].weight.requires_grad_(False)
    before = trained(model)
    freezing.freeze(model, "backbone")
    freezing.set_trainable(model, True)
    assert trained(model) == before


def test_names_are_those_of_whole_modules():
    model = classifier(nn.Sequential(*(nn.Linear(3, 3) for _ in range(12))))
    freezing.freeze(model, ["1", "10.weight", "2."])
    assert set(model.frozen) == {"1.weight", "1.bias", "2.weight", "2.bias", "10.weight"}
    freezing.freeze(model, "3")
    assert set(model.frozen) == {"3.weight", "3.bias"}


@pytest.mark.parametrize(
    ("network", "choice", "message"),
    [
        (
            Stacked,
            ["feature"],
            r"training\.freeze=\[feature\]: feature has no parameters in this network; .*features, classifier$",
        ),
        (Stacked, "pool", r"training\.freeze=pool: pool has no parameters"),
        (Stacked, ["features", "classifier"], r"training\.freeze=\[features, classifier\]: nothing is left to train"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "backbone", "has no parameters before its head"),
    ],
)
def test_names_that_do_not_fit_are_an_error(network, choice, message):
    with pytest.raises(UserError, match=message):
        freezing.freeze(classifier(network()), choice)


def modes(model):
    return {name: module.training for name, module in model.network.named_modules()}


def test_what_is_frozen_computes_as_in_a_prediction():
    """The last dropout stands directly before the head, so it is part of what is trained."""
    model = classifier(Stacked())
    freezing.train(model.eval(), "backbone")
    on = {name for name, training in modes(model).items() if training}
    assert on == {"", "classifier", "classifier.3", "classifier.4", "classifier.5"}
    freezing.train(model.eval(), ["features.1"])
    assert {name for name, training in modes(model).items() if not training} == {"features.1"}
    freezing.train(model.eval(), ["features"])
    off = {name for name, training in modes(model).items() if not training}
    assert off == {"features", "features.0", "features.1", "features.2"}


def test_frozen_statistics_do_not_change():
    model = classifier(models.resnet18(num_classes=3))
    freezing.freeze(model, "backbone")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freezing.train(model, "backbone")
    model(torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name for name, parameter in model.network.named_parameters() if parameter.grad is not None} == trained(
        model
    )


def depths(network):
    """Depth -> the start of the names of its parameters."""
    model = classifier(network)
    shares = freezing.learning_rate_shares(model, 1.0, 0.5)
    found = {}
    for name, parameter in model.network.named_parameters():
        depth = round(-np.log2(shares.get(parameter, 1.0)))
        found.setdefault(depth, set()).add(name)
    return found


def test_the_depth_of_a_layer_is_that_of_its_block():
    found = depths(models.resnet18(num_classes=3))
    assert found[0] == {"fc.weight", "fc.bias"} and found[9] == {"conv1.weight", "bn1.weight", "bn1.bias"}
    blocks = [f"layer{stage}.{block}." for stage in (4, 3, 2, 1) for block in (1, 0)]
    for depth, block in enumerate(blocks, 1):
        assert found[depth] and all(name.startswith(block) for name in found[depth])
    assert len(found) == 10


def test_the_depths_of_a_transformer():
    found = depths(tiny_vit())
    assert len(found) == 5 and found[0] == {"heads.head.weight", "heads.head.bias"}
    assert {"encoder.ln.weight", "encoder.layers.encoder_layer_2.mlp.0.weight"} <= found[1]
    assert found[4] == {"class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"}


def test_the_depths_of_a_plain_list_of_layers():
    found = depths(Stacked())
    assert found[1] == {"classifier.2.weight", "classifier.2.bias"}
    assert found[3] == {"features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias"}


def test_shares_are_multiplied():
    model = classifier(Stacked())
    shares = freezing.learning_rate_shares(model, 0.1, 0.5)
    assert shares[model.network.classifier[0].bias] == 0.1 * 0.25
    assert model.network.classifier[5].bias not in shares
    assert freezing.learning_rate_shares(model, 1.0, 1.0) == {}


def test_the_table_of_layers_marks_what_is_frozen():
    model = classifier(Stacked())
    freezing.freeze(model, "backbone")
    layers = list_layers(model, SHAPE)
    assert [(row.kind, row.frozen) for row in layers.rows if row.parameters] == [
        ("Conv2d", "frozen"), ("BatchNorm2d", "frozen"), ("Linear", "frozen"), ("Linear", "frozen"), ("Linear", ""),
    ]  # fmt: skip
    assert layers.counts == "213 parameters, 21 trainable"
    later = list_layers(model, SHAPE, unfreeze_epoch=3)
    assert later.rows[1].frozen == "frozen before epoch 3" and later.counts == "213 parameters"


@pytest.mark.parametrize("network", [tiny_vit, Wrapped])
def test_every_parameter_is_in_the_table_once(network):
    model = classifier(network())
    layers = list_layers(model, SHAPE)
    assert layers.parameters == sum(parameter.numel() for parameter in model.parameters()) and not layers.untrained
