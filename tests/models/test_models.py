"""Networks: size, numbers against numpy, and a custom network."""

import shutil
import sys

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from experiments.config import ModelSettings, UserError
from experiments.config.loading import compose_config
from experiments.models import pooling
from experiments.models.build import build_classifier
from experiments.models.classifier import list_layers
from experiments.runs import export
from experiments.training.optimizers import make_optimizer

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def build(*overrides, classes=10, shape=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1)):
    return build_classifier(compose_config(list(overrides)).model, classes, shape, mean, std)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_default_has_the_notebooks_parameters():
    assert parameters(build()) == 225_610


@pytest.mark.parametrize(
    "overrides", [("model.kernel_size=10",), ("model.blocks=5", "model.kernel_size=1"), ("model.dropout=0.5",)]
)
def test_other_shapes_are_built(overrides):
    assert build(*overrides, classes=7)(torch.zeros((2, 3, 32, 32), dtype=torch.uint8)).shape == (2, 7)


def test_weights_are_drawn_as_in_keras():
    torch.manual_seed(0)
    for name, weight in build().network.state_dict().items():
        if name.endswith("bias"):
            assert (weight == 0).all()
        else:
            receptive = weight[0, 0].numel() if weight.ndim == 4 else 1
            limit = (6 / ((weight.shape[0] + weight.shape[1]) * receptive)) ** 0.5
            assert limit * 0.95 < weight.abs().max() <= limit


def reference_loss(weights, pixels, labels):
    """The network and its mean cross-entropy in numpy, float64, in the notebook's order: convolution, ReLU, pooling."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    x = (pixels / 255 - mean) / std
    for layer in ("0", "3"):
        kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
        x = np.einsum("nchwij,fcij->nfhw", windows, kernel) + bias.reshape(-1, 1, 1)
        x = np.maximum(x, 0)
        height, width = (side // 2 * 2 for side in x.shape[2:])
        x = x[:, :, :height, :width].reshape(*x.shape[:2], height // 2, 2, width // 2, 2).max(axis=(3, 5))
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ weights["7.weight"].T + weights["7.bias"], 0)
    logits = x @ weights["9.weight"].T + weights["9.bias"]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logits, -log_probabilities[np.arange(len(labels)), labels].mean()


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="no compiler that is known to support OpenMP"
)
def test_the_kernel_was_compiled():
    assert pooling.kernel


@pytest.mark.skipif(not pooling.kernel, reason="the kernel was not compiled")
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 3, 4, 5), (2, 3, 5, 4), (1, 1, 2, 2), (8, 32, 26, 26)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [True, False])
def test_pooling_in_one_pass_gives_the_same_bits(shape, dtype, relu):
    torch.manual_seed(0)
    values = torch.randn(shape).mul(2).round()  # with many that are equal, and zeros
    values.view(-1)[:: max(2, values.numel() // 20)] = torch.nan
    values[0, :, :2, :2] = -torch.inf
    values = values.to(dtype).contiguous(memory_format=torch.channels_last)
    fused, apart = (values.clone().requires_grad_() for _ in range(2))
    assert pooling.fits_kernel(fused)
    once = pooling.max_pool2x2(fused, relu)
    expected = torch.max_pool2d(apart, 2)
    expected = torch.relu(expected) if relu else expected
    gradients = torch.randn(expected.shape).to(dtype)
    once.backward(gradients)
    expected.backward(gradients)
    torch.testing.assert_close(once, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(fused.grad, apart.grad, rtol=0, atol=0)


@pytest.mark.skipif(not pooling.kernel, reason="the kernel was not compiled")
@pytest.mark.parametrize(
    "overrides", [("model.blocks=3", "model.kernel_size=2"), ("model=fastnet", "model.widths=[8,8]")]
)
def test_a_network_learns_the_same_with_the_kernel_and_without(monkeypatch, overrides):
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def gradients():
        torch.manual_seed(0)
        model = build(*overrides)
        model(pixels).square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    with_kernel = gradients()
    monkeypatch.setattr(pooling, "kernel", None)
    for one, other in zip(with_kernel, gradients(), strict=True):
        assert torch.equal(one, other) and one.any()


def test_forward_gradient_and_adam_step_against_numpy():
    torch.manual_seed(0)
    overrides = ("model.filters=3", "model.kernel_size=3", "model.dense_width=5")
    model = build(*overrides, classes=4, shape=(3, 13, 13), mean=MEAN, std=STD).double()
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (6, 3, 13, 13), dtype=np.uint8), rng.integers(0, 4, 6)
    weights = {name: weight.numpy().copy() for name, weight in model.network.state_dict().items()}

    logits = model(torch.from_numpy(pixels))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    expected_logits, expected_loss = reference_loss(weights, pixels, labels)
    np.testing.assert_allclose(
        logits.detach().numpy(), expected_logits, rtol=0, atol=1e-6
    )  # float32 mean and deviation
    assert abs(loss.item() - expected_loss) < 1e-6

    loss.backward()
    settings = compose_config(["optimizer=adam", "optimizer.lr=0.01"]).optimizer
    make_optimizer(model, settings).step()
    for name, parameter in model.network.named_parameters():
        for cell in rng.choice(weights[name].size, size=min(6, weights[name].size), replace=False):
            cell_index = np.unravel_index(cell, weights[name].shape)
            sides = []
            for nudge in (1e-5, -1e-5):
                nudged = {**weights, name: weights[name].copy()}
                nudged[name][cell_index] += nudge
                sides.append(reference_loss(nudged, pixels, labels)[1])
            gradient = (sides[0] - sides[1]) / 2e-5
            assert abs(parameter.grad[cell_index].item() - gradient) < 1e-7
            first, second = 0.1 * gradient, 0.001 * gradient**2  # Adam's moments after one step from zero
            step = 0.01 * (first / 0.1) / (np.sqrt(second / 0.001) + 1e-7)
            assert (
                abs(parameter[cell_index].item() - (weights[name][cell_index] - step)) < 1e-4 * 0.01
                or abs(gradient) < 1e-4
            )


OWN = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, image_shape, classes, width):
        super().__init__()
        channels, height, _ = image_shape
        self.layers = nn.Sequential(nn.Conv2d(channels, width, height), nn.Flatten(), nn.Linear(width, classes + {more}))

    def forward(self, images):
        return self.layers(images)
"""


