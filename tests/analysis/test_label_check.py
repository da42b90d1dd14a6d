"""Suspicious labels: the folds, what is found, the page, and the tables that data.exclude and data.relabel read."""

import csv

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from experiments.analysis import cross_validation, label_page
from experiments.analysis.duplicates import find_duplicates
from experiments.analysis.label_check import LabelCheck, Suspect, check_labels
from experiments.analysis.picture_problems import Problem, find_problems
from experiments.config import UserError
from experiments.data import Images, Splits
from experiments.data.images import joined
from experiments.runs.finished import load_run
from samples import paint, photograph, splits_of

TINY = ("model.filters=8", "model.dense_width=32", "training.epochs=3", "threads=1")


def rows(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_every_fold_is_a_run():
    folds = cross_validation.fold_overrides(["data=digits", "data.folds=3", "evaluate_test=true"])
    assert [overrides[-1] for overrides, _ in folds] == ["data.fold=0", "data.fold=1", "data.fold=2"]
    assert all(config.data.folds == 3 and config.evaluate_test is False for _, config in folds)
    assert len(cross_validation.fold_overrides(["data=digits"])) == cross_validation.FOLDS


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(cross_validation, "PACKAGES", ("numpy", "no_such_package"))
    with pytest.raises(UserError, match=r"^check_labels.py needs no_such_package: pip install -e '\.\[labels\]'$"):
        cross_validation.check_packages()


def test_only_duplicates_of_two_classes_are_asked_for():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    pixels[1] = pixels[2] = pixels[0]
    train = Images(pixels, np.array([0, 0, 1, 1, 0, 1]), ("a", "b"))
    other = Images(pixels[2:3], np.array([0]), ("a", "b"))
    found = find_duplicates(Splits(train, train[4:5], other), of_two_classes=True)
    pairs = {(pair.first.split, pair.first.index, pair.second.split, pair.second.index) for pair in found.pairs}
    assert pairs == {("train", 0, "train", 2), ("train", 1, "train", 2), ("train", 2, "test", 0)}
    assert found.count(across=False) == 2 and found.count(across=True) == 1


@pytest.fixture
def hostile(here):
    """A check of pictures with names that a spreadsheet would run, and the overrides of their data."""
    for number, name in enumerate(("=a", "@b<i>")):
        paint(here / "pictures", name, 6, 10 * number)
    data = ("data=image_folder", "data.root=pictures")
    splits = splits_of(*data)
    images = joined(list(splits.parts().values()))
    names = ["train"] * (len(splits.train) + len(splits.validation)) + ["test"] * len(splits.test)
    probabilities = np.full((len(images), 2), np.nan, np.float32)
    probabilities[:-1] = 0.2, 0.8
    index = images.names.index("=a/0.png")
    suspects = (Suspect(index, "=a", "@b<i>", 0.2, 0.8, 0.2),)
    check = LabelCheck(images, tuple(names), probabilities, suspects, (), 0, ("=a/broken.png: not a picture",))
    return label_page.Found("pictures", "check", 3, check, [Problem(3, "dark", 0.1)], {"odd size": 0.9}, "path"), data


def test_the_tables_can_be_given_to_a_run(hostile, here):
    found, data = hostile
    files = {path.name: path for path in label_page.write(here / "labels", found)}
    (row,) = rows(files["labels.csv"])
    assert (row["path"], row["given"], row["label"]) == ("'=a/0.png", "'=a", "'@b<i>")
    splits = splits_of(*data, f"data.relabel={files['labels.csv']}")
    labels = {
        name: part.classes[label] for part in splits.parts().values() for name, label in zip(part.names, part.labels)
    }
    assert labels["=a/0.png"] == "@b<i>" and list(labels.values()).count("=a") == 5
    without = splits_of(*data, f"data.exclude={files['labels.csv']}")
    assert sum(map(len, without.parts().values())) == 11
    assert [row["problem"] for row in rows(files["pictures.csv"])] == ["unreadable: not a picture", "dark"]


def test_the_page_is_one_file(hostile, here):
    page = next(label_page.write(here / "labels", hostile[0])).read_text()
    assert "@b&lt;i&gt;" in page and "<i>" not in page.replace("</i>", "").replace('<i class="thumbnail"', "")
    assert "data:image/webp" in page and "http" not in page.replace("http-equiv", "")
    assert "90 % of the pictures are found to be odd size" in page and "=a/broken.png: not a picture" in page
    assert hostile[0].metrics["labels/checked"] == 11


def test_pictures_with_problems(here):
    pytest.importorskip("cleanvision")
    (here / "pictures").mkdir()
    for number in range(12):
        picture = photograph(number, 64, 48)
        if number == 1:
            picture = picture.point(lambda value: value // 12)
        if number == 2:
            ramp = 1.4 * np.add.outer(np.arange(48), np.arange(64))  # nothing is sharp
            picture = Image.fromarray(ramp.astype(np.uint8)).convert("RGB")
        if number == 3:
            picture = picture.resize((640, 480))
        if number == 4:
            picture = picture.resize((640, 40))
        picture.save(here / "pictures" / f"{number}.png")
    names = [f"{number}.png" for number in range(12)]
    small = [np.asarray(Image.open(here / "pictures" / name).resize((32, 32))) for name in names]
    images = Images(np.stack(small).transpose(0, 3, 1, 2), np.zeros(12, np.int64), ("a",), names=names)
    problems, common = find_problems(images, here / "pictures")
    found = {(one.index, one.kind) for one in problems}
    assert {(1, "dark"), (2, "blurred"), (3, "odd size"), (4, "odd shape")} <= found
    assert not {index for index, _ in found} - {1, 2, 3, 4} and not common


def test_flipped_labels_are_found_and_left_out(tracked, command):
    """5 % of the labels of the digits are flipped: the command finds most of them, and its table leaves them out."""
    pytest.importorskip("cleanlab"), pytest.importorskip("cleanvision")
    rng = np.random.default_rng(0)
    flipped = rng.permutation(1500)[:75]
    splits = splits_of("data=digits")
    known = joined([splits.train, splits.validation])
    labels = dict(zip(known.names, known.labels))
    lines = [f"{index},{(labels[f'train[{index}]'] + rng.integers(1, 10)) % 10}" for index in flipped]
    (tracked / "flips.csv").write_text("\n".join(["index,label", *lines]))
    arguments = ("data=digits", "data.folds=2", "data.relabel=flips.csv", *TINY)
    done = command("scripts/check_labels.py", *arguments, cwd=tracked)
    assert done.returncode == 0, done.stderr
    assert "it/s" not in done.stderr  # no progress bar where there is no terminal
    (folder,) = (tracked / "outputs/labels").iterdir()
    suspects = [row["index"] for row in rows(folder / "labels.csv")]
    wrong = {f"train[{index}]" for index in flipped}
    assert len(wrong & set(suspects[:75])) > 50  # of 75; at random there would be 4
    again = command("scripts/check_labels.py", *arguments, "--test", cwd=tracked)
    assert again.stdout.count("this run is finished already") == 2
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    (check,) = [run for run in runs if "label_check" in run.data.tags]
    assert len(runs) == 3 and set(check.data.tags["label_check"].split(",")) == {run.info.run_id for run in runs} - {
        check.info.run_id
    }
    assert check.info.status == "FINISHED" and check.data.metrics["labels/checked"] == 1797
    assert check.data.metrics["labels/suspicious"] == len(rows(folder / "labels.csv"))
    assert {file.path for file in client.list_artifacts(check.info.run_id)} == {path.name for path in folder.iterdir()}
    assert not any(run.data.metrics.keys() & {"test/loss"} for run in runs)
    folds = [load_run(run_id, uri="sqlite:///mlflow.db") for run_id in check.data.tags["label_check"].split(",")]
    whole = check_labels(folds, [fold.config.data for fold in folds], 0.9, test=True)
    assert whole.checked.all()
    tags = [client.get_run(fold.run_id).data.tags for fold in folds]
    assert [each["test_set_evaluations"] for each in tags] == ["1", "1"]  # of the same images by the same networks
    left = splits_of("data=digits", f"data.exclude={folder}/labels.csv")
    listed = [row["split"] for row in rows(folder / "labels.csv")].count("train")
    assert listed > 50 and len(left.train) + len(left.validation) == 1500 - listed
