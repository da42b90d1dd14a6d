"""The report: one file, nothing from elsewhere, and the right numbers in it."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import DIGITS
from experiments.config.loading import compose_config
from experiments.data import Images
from experiments.experiment import run
from experiments.models.classifier import Layer, Layers
from experiments.reports import report
from experiments.reports.content import Content, protocol
from experiments.reports.drawing import Figure, PageFigure, save, save_figures, svg
from experiments.reports.figures import FIGURES, confusion_matrix
from experiments.runs.finished import load_run
from experiments.training.calibration import calibration
from experiments.training.evaluation import score, wilson_interval


@pytest.fixture(scope="module")
def page(finished):
    (history,) = finished[0].glob("mlruns/digits/*/artifacts/history.csv")  # evaluations of the run have none
    return history.with_name("report.html").read_text(encoding="utf-8")


def test_it_is_one_small_file_that_loads_nothing(page):
    assert len(page) < 3_000_000
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in page


def test_it_shows_the_main_results(page):
    for part in (
        "test accuracy; 95 % interval",
        "used once, after training",
        "expected calibration error",
        "225,610 parameters",
    ):
        assert part in page
    assert page.count("<svg") == 4 and "test_set" not in page


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize(
    ("patience", "restore_best", "chosen"),
    [("null", "false", None), ("1", "false", "early stopping"), ("null", "true", "the choice of the epoch")],
)
def test_it_states_what_was_selected_on_validation_data(test, patience, restore_best, chosen):
    stopping = [f"early_stopping.patience={patience}", f"early_stopping.restore_best={restore_best}"]
    stated = protocol(compose_config([*DIGITS, *stopping]), test)
    if chosen:
        assert f"{chosen} used {'only the validation set' if test else 'it too, so they are optimistic'}." in stated
    else:
        assert f"nothing was selected on {'validation data' if test else 'it'}." in stated
    assert f"with the weights of the {'best' if restore_best == 'true' else 'last'} epoch" in stated


@pytest.mark.slow
def test_the_report_of_a_run_that_is_not_tested(here):
    config = compose_config([*DIGITS, "tracking=none", "training.epochs=1", "model.filters=2", "evaluate_test=false"])
    run(config)
    (path,) = here.glob("outputs/runs/*/artifacts/report.html")
    page = path.read_text(encoding="utf-8")
    assert protocol(config, test=False) in page and "validation accuracy" in page


def test_every_image_is_named(page):
    cells = json.loads(re.search(r"const cells = (\{.*?\});", page)[1])
    assert all(re.fullmatch(r"test\[\d+\]", name) for images in cells.values() for _, _, name in images)
    (mistakes,) = re.findall(r"The most confident mistakes</h2>\n<div.*?</div>\n<h2>", page, re.DOTALL)
    assert mistakes.count("predicted as") == len(re.findall(r"test\[\d+\]", mistakes)) > 0


def test_every_filled_cell_has_images(page):
    cells = json.loads(re.search(r"const cells = (\{.*?\});", page)[1])
    counts = re.findall(r'data-cell="(\d+,\d+)"[^>]*?><span class="count">(\d+)<', page)
    assert counts and {cell for cell, _ in counts} == cells.keys()
    assert all(len(cells[cell]) == min(int(count), 24) for cell, count in counts)


def test_the_images_are_the_right_ones(page, finished):
    """Each cell's first image, cut out of the sheet, is the most confident test image of that cell."""
    trained = load_run(uri=f"sqlite:///{finished[0]}/mlflow.db")
    test = trained.splits().test
    probabilities = trained.probabilities(test.pixels)
    predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    data = re.search(r"--sprite: url\(data:image/webp;base64,([^)]*)\)", page)[1]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    columns = int(re.search(r"const columns = (\d+)", page)[1])
    for cell, images in json.loads(re.search(r"const cells = (\{.*?\});", page)[1]).items():
        true, predicted = map(int, cell.split(","))
        rows = np.flatnonzero((test.labels == true) & (predictions == predicted))
        most_confident = rows[confidence[rows].argmax()]
        place, probability, name = images[0]
        assert name == f"test[{most_confident}]"
        assert probability == pytest.approx(confidence[most_confident], abs=0.001)
        top, left = place // columns * 32, place % columns * 32
        shown = sheet[top : top + 32, left : left + 32]
        assert np.abs(shown - test.pixels[most_confident].transpose(1, 2, 0)).mean() < 8
    mistakes = page.split("The most confident mistakes")[1].split("The least confident")[0]
    worst = int(np.where(predictions != test.labels, confidence, 0).argmax())
    pattern = r"</i><span[^>]*>(\d)</span> predicted as <span[^>]*>(\d)</span> <span class=\"soft\">(\d+) %"
    first = re.search(pattern, mistakes)
    assert first.groups() == (str(test.labels[worst]), str(predictions[worst]), f"{100 * confidence[worst]:.0f}")
    mean, accuracy, fraction = calibration(confidence, predictions == test.labels)
    assert f"<b>{(fraction * abs(accuracy - mean)).sum():.3f}</b><span>expected calibration error" in page