@pytest.fixture
def own(here):
    """A function that writes a custom network and returns the overrides that choose it."""

    def write(name, more=0):
        (here / f"{name}.py").write_text(OWN.format(more=more))
        cnn = ("filters", "kernel_size", "dense_width", "blocks", "dropout")
        return [f"model._target_={name}.Tiny", "+model.width=8", *(f"~model.{key}" for key in cnn)]

    return write


def test_a_custom_network(own):
    model = build(*own("tiny_one"), classes=5)
    assert parameters(model) == 8 * 3 * 32 * 32 + 8 + 8 * 5 + 5


TUTORIAL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, classes):
        super().__init__()
        self.features = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.LazyLinear(classes)

    def forward(self, x):
        x = self.features(x)
        return self.head(x.view(x.size(0), -1))

class OneByOne(Net):
    def forward(self, x):
        return torch.stack([super(OneByOne, self).forward(image[None])[0] for image in x])

class Peeking(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits * 2 if logits.mean() > 0 else logits
"""


def test_a_tutorials_network_is_built_and_can_be_logged(here):
    (here / "tutorial.py").write_text(TUTORIAL)
    model = build_classifier(ModelSettings("tutorial.Net", {}), 5, (3, 16, 16), MEAN, STD)
    export.check_export(model, "tutorial.Net", (3, 16, 16))
    assert model.training and model(torch.zeros((7, 3, 16, 16), dtype=torch.uint8)).shape == (7, 5)


@pytest.mark.parametrize("name", ["OneByOne", "Peeking"])
def test_a_network_that_cannot_be_exported_is_an_error_before_training(name, here):
    (here / "tutorial.py").write_text(TUTORIAL)
    model = build_classifier(ModelSettings(f"tutorial.{name}", {}), 5, (3, 16, 16), MEAN, STD)
    with pytest.raises(UserError, match=rf"tutorial\.{name}: cannot be exported: .*use tensor operations"):
        export.check_export(model, f"tutorial.{name}", (3, 16, 16))


def test_wrong_logits_are_an_error(own):
    with pytest.raises(UserError, match=r"must return logits \(batch, 5\), but returned \(2, 6\)"):
        build(*own("tiny_two", more=1), classes=5)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.Net", "there is no such class"),
        ("torch.nn.Nothing", "there is no such class"),
        ("os.path.join", "must be a class"),
    ],
)
def test_a_class_that_is_not_a_network_is_an_error(target, message):
    with pytest.raises(UserError, match=message):
        build(f"model._target_={target}")


def test_keys_that_the_class_does_not_take_are_an_error():
    with pytest.raises(UserError, match="does not fit the class"):
        build("model._target_=torch.nn.Linear")


@pytest.mark.parametrize(
    ("shape", "first", "note"),
    [
        ((3, 32, 32), (32, 29, 29), "the last 3 pixels of each side of an image do not reach the output"),
        ((3, 30, 32), (32, 27, 29), "the last 1 row and the last 3 columns of an image do not reach the output"),
        ((3, 29, 29), (32, 26, 26), ""),
    ],
)
def test_the_layers_are_those_of_the_network_as_it_is_written(shape, first, note):
    model = build(shape=shape)
    layers = list_layers(model, shape)
    assert layers.rows[0][:3] == ("Normalize", shape, 0) and layers.rows[1][:2] == ("Conv2d", first)
    assert layers.note.startswith(note) and bool(layers.note) == bool(note)
    assert layers.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.training and model.used_size == [29, 29]
