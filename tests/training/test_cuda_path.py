"""Whole epochs on a GPU that computes nothing: no operator mixes devices, is unknown there, or makes the host wait."""

import dataclasses
import functools
import itertools
import json
import traceback
from unittest import mock

import numpy as np
import pytest
import torch

from experiments.config.loading import compose_config
from experiments.data.augmentation import random_crops
from experiments.data.batches import Batches
from experiments.data.images import Images, Splits
from experiments.runs.checkpoint import State
from experiments.training import devices, loop
from experiments.training.learner import Learner, initial_model
from fake_device import FakeDevice, Waits, mps_operators

SMALL = ("model.filters=4", "model.dense_width=8")
FAST = ("model=fastnet", "model.widths=[4,4]")


def noise(count, size):
    random = np.random.default_rng(count)
    return Images(
        random.integers(0, 256, (count, 3, size, size), dtype=np.uint8), np.arange(count) % 10, tuple("abcdefghij")
    )


@functools.cache
def composed(*overrides):
    return compose_config(["data=digits", "training.batch_size=8", "training.epochs=2", *overrides])


def train(gpu, *overrides, size=32, streamed=False):
    """The epochs of a run on the fake GPU: three batches each, the last one smaller. Returns the state after them."""
    config = composed(*overrides)
    splits = Splits(*(noise(count, size) for count in (20, 12, 12)))
    with gpu.used():
        with mock.patch.object(devices, "autocast", gpu.autocast):
            learner = Learner.create(config, initial_model(config, splits), splits.train, gpu.device)
        crops = random_crops(config.augment, splits.train)
        batches = Batches(
            splits.train, 8, gpu.device, config.training.sampler, streamed=streamed, crops=crops, threads=1
        )
        validation = Batches(splits.validation, 8, gpu.device, streamed=streamed)
        views = learner.eval_forward
        state = State.fresh(learner)

        class Watching:
            def step(self, running):
                gpu.running = not running.is_complete

        def evaluating(module, inputs):
            gpu.running = not module.training

        views.register_forward_pre_hook(evaluating)
        views.register_forward_hook(lambda *_: setattr(gpu, "running", False))
        for epoch in loop.train(learner, batches, validation, range(1, 3), Watching()):
            gpu.running = False
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


def measure(kind, paths, file):
    """What happened on each path, resident and streamed; the body of a process, because PyTorch keeps what a fake GPU sets."""
    seen = {}
    for path, streamed in itertools.product(paths, (False, True)):
        gpu = FakeDevice(kind)
        try:
            state = train(gpu, *paths[path], streamed=streamed)
            places = {tensor.device.type for tensor in state.learner.model.state_dict().values()}
            kept = {tensor.device.type for tensor in state.best.values()}
            found = {"epochs": len(state.history), "places": [*places], "kept": [*kept]}
        except Exception:
            found = {"error": traceback.format_exc()}
        found |= {"operators": sum(gpu.operators.values()), "unknown": unknown(kind, gpu.operators)}
        seen[f"{path} {'streamed' if streamed else 'resident'}"] = found
    file.write_text(json.dumps(seen))


@pytest.fixture(scope="module", params=["cuda", "mps"])
def seen(request, start, tmp_path_factory):
    file = tmp_path_factory.mktemp("fake") / "seen.json"
    start(measure, request.param, PATHS, file).join()
    return {"cuda": "cuda", "mps": "meta"}[request.param], json.loads(file.read_text())


@pytest.mark.parametrize("place", ["resident", "streamed"])
@pytest.mark.parametrize("path", PATHS)
def test_epochs_run_on_a_gpu(path, place, seen):
    device, found = seen
    found = found[f"{path} {place}"]
    assert "error" not in found, found["error"]
    assert found["unknown"] == []
    print(f"{device}, {path}, {place}: {found['operators']} operators")
    assert found["epochs"] == 2 and found["operators"] > 300
    assert found["places"] == [device] and found["kept"] == ["cpu"]


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
