"""Explanations: values against computations by hand, an unchanged network, and the command as a user types it."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import nn

from conftest import ROOT
from experiments.analysis import explanation, heatmaps
from experiments.analysis.attribution import gradcam, integrated_gradients, occlusion
from experiments.analysis.methods import METHODS
from experiments.config import UserError
from experiments.models.classifier import Classifier, Normalize
from experiments.runs.finished import load_run

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def classifier(*layers, seed=0):
    """An untrained network, in training mode, that normalises with MEAN and STD."""
    torch.manual_seed(seed)
    return Classifier(Normalize(MEAN, STD), nn.Sequential(*layers))


def tiny(size=6):
    """One convolution and one dense layer; four classes."""
    return classifier(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * (size - 2) ** 2, 4))


def picture(size=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, size, size), dtype=np.uint8)


def normalised(pixels):
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (pixels / 255 - mean) / std


def logits(model, pixels):
    """Of images (N, 3, H, W), float64 or uint8, in evaluation mode."""
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(pixels)).numpy()


@pytest.fixture(scope="session")
def trained(finished):
    return load_run(uri=f"sqlite:///{finished[0]}/mlflow.db")


@pytest.fixture(scope="session")
def test_images(trained):
    return trained.splits().test


@pytest.mark.parametrize("which", ["predicted", "other"])
def test_integrated_gradients_are_complete(trained, test_images, which):
    pixels, model = test_images.pixels[:8], trained.model.uncalibrated()
    pictures, black = logits(model, pixels), logits(model, np.zeros_like(pixels[:1]))[0]
    for image, answers in zip(pixels, pictures):
        target = int(answers.argmax()) if which == "predicted" else int(answers.argsort()[-2])
        contributions = integrated_gradients(trained.model, image, target)
        assert contributions.shape == (32, 32) and contributions.dtype == np.float32 and (contributions < 0).any()
        assert contributions.sum() == pytest.approx(answers[target] - black[target], rel=0.01)
        assert (contributions[(image == 0).all(axis=0)] == 0).all()
        assert np.array_equal(integrated_gradients(trained.model, image, target), contributions)


def test_integrated_gradients_of_a_linear_network_are_weight_times_input():
    model = classifier(nn.Flatten(), nn.Linear(3 * 36, 4))
    weights = model.network[1].weight.detach().double().numpy()[2].reshape(3, 6, 6)
    expected = (weights * (normalised(picture()) - normalised(0 * picture()))).sum(axis=0)
    assert integrated_gradients(model, picture(), 2) == pytest.approx(expected, abs=1e-5)


def stretched(coarse, size):
    """Bilinear, by definition: pixel centres are mapped onto each other, and the border is repeated."""
    position = ((np.arange(size) + 0.5) * len(coarse) / size - 0.5).clip(0, len(coarse) - 1)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(len(coarse))))
    return weights @ coarse @ weights.T


@pytest.mark.parametrize("target", range(4))
def test_gradcam_is_that_of_the_paper(target):
    model = tiny()
    convolution, dense = model.network[0], model.network[3]
    windows = sliding_window_view(normalised(picture()), (3, 3), axis=(1, 2))
    maps = np.einsum("cyxij,kcij->kyx", windows, convolution.weight.detach().numpy())
    maps += convolution.bias.detach().numpy()[:, None, None]
    gradients = dense.weight.detach().numpy()[target].reshape(maps.shape) * (maps > 0)
    coarse = np.maximum(0, np.einsum("k,kyx->yx", gradients.mean(axis=(1, 2)), maps))
    assert coarse.max() > 0
    heatmap = gradcam(model, picture(), target)
    assert heatmap.dtype == np.float32 and heatmap == pytest.approx(stretched(coarse, 6), abs=1e-6)


@pytest.mark.parametrize(("size", "window", "stride"), [(7, 3, 3), (7, 2, 1), (6, 1, 1), (8, None, None)])
def test_occlusion_is_covering_part_after_part(size, window, stride):
    model, pixels = tiny(size), picture(size)
    heatmap = occlusion(model, pixels, 1, window, stride)
    window, stride = window or size // 4, stride or 1
    lost, covers = np.zeros((size, size)), np.zeros((size, size))
    for y in range(0, size - window + stride, stride):
        for x in range(0, size - window + stride, stride):
            covered = pixels.copy()
            covered[:, y : y + window, x : x + window] = 0
            before, after = logits(model, np.stack([pixels, covered]))[:, 1]
            lost[y : y + window, x : x + window] += before - after
            covers[y : y + window, x : x + window] += 1
    assert heatmap.dtype == np.float32 and heatmap == pytest.approx(lost / covers, abs=1e-5)
    assert heatmap.min() < 0 < heatmap.max()


@pytest.mark.parametrize("method", METHODS)
def test_the_predicted_class_is_explained(method, trained, test_images):
    pixels = test_images.pixels[0]
    subject = explanation.Subject("a", "a", pixels.transpose(1, 2, 0), pixels)
    predicted = int(logits(trained.model, pixels[None]).argmax())
    found = [
        next(explanation.explain(trained, [subject], method, target)) for target in (None, predicted, 9 - predicted)
    ]
    assert found[0].explained == found[0].predicted == trained.classes[predicted]
    assert np.array_equal(found[0].heatmap, found[1].heatmap)
    assert not np.array_equal(found[0].heatmap, found[2].heatmap)


@pytest.mark.parametrize("method", [gradcam, integrated_gradients, occlusion])
def test_a_first_layer_may_work_in_place(method):
    in_place, apart = (classifier(nn.ReLU(inplace=flag), *tiny().network) for flag in (True, False))
    assert np.array_equal(method(in_place, picture(), 1), method(apart, picture(), 1))


FORWARDS = {gradcam: 2, integrated_gradients: 3, occlusion: 3}  # that every heatmap needs at least


@pytest.mark.parametrize(
    ("method", "failing"),
    [(method, failing) for method, count in FORWARDS.items() for failing in (None, *range(1, count + 1))],
)
def test_the_network_is_left_as_it_was(method, failing):
    layers = nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.BatchNorm2d(5), nn.Flatten(), nn.Dropout(), nn.Linear(80, 4)
    model = classifier(nn.Conv2d(3, 5, 3), *layers)
    model.network[1].eval()  # frozen, in a network that trains
    model.network[0].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    needed = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    calls = []

    def failing_hook(*_):
        calls.append(1)
        if len(calls) == failing:
            raise RuntimeError("no more memory")

    model.network[-1].register_forward_hook(failing_hook)
    if failing:
        with pytest.raises(RuntimeError, match="no more memory"):
            method(model, picture(), 1)
    else:
        with torch.inference_mode():
            method(model, picture(), 1)
    assert len(calls) == failing or (failing is None and len(calls) >= FORWARDS[method])
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needed
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert sum(hooks) == 1 and len(model.network[-1]._forward_hooks) == 1
    assert not any(m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in model.modules())


class Residual(nn.Module):
    """Its shortcut is defined after the convolutions and runs before them; the output of the last convolution is one pixel."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.shortcut = nn.Conv2d(3, 8, 1)
        self.dense = nn.Linear(8, 4)

    def forward(self, images):
        features = self.shortcut(images) + self.second(self.first(images).relu_())
        return self.dense(self.squeeze(features.relu_().mean(dim=(2, 3), keepdim=True)).flatten(1))


