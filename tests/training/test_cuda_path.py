"""Whole epochs on a GPU that computes nothing: no operator mixes devices, is unknown there, or makes the host wait."""

import dataclasses
import functools
import itertools
from unittest import mock

import numpy as np
import pytest
import torch

from conftest import ROOT
from experiments.config import VIEWS
from experiments.config.loading import compose_config
from experiments.data.augmentation import random_crops
from experiments.data.batches import Batches
from experiments.data.images import Images, Splits
from experiments.runs.checkpoint import State
from experiments.training import devices, loop
from experiments.training.learner import Learner, initial_model
from fake_device import FakeDevice, mps_operators

SMALL = ("model.filters=4", "model.dense_width=8")
FAST = ("model=fastnet", "model.widths=[4,4]")
pytestmark = pytest.mark.numbers


def noise(count, size):
    random = np.random.default_rng(count)
    return Images(
        random.integers(0, 256, (count, 3, size, size), dtype=np.uint8), np.arange(count) % 10, tuple("abcdefghij")
    )


@functools.cache
def composed(*overrides):
    return compose_config(["data=digits", "training.batch_size=8", "training.epochs=2", *overrides])


def train(gpu, overrides, images=12, validation=12, epochs=1, streamed=False, weights="cpu"):
    """The epochs of a run on the fake GPU, each with a smaller last batch. Returns the state after them.

    The host must not wait from the first forward pass to the last step, and from the first batch of the validation to the last.
    """
    config = composed(*overrides)
    splits = Splits(*(noise(count, config.data.image_size) for count in (images, validation, 12)))
    with torch.device(weights):
        model = initial_model(config, splits)
    with gpu.used():
        with mock.patch.object(devices, "autocast", gpu.autocast):
            learner = Learner.create(config, model, splits.train, gpu.device)
        crops, order = random_crops(config.augment, splits.train), config.training.sampler
        batches = Batches(splits.train, 8, gpu.device, order, streamed=streamed, crops=crops, threads=1)
        evaluated = Batches(splits.validation, 8, gpu.device, streamed=streamed)
        passes = len(VIEWS[config.evaluation.tta]) * len(evaluated)
        done = itertools.cycle(range(1, 1 + passes))

        class Watching:
            def step(self, running):
                gpu.running = not running.is_complete

        def after(module, *_):
            gpu.running = module.training or next(done) < passes

        for module in {learner.model, learner.eval_forward}:
            module.register_forward_pre_hook(lambda *_: setattr(gpu, "running", True))
            module.register_forward_hook(after)
        state = State.fresh(learner)
        for epoch in loop.train(learner, batches, evaluated, range(1, epochs + 1), Watching()):
            state.update(epoch)
    return state


PATHS = {
    "plain": SMALL,
    "clipped, averaged, weighted": (
        *SMALL, "training.gradient_clip=1", "training.ema=0.9", "training.class_weights=balanced", "model.dropout=0.1",
        "optimizer=sgd", "schedule=cosine",
    ),
    "in parts": (*SMALL, "training.accumulate=3", "training.class_weights=balanced", "optimizer=adamw", "schedule=linear"),
    "balanced, smoothed, six views, bf16": (
        *SMALL, "training.sampler=balanced", "training.label_smoothing=0.1", "evaluation.tta=flip_shift",
        "precision=bf16", "schedule=onecycle",
    ),
    "resized fastnet, muon, bf16": (
        *FAST, "optimizer=muon", "optimizer.normalize_filters=true", "training.image_sizes=[20]", "precision=bf16",
        "schedule=triangular",
    ),
    "frozen, then not": (
        *FAST, "training.freeze=[blocks.1]", "training.unfreeze_epoch=2", "optimizer.layer_decay=0.5", "schedule=step"
    ),
    **{f"augment={name}": (*SMALL, f"augment={name}") for name in ("light", "standard", "strong", "photographs")},
    "every change": (
        *SMALL, "augment=strong", "augment.flip=alternating", "augment.rotate=10", "augment.scale=0.1", "augment.crop=0.3",
        "augment.hue=0.1", "augment.brightness=0.1", "augment.contrast=0.1", "augment.saturation=0.1", "augment.mixup=0.2",
        "augment.cutmix=1",
    ),
}  # fmt: skip


def unknown(kind, names):
    """The operators that the device does not have."""
    if kind == "mps":
        return sorted(set(names) - mps_operators())
    return [name for name in names if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "CUDA")]


NETWORKS = {
    f"model={name}": (f"model={name}", f"data.image_size={75 if name == 'inception_v3' else 32}", *others)
    for name, others in {
        **dict.fromkeys((path.stem for path in sorted((ROOT / "conf/model").glob("[!_]*.yaml"))), ()),
        "torchvision": ("model.name=shufflenet_v2_x0_5",),
        "timm": ("model.name=resnet18",),
    }.items()
}


