"""Grad-CAM finds the place of the evidence, in convolutional networks and in vision transformers."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from experiments.analysis.attribution import gradcam
from experiments.config import UserError
from experiments.models.classifier import Classifier, Normalize

SIZE, SQUARE = 32, 8
pytestmark = pytest.mark.numbers
PLACES = [(0, 0), (0, 24), (24, 0), (24, 24), (12, 12), (4, 17)]


def classifier(network):
    return Classifier(Normalize((0.5,) * 3, (0.25,) * 3), network).eval()


def pictures(places, colours, seed=0):
    """Grey noise with a square of a colour, 0 red to 2 blue, at (row, column): uint8 (N, 3, SIZE, SIZE)."""
    images = np.random.default_rng(seed).integers(90, 130, (len(places), 3, SIZE, SIZE)).astype(np.uint8)
    for image, (row, column), colour in zip(images, places, colours):
        image[:, row : row + SQUARE, column : column + SQUARE] = 60
        image[colour, row : row + SQUARE, column : column + SQUARE] = 230
    return images


def share_at(heatmap, place, margin=4):
    """The share of a heatmap that is in the square at a place, or at most `margin` pixels beside it."""
    row, column = (max(0, value - margin) for value in place)
    return heatmap[row : place[0] + SQUARE + margin, column : place[1] + SQUARE + margin].sum() / heatmap.sum()


class Head(nn.Module):
    """The mean of each colour above grey: feature maps with three channels to three logits."""

    def forward(self, maps):
        return maps[:, :3].mean(dim=(2, 3))


def colour_filter():
    """A convolution whose maps are the colours above grey."""
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight)
        convolution.bias.fill_(-0.2)
    return convolution


class Branches(nn.Module):
    """The evidence is in the branch that runs first; that of the convolution that runs last is empty."""

    def __init__(self):
        super().__init__()
        self.first, self.last = colour_filter(), nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, images):
        return torch.cat([self.first(images).relu(), self.last(images)], dim=1)


class Residual(Branches):
    """The evidence passes beside the convolution that runs last."""

    def forward(self, images):
        features = self.first(images).relu()
        return features + 1e-6 * self.last(features)


NETWORKS = {
    "one convolution": lambda: nn.Sequential(colour_filter(), nn.ReLU(), Head()),
    "strided": lambda: nn.Sequential(colour_filter(), nn.ReLU(), nn.AvgPool2d(4), colour_filter(), nn.ReLU(), Head()),
    "branches": lambda: nn.Sequential(Branches(), Head()),
    "residual": lambda: nn.Sequential(Residual(), Head()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_heatmap_is_where_the_evidence_is(name, place, frozen):
    torch.manual_seed(0)
    model, (image,) = classifier(NETWORKS[name]()).requires_grad_(not frozen), pictures([place], [1])
    assert share_at(gradcam(model, image, 1), place) > 0.9


def vit():
    return models.VisionTransformer(SIZE, 4, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=3)


def swin():
    return models.SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=3)


HITS = {vit: 0.7, swin: 0.9}  # of the highest places, 0.23 by chance; 12 networks of vit have 0.71 to 1.00


@pytest.fixture(scope="module", params=HITS, ids=["vit", "swin"])
def transformer(request):
    """(a small transformer that has learned to tell the colour of the square, wherever it is; see `HITS`)."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = classifier(request.param()).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(200):
        colours = rng.integers(0, 3, 32)
        images = torch.from_numpy(pictures(rng.integers(0, SIZE - SQUARE, (32, 2)), colours, step))
        loss = functional.cross_entropy(model(images), torch.from_numpy(colours))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return model.eval().requires_grad_(False), HITS[request.param]  # as a frozen network