def test_the_convolution_that_runs_last_is_taken():
    model = classifier(Residual())
    taken = gradcam(model, picture(), 0)
    assert np.array_equal(taken, gradcam(model, picture(), 0, "network.0.second"))
    assert not np.array_equal(taken, gradcam(model, picture(), 0, "network.0.first"))


@pytest.mark.parametrize("layer", ["network.7", "network.0.dense", "network.0.frist", ""])
def test_an_unknown_layer_is_an_error_that_names_the_convolutions(layer):
    convolutions = r"shortcut \(8x6x6\), network\.0\.first \(8x6x6\), network\.0\.second \(8x6x6\), .*squeeze"
    with pytest.raises(UserError, match=rf"--layer {layer}: .* the convolutions are network\.0\.{convolutions}"):
        gradcam(classifier(Residual()), picture(), 0, layer)


def test_without_a_convolution_another_method_is_needed():
    model = classifier(nn.Flatten(), nn.Linear(3 * 36, 4))
    with pytest.raises(UserError, match="the network has none; use another --method"):
        gradcam(model, picture(), 0)


def test_the_worst_mistakes(trained, test_images):
    probabilities = trained.probabilities(test_images.pixels)
    wrong = [row for row, label in enumerate(test_images.labels) if probabilities[row].argmax() != label]
    by_confidence = sorted(wrong, key=lambda row: -probabilities[row].max())
    every = explanation.mistakes(trained, 10_000)
    assert [subject.name for subject in every] == [f"test[{row}]" for row in by_confidence]
    (worst,) = explanation.explain(trained, explanation.mistakes(trained, 1), "occlusion")
    assert worst.subject.truth == test_images.classes[test_images.labels[by_confidence[0]]] != worst.predicted
    assert worst.probability == worst.explained_probability == probabilities[by_confidence[0]].max()
    assert np.array_equal(
        worst.heatmap,
        occlusion(trained.model, test_images.pixels[by_confidence[0]], trained.classes.index(worst.predicted)),
    )