def test_wilson_interval_is_scipys():
    from scipy.stats import binomtest

    for right, total in ((0, 10), (7, 10), (6416, 10_000), (297, 297)):
        expected = binomtest(right, total).proportion_ci(method="wilson")
        assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.99, 1.0, 0.52, 0.5])
    right = np.array([True, True, False, True, False])
    mean, accuracy, fraction = calibration(confidence, right)
    assert (
        fraction[-1] == pytest.approx(0.6) and accuracy[-1] == pytest.approx(2 / 3) and mean[-1] == pytest.approx(0.98)
    )
    assert fraction[7] == pytest.approx(0.4) and accuracy[7] == 0.5 and mean[7] == pytest.approx(0.51)
    assert fraction.sum() == pytest.approx(1) and (accuracy[:7] == 0).all()


def test_every_figure_of_the_table_is_saved_and_shown(finished, page):
    (history,) = finished[0].glob("mlruns/digits/*/artifacts/history.csv")
    absent = {"augmentation", "corruptions", "corruption_examples"}  # which this run does without
    shown = [figure for figure in FIGURES if figure.name not in absent]
    assert {file.stem for file in history.parent.glob("figures/*")} == {figure.name for figure in shown}
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[: len(shown)] == [figure.heading for figure in shown]


def test_a_figure_is_drawn_once_per_file(tmp_path, monkeypatch):
    """Matplotlib alone draws it twice, to find its layout first."""
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: drawn.append(figure) or draw(figure, renderer))
    figure = confusion_matrix(np.eye(3), ["a", "b", "a name that is long"], "title")
    save(figure, tmp_path / "figure.png")
    assert "a name that is long" in svg(figure) and len(drawn) == 2


def test_a_new_figure_is_a_row(tmp_path):
    def line(values):
        figure = Figure(layout="constrained")
        figure.subplots().plot(values)
        return figure

    names = ("always", "long")
    table = [
        PageFigure("always", "", "", line),
        PageFigure("long", "", "", line, applies=lambda values: len(values) > 2),
    ]
    assert [row.name for row, _ in save_figures(tmp_path, table, [1, 2, 3])] == list(names)
    ((row, figure),) = save_figures(tmp_path, table, [1, 2])
    assert row.name == "always" and svg(figure).startswith("<svg")
    assert [file.name for file in tmp_path.iterdir()] == ["always.png"]


@pytest.mark.parametrize(("classes", "count", "size"), [(2, 3, 8), (100, 3000, 32), (300, 900, 64)])
def test_any_number_of_classes_and_strange_names(tmp_path, classes, count, size):
    rng = np.random.default_rng(0)
    names = ("<b>&'\"", *(f"Größe {number}" for number in range(classes - 1)))
    images = Images(
        rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8), rng.integers(0, classes, count), names
    )
    logits = torch.from_numpy(rng.normal(size=(count, classes)).astype(np.float32))
    content = Content(
        name="</script><script>alert(1)</script>",
        command="python train.py",
        config=compose_config(["data=digits"]),
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        evaluation=score(logits, torch.tensor(images.labels)),
        split="test",
        class_counts={"test": images.class_counts},
        layers=Layers(
            [Layer("Conv2d", (4, 8, 8), 1200, "frozen before epoch 3"), Layer("Linear", (10,), 10)], "", 1200
        ),
        protocol="",
        environment={},
    )
    report.write(tmp_path, content)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    assert "<b>&'" not in page and "<script>alert" not in page
    assert "Network: 1,210 parameters, 10 trainable" in page and "frozen before epoch 3</td>" in page


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [0.1, 0.9]),
        (["training.sampler=balanced"], [0.5, 0.5]),
        (["training.class_weights=balanced"], [0.5, 0.5]),
        (["training.sampler=balanced", "training.class_weights=balanced"], [0.9, 0.1]),
    ],
)
def test_what_fraction_of_training_each_class_has(tmp_path, overrides, expected):
    images = Images(np.zeros((4, 3, 8, 8), dtype=np.uint8), np.array([0, 0, 1, 1]), ("rare", "usual"))
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    training = np.array([10, 90])
    content = Content(
        name="a",
        command="b",
        config=compose_config(["data=digits", *overrides]),
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        evaluation=score(logits, torch.tensor(images.labels)),
        split="test",
        class_counts={"training": training, "test": images.class_counts},
        layers=Layers([]),
        protocol="",
        environment={},
    )
    report.write(tmp_path, content)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td>(?:rare|usual)</td>.*?<td>([\d.]+) %</td></tr>", page)
    assert [float(row) / 100 for row in rows] == pytest.approx(expected)
