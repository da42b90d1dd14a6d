"""Features of a frozen backbone: computed once, and with them the numbers are those of the whole network."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from conftest import DIGITS
from experiments.analysis import lr_finder
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.batches import Batches
from experiments.experiment import run
from experiments.models.cutting import cut_at_head
from experiments.reports.features import prepared
from experiments.runs.finished import load_run
from experiments.training import loop
from experiments.training.evaluation import evaluate_images
from experiments.training.learner import Learner, initial_model, training_batches

CPU = torch.device("cpu")
FROZEN = [*DIGITS, "data.seed=1", "training.freeze=backbone", "optimizer=sgd"]
CNN_KEYS = [f"~model.{key}" for key in ("filters", "kernel_size", "dense_width", "blocks", "dropout")]


class Published(nn.Module):
    """A network of torchvision with random weights, in evaluation with others than the initial statistics."""

    def __init__(self, image_shape, classes, name):
        super().__init__()
        self.net = models.get_model(name, num_classes=classes)
        heads = {
            "resnet18": "fc",
            "squeezenet1_1": "classifier.1",
            "mobilenet_v3_small": "classifier.3",
            "vgg11": "classifier.6",
        }
        self.head_prefix = f"net.{heads[name]}."

    def forward(self, images):
        return self.net(images)


class Vit(models.VisionTransformer):
    def __init__(self, image_shape, classes):
        super().__init__(32, 16, 2, 2, 8, 16, dropout=0.1, num_classes=classes)


class Untraceable(nn.Module):
    """It looks at values in Python."""

    def __init__(self, image_shape, classes):
        super().__init__()
        self.body = nn.Conv2d(3, 2, 8, stride=8)
        self.head = nn.Linear(32, classes)

    def forward(self, images):
        features = self.body(images).flatten(1)
        return self.head(features if features.sum() > 0 else features + 1)


class Noisy(Untraceable):
    """Its dropout is not a layer, so nobody can tell it from other functions."""

    def forward(self, images):
        features = self.body(images).flatten(1)
        return self.head(functional.dropout(features, 0.5, self.training))


class Bypassed(Untraceable):
    """Its logits depend on more than the input of the head."""

    def forward(self, images):
        return self.head(self.body(images).flatten(1)) + images.mean()


def own(name, *more):
    return [f"model._target_=test_features.{name}", *CNN_KEYS, *more]


NETWORKS = {
    "cnn": ["model.filters=4", "model.dense_width=16", "model.dropout=0.3"],
    "fastnet": ["model=fastnet", "model.widths=[4,8]"],
    "vit": own("Vit"),
    "resnet18": own("Published", "+model.name=resnet18"),
    "squeezenet1_1": own("Published", "+model.name=squeezenet1_1", "data.image_size=64"),  # the dropout is of 512x3x3
    "mobilenet_v3_small": own("Published", "+model.name=mobilenet_v3_small"),
}


def learner_of(*overrides):
    settings = compose_config([*FROZEN, *overrides])
    splits = load_splits(settings.data)
    few = (splits.train[np.arange(77)], splits.validation[np.arange(40)], splits.test[np.arange(30)])
    splits = dataclasses.replace(splits, **dict(zip(splits.parts(), few)))
    return Learner.create(settings, initial_model(settings, splits), splits.train, CPU), splits


class Silent:
    def step(self, *_):
        pass


def trained(learner, splits, epochs):
    """The results of some epochs, and the probabilities of the test set."""
    inputs = prepared(learner, splits)
    batches = training_batches(learner.config, inputs.train, CPU), Batches(inputs.validation, 250, CPU)
    results = list(loop.train(learner, *batches, range(1, epochs + 1), Silent()))
    numbers = [(one.train_loss, one.train_accuracy, one.validation.loss) for one in results]
    _, logits = evaluate_images(learner.eval_forward, inputs.test, CPU, learner.autocast, "none", 250)
    return numbers, logits.softmax(dim=1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "more", [(), ("training.ema=0.5", "training.class_weights=balanced", "training.accumulate=3")], ids=["", "more"]
)
def test_the_numbers_are_those_of_the_whole_network(here, network, more):
    """Until the epoch in which it would be trained, a run with training.unfreeze_epoch computes all layers."""
    found = []
    for options in ([], ["training.unfreeze_epoch=3"]):
        learner, splits = learner_of(*NETWORKS[network], *more, *options)
        assert (learner.cut is None) == bool(options)
        found.append((*trained(learner, splits, 2), learner.model.state_dict(), torch.get_rng_state()))
    (once, probabilities, weights, random), (whole, expected, their_weights, their_random) = found
    np.testing.assert_allclose(once, whole, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(weights, their_weights, rtol=1e-3, atol=1e-4)
    assert torch.equal(random, their_random)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_evaluation_of_features_has_the_bits_of_the_whole_network(here, network):
    learner, splits = learner_of(*NETWORKS[network])
    inputs = prepared(learner, splits)
    found = [
        evaluate_images(model, images, CPU, learner.autocast, "none", 250)[1].softmax(dim=1)
        for model, images in ((learner.eval_forward, inputs.test), (learner.eval_model, splits.test))
    ]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-7)


def cache(folder):
    return sorted(file.name for file in Path(folder).glob("outputs/cache/*-features.npy"))


@pytest.mark.slow
def test_they_are_computed_once_for_all_heads_seeds_and_splits(here, capsys):
    small = [*FROZEN, *NETWORKS["cnn"], "tracking=none", "training.epochs=1"]
    run(compose_config(small))
    kept = cache(here)
    assert len(kept) == 1 and "computed once in" in capsys.readouterr().out
    for other in ("optimizer.lr=0.1", "model.dropout=0.5", "training.label_smoothing=0.1", "data.seed=2"):
        run(compose_config([*small, other]))
        assert cache(here) == kept and "read from outputs/cache" in capsys.readouterr().out
    for number, other in enumerate(("seed=2", "model.filters=5", "data.mean=[0.5,0.5,0.5]"), start=2):
        run(compose_config([*small, other]))
        assert len(cache(here)) == number


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("augment.flip=random", "augment.flip=random is set"),
        ("augment.mixup=0.2", "augment.mixup=0.2 is set"),
        ("evaluation.tta=flip", "evaluation.tta=flip is set"),
        ("model=fastnet training.image_sizes=[16]", r"training.image_sizes=[16] is set"),
        *(
            (" ".join(own(name)), "the network cannot be cut at its head")
            for name in ("Untraceable", "Noisy", "Bypassed")
        ),
    ],
)
def test_else_every_epoch_computes_all_layers(here, capsys, overrides, reason):
    learner, splits = learner_of(*overrides.split())
    assert prepared(learner, splits) is splits
    assert f"computes them again in every epoch, because {reason}\n" in capsys.readouterr().out
    trained(learner, splits, 1)
    assert cache(here) == []


@pytest.mark.parametrize("overrides", ["training.freeze=none", "training.unfreeze_epoch=2"])
def test_nothing_is_said_of_features_where_nothing_stays_frozen(here, capsys, overrides):
    learner, splits = learner_of(overrides)
    assert prepared(learner, splits) is splits and learner.forward is learner.model
    assert capsys.readouterr().out == ""


def test_looking_for_a_cut_changes_nothing():
    learner, _ = learner_of(*NETWORKS["resnet18"])
    state, random = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}, torch.get_rng_state()
    assert cut_at_head(learner.model) is not None and learner.model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(tensor, state[name]) for name, tensor in learner.model.state_dict().items())


def test_a_damaged_cache_is_computed_again(here, caplog):
    settings = compose_config([*FROZEN, *NETWORKS["cnn"], "tracking=none", "training.epochs=2", "model.dropout=0"])
    first = run(settings)
    (path,) = here.glob("outputs/cache/*-features.npy")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # a file that is mapped into memory is not written to
    path.write_bytes(content)
    again = run(dataclasses.replace(settings, resume=False))
    assert [epoch["val/loss"] for epoch in again.history] == [epoch["val/loss"] for epoch in first.history]
    assert "damaged" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_cut_continues_to_the_same_bits(tmp_path, monkeypatch):
    settings = compose_config([*FROZEN, *NETWORKS["cnn"], "tracking=none", "training.epochs=3", "training.ema=0.9"])
    found = []
    for last in (None, 1, 2):
        (tmp_path / str(last)).mkdir()
        monkeypatch.chdir(tmp_path / str(last))
        if last:
            assert run(settings, should_prune=lambda epoch, _, last=last: epoch == last).pruned
        found.append([(epoch["train/loss"], epoch["val/loss"]) for epoch in run(settings).history])
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.usefixtures("tracked")
def test_the_logged_model_is_the_whole_network(here):
    result = run(compose_config([*FROZEN, *NETWORKS["cnn"], "training.epochs=1"]))
    finished = load_run(result.run_id)
    model = finished.model.uncalibrated()
    found = evaluate_images(model, finished.splits().test, CPU, torch.autocast("cpu", enabled=False), "none")[0]
    assert found.loss == pytest.approx(result.metrics["test/loss"], rel=1e-6)
    assert 0 < result.metrics["trainable_parameters"] < result.metrics["parameters"]


def test_a_learning_rate_is_found_with_them(here):
    found = lr_finder.range_test(compose_config([*FROZEN, *NETWORKS["cnn"]]), 1e-5, 10, 50)
    assert len(cache(here)) == 1 and len(found.losses) > 10
