"""The corruptions, and the evaluation of a finished run on corrupted images."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from experiments.analysis import robustness
from experiments.analysis.corruptions import corrupt
from experiments.analysis.evaluate_run import find_subject
from experiments.analysis.robustness import evaluate_corruptions
from experiments.analysis.strengths import CORRUPTIONS, STRENGTHS, chosen
from experiments.config.loading import compose_config
from experiments.data import load_splits
from samples import photograph


@pytest.fixture(scope="module")
def pictures():
    """Side -> pictures: digits, and generated photographs of three sizes."""
    digits = load_splits(compose_config(["data=digits", "data.image_size=28"]).data).test.pixels[:12]
    made = {
        side: np.stack([np.asarray(photograph(number, side, side)).transpose(2, 0, 1) for number in range(count)])
        for side, count in ((32, 12), (96, 4), (224, 2))
    }
    return {28: digits, **made}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_every_picture_more_with_its_strength(name, pictures):
    for side, clean in pictures.items():
        distances = []
        for strength in STRENGTHS:
            corrupted = corrupt(clean, name, strength)
            assert corrupted.dtype == np.uint8 and corrupted.shape == clean.shape
            assert (corrupted != clean).any(axis=(1, 2, 3)).all(), (side, strength)
            distances.append(np.abs(corrupted.astype(float) - clean).mean())
        assert distances == sorted(distances) and distances[-1] > 1.2 * distances[0], (side, distances)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_picture_is_corrupted_in_the_same_way_alone_and_among_others(name, pictures):
    for side, strength in ((32, 2), (96, 5)):
        clean = pictures[side]
        together = corrupt(clean, name, strength)
        np.testing.assert_array_equal(corrupt(clean[::-1], name, strength), together[::-1])
        np.testing.assert_array_equal(corrupt(clean[2:3], name, strength), together[2:3])


def test_the_levels_are_those_of_both_sizes_and_between_them():
    row = CORRUPTIONS["gaussian_noise"]
    assert row.levels(5, 28) == row.levels(5, 32) == (0.10,)
    assert row.levels(5, 224) == row.levels(5, 384) == (0.38,)
    assert row.levels(5, 32 * 7**0.5) == (pytest.approx((0.10 * 0.38) ** 0.5),)


def test_corruptions_are_chosen_by_name_and_group():
    assert chosen(None) == tuple(CORRUPTIONS) and len(CORRUPTIONS) == 15
    assert chosen("fog, noise") == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")


@pytest.fixture
def calls(monkeypatch):
    """The names of the corruptions of more than one image, in the order in which they are computed; "stop" among them interrupts."""
    names = []

    def noted(pixels, name, strength):
        if len(pixels) > 1:
            names.append(name)
            if "stop" in names and name == "contrast":
                raise KeyboardInterrupt
        return corrupt(pixels, name, strength)

    monkeypatch.setattr(robustness, "corrupt", noted)
    return names


def test_all_of_them_count_as_one_evaluation_and_an_interrupted_one_is_continued(trained, store, calls, here):
    client = MlflowClient(store)

    def count():
        return int(client.get_run(trained.run_id).data.tags["test_set_evaluations"])

    subject, before, names = find_subject(trained, None, [], None), count(), ("fog", "contrast")
    calls.append("stop")
    with pytest.raises(KeyboardInterrupt):
        evaluate_corruptions(subject, names)
    assert count() == before + 1 and calls == ["stop", *["fog"] * len(STRENGTHS), "contrast"]
    (left,) = client.search_runs(["1"], "tags.evaluation != ''")
    assert left.info.status == "KILLED"
    calls.clear()
    found = evaluate_corruptions(subject, names)
    assert found.run_id == left.info.run_id and set(calls) == {"contrast"} and count() == before + 1
    calls.clear()
    again = evaluate_corruptions(subject, names)
    assert again.metrics == found.metrics and not calls and count() == before + 1
    assert client.get_run(found.run_id).info.status == "FINISHED" and not any(here.glob("outputs/evaluations/*"))
    assert len(client.get_metric_history(found.run_id, "test/corrupted/fog")) == len(STRENGTHS)
    assert_its_numbers_agree(client, subject, found)


def assert_its_numbers_agree(client, subject, found):
    """The metrics, the table and the page of the evaluation, with an evaluation of the corrupted images as any others."""
    run, images = subject.run, subject.images
    pixels = corrupt(images.pixels, "contrast", 5)
    expected = (run.logits(pixels).argmax(dim=1).numpy() == images.labels).mean()
    with Path(client.download_artifacts(found.run_id, "corruptions.csv")).open() as file:
        rows = list(csv.DictReader(file))
    accuracy = {(row["corruption"], int(row["strength"])): float(row["accuracy"]) for row in rows}
    assert accuracy["contrast", 5] == expected < accuracy["none", 0] == run.metrics["test/accuracy"]
    mean = np.mean([value for (_, strength), value in accuracy.items() if strength])
    assert found.metrics["test/corrupted_accuracy"] == pytest.approx(mean) and len(rows) == 11
    assert found.metrics["test/corrupted_ratio"] == pytest.approx(mean / accuracy["none", 0])
    page = Path(client.download_artifacts(found.run_id, "report.html")).read_text()
    assert f">{100 * expected:.1f} %</td>" in page and "<th>contrast</th>" in page


@pytest.mark.slow
def test_the_command(command, finished, tmp_path):
    shutil.copy(finished[0] / "mlflow.db", tmp_path)
    limited = ("--corruptions", "--only", "noise", "--limit", "20", "--split", "validation")
    done = command("scripts/evaluate.py", *limited, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (rows,) = re.findall(r"accuracy in %.*?\n\n", done.stdout, re.DOTALL)
    assert [line.split()[0] for line in rows.splitlines()[2:-1]] == ["gaussian_noise", "shot_noise", "impulse_noise"]
    assert "validation/corrupted_accuracy" in done.stdout
    assert "Only 20 of the 300 images are evaluated, drawn at random." in done.stdout
