"""A picture gets the prediction that it got in the test set, in every way to predict."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from experiments import notebook
from experiments.analysis.pictures import find_pictures, save_figure
from experiments.analysis.prediction import predict, save
from experiments.config import UserError
from experiments.reports.drawing import Figure


def saved(folder, images, count):
    for row in range(count):
        Image.fromarray(images.pixels[row].transpose(1, 2, 0)).save(folder / f"{row:03}.png")
    return [str(folder / f"{row:03}.png") for row in range(count)]


def test_the_answer_is_the_test_sets_to_the_last_bit(trained, test_images, tmp_path):
    expected = trained.probabilities(test_images.pixels)
    assert (expected.argmax(axis=1) == test_images.labels).mean() == pytest.approx(trained.metrics["test/accuracy"])
    files = saved(tmp_path, test_images, 20)
    for count in (1, 20):
        for row, answer in enumerate(predict(trained, files[:count])):
            assert dict(answer.top) == dict(zip(trained.classes, map(float, expected[row])))


@pytest.mark.slow
def test_the_command_line(store, trained, test_images, command, tmp_path, tmp_path_factory):
    saved(tmp_path, test_images, 3)
    (tmp_path / "001.png").write_text("no picture")
    options = ("--uri", store, "--json", "--save", tmp_path / "out")
    done = command("scripts/predict.py", tmp_path, *options, cwd=tmp_path_factory.mktemp("here"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/001.png: not a picture" in done.stderr
    assert f"run {trained.name} ({trained.run_id}), trained on digits" in done.stderr
    answers = json.loads(done.stdout)
    assert [answer["file"] for answer in answers] == [f"{tmp_path}/000.png", f"{tmp_path}/002.png"]
    assert answers[0].keys() == {"file", "class", "probability", "top"} and len(answers[0]["top"]) == 3
    assert answers[0]["top"][0] == {"class": answers[0]["class"], "probability": answers[0]["probability"]}
    assert answers[0]["probability"] == float(trained.probabilities(test_images.pixels)[0].max())
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    done = command("scripts/predict.py", tmp_path / "001.png", "--uri", store, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""  # no head of a table without rows


def test_a_figure_with_characters_that_no_font_has_gives_no_warning(tmp_path, recwarn):
    figure = Figure(layout="constrained")
    figure.suptitle("\u5bff\ue000")  # a character of Japanese, and one that no font has
    assert save_figure(figure, tmp_path, "sushi", "x", "--save", 50).exists()
    assert not recwarn.list


def test_folders_and_files_are_found(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    files, empty = find_pictures([str(tmp_path), "x", str(tmp_path / "empty")])
    assert files == [f"{tmp_path}/a.png", f"{tmp_path}/b.JPG", "x"]
    assert [str(error) for error in empty] == [f"{tmp_path}/empty: there are no pictures in this folder"]


def test_annotated_pictures_do_not_overwrite_each_other(trained, test_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a b.png", "a_b.png", "sub/a_b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(test_images.pixels[0].transpose(1, 2, 0)).save(tmp_path / name)
    for answer in predict(trained, ["a b.png", "a_b.png", "sub/a_b.png", "sub/../a_b.png"]):
        save(answer, tmp_path / "out", 3)
    assert len(list((tmp_path / "out").iterdir())) == 4
    save(answer, tmp_path / "out", 3)  # replaces its own
    assert len(list((tmp_path / "out").iterdir())) == 4
    with pytest.raises(UserError, match="nothing can be written there"):
        save(answer, tmp_path / "a_b.png", 3)


def test_originals_do_not_fill_the_memory(trained, tmp_path):
    Image.new("RGB", (3000, 2000)).save(tmp_path / "photo.png")
    (answer,) = predict(trained, [str(tmp_path / "photo.png")])
    assert max(answer.picture.size) <= 512 and answer.pixels.shape == (3, 32, 32)


def test_a_result_in_a_notebook(store, trained, test_images):
    result = notebook.load("best", uri=store)
    assert list(result.history.index) == [1, 2, 3] and "val/loss" in result.history
    assert result.confusion.to_numpy().trace() / 297 == pytest.approx(result.metrics["test/accuracy"])
    assert result.report().loc["macro avg", "f1-score"] == pytest.approx(result.metrics["test/macro_f1"])
    assert result.network["parameters"].sum() == 225_610
    picture = test_images.pixels[0].transpose(1, 2, 0)
    answers = [result.predict(picture), result.predict(Image.fromarray(picture))]
    assert {answer.top[0] for answer in answers} == {(answers[0].top[0])}
    turned = Image.fromarray(picture)
    turned.getexif()[0x0112] = 6
    assert result.predict(turned).picture.getpixel((0, 0)) == Image.fromarray(picture).getpixel((0, 31))
    assert result.predict(Image.fromarray(picture).convert("CMYK")).top
    with pytest.raises(UserError, match="pixels must be uint8"):
        result.predict(picture.astype(float))
    assert result.confusion.loc["3", "3"] == result.confusion.to_numpy()[3, 3]
    for figure in (result.plot(), result.plot_confusion(), result.show(0)):
        assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no such file"):
        result.predict("nowhere.png")


def test_importing_the_package_imports_nothing_slow():
    program = "import sys, experiments; sys.exit(bool({'torch', 'mlflow', 'hydra', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