@pytest.mark.slow
def test_the_heatmap_of_a_transformer_is_where_the_evidence_is(transformer):
    model, least = transformer
    rng = np.random.default_rng(1)
    places, colours = rng.integers(0, SIZE - SQUARE, (24, 2)), rng.integers(0, 3, 24)
    hits, shares = [], []
    for image, place, colour in zip(pictures(places, colours, 999), places, colours):
        heatmap = gradcam(model, image, int(colour))
        highest = np.unravel_index(heatmap.argmax(), heatmap.shape)
        hits.append(all(-4 <= found - edge < SQUARE + 4 for found, edge in zip(highest, place)))
        shares.append(share_at(heatmap, place))
    assert np.mean(hits) > least and np.mean(shares) > 0.35, (hits, shares)


LAYERS = {  # of torchvision's networks: (pixels per side, the layer that is explained)
    "alexnet": (224, "features.10"),
    "vgg11": (64, "features.18"),
    "squeezenet1_1": (64, "classifier.1"),
    "resnet18": (64, "layer4"),
    "densenet121": (64, "features"),
    "googlenet": (64, "inception5b"),
    "inception_v3": (107, "Mixed_7c"),
    "mobilenet_v3_small": (64, "features"),
    "efficientnet_b0": (64, "features"),
    "efficientnet_v2_s": (64, "features"),
    "regnet_y_400mf": (64, "trunk_output"),
    "convnext_tiny": (64, "features"),
    "maxvit_t": (224, "blocks.3"),
    "swin_t": (64, "features.6.norm"),
    "swin_v2_t": (64, "features.6.norm"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_of_torchvisions_networks(name):
    torch.manual_seed(0)
    size, layer = LAYERS[name]
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = classifier(models.get_model(name, num_classes=3, **extra))
    image = np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8)
    taken = [gradcam(model, image, target) for target in range(3)]
    assert all(heatmap.shape == (size, size) and np.isfinite(heatmap).all() for heatmap in taken)
    assert any(heatmap.std() > 0 for heatmap in taken)
    assert all(
        np.array_equal(heatmap, gradcam(model, image, target, f"network.{layer}"))
        for target, heatmap in enumerate(taken)
    )


@pytest.mark.slow
def test_a_vision_transformer_of_torchvision():
    torch.manual_seed(0)
    model = models.vit_b_16(num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros, on which no pixel has an effect
    image = np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8)
    with torch.inference_mode():
        before = classifier(model)(torch.from_numpy(image)[None])
    heatmaps = [gradcam(classifier(model), image, target) for target in (0, 1)]
    assert all(heatmap.shape == (224, 224) and heatmap.std() > 0 for heatmap in heatmaps)
    assert not np.array_equal(*heatmaps)
    with torch.inference_mode():
        assert torch.equal(classifier(model)(torch.from_numpy(image)[None]), before)  # nothing stays patched
    with pytest.raises(UserError, match=r"--layer network\.encoder\.ln: .* the convolutions are network\.conv_proj"):
        gradcam(classifier(model), image, 0, "network.encoder.ln")


@pytest.mark.slow
@pytest.mark.skipif("EXPERIMENTS_REAL_DATA" not in os.environ, reason="needs real photographs and weights")
def test_the_heatmap_of_a_real_network_is_on_the_photograph():
    from PIL import Image

    root = Path(os.environ["EXPERIMENTS_REAL_DATA"])
    model = models.squeezenet1_1()
    model.load_state_dict(torch.load(root / "weights/squeezenet1_1.pth", weights_only=True))
    model = Classifier(Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), model).eval()
    photographs = sorted((root / "photos").rglob("*.jpg"))[::40]
    shares = []
    for number, file in enumerate(photographs):
        row, column = 112 * (number % 2), 112 * (number // 2 % 2)
        image = np.full((224, 224, 3), 124, dtype=np.uint8)
        image[row : row + 112, column : column + 112] = Image.open(file).convert("RGB").resize((112, 112))
        pixels = image.transpose(2, 0, 1).copy()
        with torch.inference_mode():
            predicted = int(model(torch.from_numpy(pixels)[None]).argmax())
        heatmap = gradcam(model, pixels, predicted)
        shares.append(heatmap[row : row + 112, column : column + 112].sum() / heatmap.sum())
    assert np.mean(shares) > 0.6  # a quarter of the picture