def test_an_unknown_class_is_an_error_that_names_the_nearest():
    classes = ("airplane", "Automobile", "bird")
    assert explanation.class_index("bird", classes) == 2
    with pytest.raises(UserError, match=r"--class autmobile: .* did you mean Automobile\? There are airplane, Auto"):
        explanation.class_index("autmobile", classes)


def test_only_gradcam_takes_a_layer(trained):
    with pytest.raises(UserError, match="only --method gradcam"):
        next(explanation.explain(trained, [], "occlusion", layer="network.0"))


def test_the_heatmap_covers_the_original():
    original = np.zeros((20, 60, 3), dtype=np.uint8)
    rows = [
        heatmaps.Heatmap(original, values, original, (r"$\x$", "b", "c"), "")
        for values in (np.eye(4), np.zeros((4, 4)))
    ]
    figure = heatmaps.draw(rows)
    figure.draw_without_rendering()
    grey, heatmap = figure.axes[1].images
    assert grey.get_extent() == heatmap.get_extent() and len(figure.axes) == 8


def test_rows_are_as_high_as_their_images():
    """A wide image gets wide panels, and a low row; the panels of an upright one stay below their headings."""
    shapes = ((40, 60), (20, 60), (60, 60), (90, 60))
    images = [np.zeros((*shape, 3), dtype=np.uint8) for shape in shapes]
    square = np.zeros((8, 8, 3), dtype=np.uint8)
    figure = heatmaps.draw([heatmaps.Heatmap(image, np.eye(8), square, ("a", "b", "c"), "") for image in images])
    figure.draw_without_rendering()
    inches = figure.dpi_scale_trans.inverted()
    boxes = [axes.get_window_extent().transformed(inches) for axes in figure.axes]
    wide, flat, plain, upright = (boxes[4 * row : 4 * row + 3] for row in range(4))
    assert wide[0].width == pytest.approx(1.5 * wide[0].height) and wide[0].height == pytest.approx(wide[2].height)
    assert 1.9 < wide[2].height < 2.2 and flat[0].height > 1 and plain[0].height == pytest.approx(2.7)
    assert upright[2].width == pytest.approx(2.7) == upright[0].height
    assert all(box.x0 >= 0 and box.x1 < 9.6 and box.y0 >= 0 for box in boxes)
    tops = [row[0].y1 for row in (wide, flat, plain, upright)]
    assert all(row[2].y0 > top for row, top in zip((wide, flat, plain), tops[1:]))