def check(gpu, path, *overrides, **options):
    epochs = 2 if path in ("resized fastnet, muon, bf16", "frozen, then not") else 1
    state = train(gpu, overrides, epochs=epochs, **options)
    count = sum(gpu.operators.values())
    print(f"{gpu.kind}, {path}: {count} operators")
    assert count > 150 and len(state.history) == epochs
    assert {tensor.device.type for tensor in state.learner.model.state_dict().values()} == {gpu.device.type}
    assert {tensor.device.type for tensor in state.best.values()} == {"cpu"}
    assert unknown("mps", gpu.operators) == unknown("cuda", gpu.operators) == []


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("path", PATHS)
def test_epochs_run_on_a_gpu(path, kind):
    check(FakeDevice(kind), path, *PATHS[path])


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("path", ["plain", "augment=photographs", "every change"])
def test_epochs_of_streamed_images_run_on_a_gpu(path, kind):
    check(FakeDevice(kind), f"{path}, streamed", *PATHS[path], streamed=True)


@pytest.mark.parametrize("path", NETWORKS)
def test_every_network_runs_on_a_gpu(path):
    """On the meta device, which is faster than the fake CUDA device."""
    if path == "model=timm":
        pytest.importorskip("timm")
    real = path in ("model=cnn", "model=fastnet")
    options = {"images": 8, "validation": 8, "weights": "cpu" if real else "meta"}
    check(FakeDevice("mps"), path, *NETWORKS[path], **options)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda loss: loss.item(), "_local_scalar_dense.* the host waits"),
        (lambda loss: loss.new_ones(3)[loss.new_ones(3) > 0], "index.* the host waits"),
        (lambda loss: (loss.new_ones(3) > 0).nonzero(), "nonzero.* the host waits"),
        (lambda loss: loss.new_ones(3) + torch.ones(3), "mps, another on|cuda, another on|two different devices"),
        (lambda loss: loss.cpu(), "_to_copy.* a copy between"),
        (lambda loss: torch.ones(3).to(loss.device), "_to_copy.* a copy between"),
        (lambda loss: loss.double(), "MPS has no float64"),
        (lambda loss: torch.ones(3).to(loss.device, non_blocking=True), "MPS may not copy"),
    ],
)
def test_a_fake_gpu_finds_mistakes(mistake, message, kind, monkeypatch):
    """So that the tests above could fail."""
    if ("copy between" in message and kind == "mps") or ("MPS" in message and kind == "cuda"):
        return
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda *args: (mistake(step(*args)[0]), step(*args))[1])
    with pytest.raises((AssertionError, RuntimeError), match=message):
        train(FakeDevice(kind), SMALL)


class Replayed:
    """A network whose logits and gradients belong to CUDA graphs: a call in a new step overwrites those of the last one.

    As in PyTorch, every call is a step as long as no step is marked.
    """

    def __init__(self, model):
        self.model, self.held, self.marks, self.seen = model, [], 0, 0
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda parameter: self.held.append(parameter.grad))

    def mark(self):
        self.marks += 1

    @torch.no_grad()
    def overwrite(self):
        for tensor in self.held:
            tensor.fill_(torch.nan)
        self.held.clear()

    def __call__(self, images):
        if self.marks == 0 or self.marks > self.seen:
            self.overwrite()
        self.seen = self.marks
        logits = self.model(images)
        self.held.append(logits.detach())
        return logits


@pytest.mark.parametrize("parts", [1, 3])
def test_nothing_that_a_cuda_graph_returned_is_read_after_the_next_replay(parts, monkeypatch):
    """Steps, their losses and averages are those without graphs, to the bit; also of parts and of a smaller last batch."""
    options = ("training.ema=0.9", "training.gradient_clip=1", "optimizer=muon", f"training.accumulate={parts}")
    config = composed(*SMALL, *options)
    splits = Splits(*(noise(count, 32) for count in (20, 12, 12)))
    found = []
    for graphs in (False, True):
        learner = Learner.create(config, initial_model(config, splits), splits.train, torch.device("cpu"))
        assert not learner.uses_graphs
        if graphs:
            replayed = Replayed(learner.model)
            monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", replayed.mark)  # it has no graphs to tell
            learner = dataclasses.replace(learner, forward=replayed, uses_graphs=True)
        kept = []
        for step, batch in enumerate(Batches(splits.train, 8, learner.device)):
            kept += learner.step(batch, 1)
            learner.average.update(step)
        if graphs:
            replayed.overwrite()
        found.append([*kept, *learner.eval_model.state_dict().values(), *learner.model.state_dict().values()])
    assert replayed.marks == 3 and all(map(torch.equal, *found))
