"""Few images: what the numbers are worth."""

import numpy as np
import pytest

from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.reports.content import few_images
from experiments.training.evaluation import wilson_interval
from samples import paint

CLASSES = ("cat", "dog")


def counts(**splits):
    return {name: np.array(images) for name, images in splits.items()}


def test_with_enough_images_nothing_is_said():
    enough = counts(train=[15, 15], validation=[25, 5], test=[5, 25])
    assert few_images(enough, CLASSES, 0.5) == ""
    assert few_images(counts(train=[30, 0], test=[30, 0]), CLASSES, 0.5) == ""  # a class without images has no number


@pytest.mark.parametrize(
    ("splits", "accuracy", "few"),
    [
        (counts(train=[4, 4], test=[1, 1]), 0.5, "8 training images, 2 test images"),
        (counts(train=[50, 50], test=[29, 0]), 1.0, "29 test images"),
        (counts(train=[50, 50], validation=[10, 9], test=[40, 40]), 0.9, "19 validation images"),
        (counts(train=[50, 50], test=[1, 0]), 0.0, "1 test image"),
        (counts(train=[50, 50], test=[4, 40]), 0.75, "4 test images of cat"),
        (counts(train=[3, 40], test=[4, 2]), 0.5, "6 test images, 3 training images of cat"),
        (counts(train=[1, 400], test=[0, 100]), 0.5, "1 training image of cat"),
    ],
)
def test_one_line_says_what_they_mean_for_the_accuracy(splits, accuracy, few):
    total = splits["test"].sum()
    low, high = wilson_interval(round(accuracy * total), total)
    meaning = "may differ much with other training or validation images"
    if "test image" in few:
        meaning = "is only an estimate"
    elif few.endswith("of cat"):
        meaning = "says little about this class"
    assert few_images(splits, CLASSES, accuracy) == (
        f"few images ({few}): the test accuracy {accuracy:.4f} {meaning}, its 95 % interval is "
        f"{max(low, 0):.4f} to {min(high, 1):.4f}"
    )


def test_of_many_classes_with_few_images_some_are_named():
    line = few_images({"test": np.full(10, 4)}, "abcdefghij", 0.9)
    assert "4 test images of d and 6 more)" in line and "of e" not in line


def test_a_run_says_so_at_its_end_and_in_its_report(here, capsys):
    for name in ("cat", "dog"):
        paint(here / "pictures", name, 8, 0 if name == "cat" else 100)
    pictures = ("data=image_folder", "data.root=pictures", "data.validation_size=4", "data.test_size=4")
    config = compose_config([*pictures, "tracking=none", "training.epochs=1", "model.filters=2", "threads=1"])
    for _ in range(2):  # also if it is finished already
        run(config)
        line = "few images (8 training images, 4 validation images, 4 test images): the test accuracy"
        assert line in capsys.readouterr().out
    (report,) = here.glob("outputs/runs/*/artifacts/report.html")
    assert line[1:] in report.read_text(encoding="utf-8")