@pytest.mark.parametrize(
    ("fit", "extent"), [("squash", (0, 60, 20, 0)), ("crop", (21.25, 38.75, 18.75, 1.25)), ("pad", (0, 60, 40, -20))]
)
def test_the_heatmap_covers_what_the_network_sees(fit, extent):
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    figure = heatmaps.draw([heatmaps.Heatmap(wide, np.eye(4), wide[:, ::3], ("a", "b", "c"), "", fit)])
    grey, heatmap = figure.axes[1].images
    assert [edge + 0.5 for edge in heatmap.get_extent()] == list(extent)
    assert (
        (*figure.axes[1].get_xlim(), *figure.axes[1].get_ylim()) == tuple(grey.get_extent()) == (-0.5, 59.5, 19.5, -0.5)
    )


@pytest.mark.slow
def test_the_command_explains_the_good_and_names_the_bad(finished, trained, command, tmp_path):
    for folder, shade in (("a", 90), ("b", 200)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (60, 20), (shade, 0, 0)).save(tmp_path / folder / "cat.png")
    (tmp_path / "b" / "broken.jpg").write_text("not a picture")
    done = command(
        "scripts/explain.py", "a", "b", "nowhere.png", "--uri", f"sqlite:///{finished[0]}/mlflow.db", cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "b/broken.jpg: not a picture in a format that is read\nnowhere.png: there is no such file\n"
    run, *lines = done.stdout.splitlines()
    assert run == f"run {trained.name} ({trained.run_id}), trained on digits"
    first, second = (line.split("  ") for line in lines)
    folder = tmp_path / "outputs" / "explanations"
    assert first[0] == "outputs/explanations/cat_gradcam.png" and re.fullmatch(r"a/cat\.png: \d \d+\.\d %", first[1])
    assert second[0] == "outputs/explanations/cat_gradcam_2.png" and second[1].startswith("b/cat.png: ")
    assert all(Image.open(file).size > (1000, 200) for file in folder.iterdir())

    # Once more, in another order: each replaces its own.
    settings = trained.config.data
    again = explanation.subjects([tmp_path / "b" / "cat.png", tmp_path / "a"], settings, pytest.fail)
    written = list(explanation.save(explanation.explain(trained, again, "gradcam"), folder))
    assert [path.name for path, _ in written] == ["cat_gradcam_2.png", "cat_gradcam.png"]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("truth", [None, "condiments and spices", "a class with a name of many words"])
def test_headings_of_long_class_names_fit_above_their_panels(truth):
    square = np.zeros((6, 6, 3), np.uint8)
    subject = explanation.Subject("condiments and spices/a photograph of peppers.jpg", "", square, picture(), truth)
    label = "another class with a name of many words"
    shown = explanation.Explained(
        subject, "run", "gradcam", np.eye(6), label, 0.998, "condiments and spices", 0.001, "crop"
    )
    figure = heatmaps.draw([shown.row, shown.row])
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title()]
    boxes = [axes.title.get_window_extent() for axes in panels]
    assert all(box.x0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes[:3]))
    assert all(box.y0 >= panels[0].get_window_extent().y1 for box in boxes[:3])
    assert all(box.y1 <= panels[0].get_window_extent().y0 for box in boxes[3:])
    assert ("truly" in panels[0].get_title()) == (truth is not None)


@pytest.mark.slow
def test_the_command_draws_mistakes_on_one_sheet(finished, command, tmp_path):
    options = ("--method", "integrated_gradients", "--class", "3", "--out", tmp_path / "new")
    done = command("scripts/explain.py", "--mistakes", "2", "--sheet", *options, cwd=finished[0])
    assert done.returncode == 0 and done.stderr == ""
    (sheet,) = (tmp_path / "new").iterdir()
    _, first, *lines = done.stdout.splitlines()
    assert first == str(sheet)  # once
    assert len(lines) == 2 and all(line.startswith("  test[") and "truly" in line for line in lines)
    assert Image.open(sheet).size[1] > 700


def test_the_command_line_is_understood_before_torch_is_loaded(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "explain.py")]
    for arguments, code in ((["--help"], 0), ([], 2), (["a.png", "--method", "magic"], 2), (["--mistakes", "-1"], 2)):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr
        assert "argparse" in done.stderr and not any(name in done.stderr for name in ("torch", "mlflow", "matplotlib"))
