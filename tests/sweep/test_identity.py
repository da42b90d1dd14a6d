"""What makes two multiruns the same multirun: the resolved configuration, the images and the code, not what was typed."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.config import UserError
from experiments.runs.identity import identify
from experiments.sweep.search import identifying
from experiments.sweep.space import parse_space

SETTINGS = ("data=image_folder", "data.image_size=8", "data.validation_size=4", "data.test_size=4", "threads=1")
SETTINGS += ("tracking.experiment=image_folder",)  # by default it has the name of the folder
SMALL = ("model.blocks=1", "model.kernel_size=3", "model.dense_width=4", "training.epochs=1")


def folder_of_pictures(path, seed):
    rng = np.random.default_rng(seed)
    for name in ("it's a", "b=1, c"):  # MLflow refuses such names of metrics
        (path / name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path / name / f"{number}.png")
    (path / "it's a/notes.txt").touch()


def runs_in(folder, experiment="image_folder"):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def parents_in(folder, experiment="image_folder"):
    """The parent runs by their names."""
    return {run.info.run_id: run for run in runs_in(folder, experiment) if "sweep" in run.data.tags}


def test_other_images_are_another_multirun(here, multirun):
    """A search is the same as a grid here: both are what `Multirun` makes of their overrides."""
    for seed, name in enumerate("AB"):
        folder_of_pictures(here / name, seed)
        code, output = multirun(here, *SETTINGS, f"data.root={name}", *SMALL, "model.filters=2,3")
        assert code == 0, output
        assert "run before" not in output
        assert output.splitlines().count(f"{name}: 1 file ignored: 1 .txt") == 1 and "HYDRA" not in output
    roots = {run_id: run.data.tags["overrides"] for run_id, run in parents_in(here).items()}
    runs = runs_in(here)
    assert len(roots) == 2 and len(runs) == 6
    for run in runs:
        if "sweep" not in run.data.tags:
            assert f"data.root={run.data.params['data.root']}" in roots[run.data.tags["mlflow.parentRunId"]]


GRID = {
    "data": ["data=digits"],
    "model.filters": ["model.filters=16", "model.filters=8"],
    "seed": ["seed=1", "seed=2"],
    "optimizer": ["optimizer=adam", "optimizer=sgd"],
}


def grid(**changes):
    return identify(GRID | {key.replace("__", "."): texts for key, texts in changes.items()})


def test_what_does_not_change_a_grid():
    same = grid()
    assert len(same) == 12 and identify({key: GRID[key][::-1] for key in reversed(GRID)}) == same
    assert grid(sweep__name=["sweep.name=mine"], threads=["threads=1"], outputs=["outputs=elsewhere"]) == same
    assert grid(resume=["resume=false"], sweep__objectives=["sweep.objectives=[val/loss]"]) == same
    assert grid(optimizer__lr=["optimizer.lr=0.001"], optimizer=["optimizer=adam"]) == grid(
        optimizer=["optimizer=adam"]
    )


@pytest.mark.parametrize(
    "other",
    [
        ["seed=1", "seed=3"],
        ["seed=1"],
        ["model.filters=8", "model.filters=16", "model.filters=32"],
        ["optimizer=sgd"],
        ["training.epochs=3"],
        ["data.split=first"],
        ["data.validation_size=100", "data.validation_size=200"],
        ["model.kernel_size=3"],
        ["tracking.experiment=other"],
    ],
)
def test_what_makes_another_grid(other):
    assert grid(**{other[0].partition("=")[0].replace(".", "__"): other}) != grid()


RANGES = ["data=digits", "model.filters=range(4,9)", "optimizer=choice(adam,sgd)", "optimizer.lr=interval(0.1,0.2)"]
SETTINGS_OF_SEARCH = {"_target_": "x", "sampler": {"_target_": "tpe", "seed": 1}, "n_trials": 5, "params": {"a": "b"}}


def search(ranges=RANGES, objective="val/loss", **settings):
    return identify(*identifying(*parse_space(ranges), SETTINGS_OF_SEARCH | settings, [objective]))


def test_a_search_is_what_it_can_try():
    same = search()
    assert search(RANGES[::-1]) == search(n_trials=9, n_jobs=2, storage="sqlite:///x.db") == same
    assert search([*RANGES, "sweep.name=mine", "sweep.join=true", "hydra/launcher=joblib"]) == same
    others = [search(RANGES[:3]), search(objective="val/accuracy"), search(sampler={"_target_": "random", "seed": 1})]
    others += [search([*RANGES, text]) for text in ("seed=3", "training.epochs=2", "model.kernel_size=choice(3,5)")]
    others += [search([*RANGES[:3], "optimizer.lr=interval(0.1,0.3)"]), identify({"data": ["data=digits"]})]
    assert len({same, *others}) == 9


def test_other_pictures_in_the_same_folder_are_another_multirun(here):
    folder_of_pictures(here / "pictures", 0)
    choices = {text.partition("=")[0]: [text] for text in (*SETTINGS, *SMALL, "data.root=pictures")}
    before = identify(choices)
    folder_of_pictures(here / "pictures", 1)
    assert identify(choices) != before
    folder_of_pictures(here / "pictures", 0)
    assert identify(choices) == identify(choices | {"data.root": ["data.root=./pictures"]}) == before
    (here / "pictures/it's a/0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a/0.png"):
        identify(choices)


def test_the_winner_is_trained_by_todays_command(here, multirun):
    """The pictures of two folders are exchanged: the runs are the same, but other overrides train them."""
    for seed, name in enumerate("AB"):
        folder_of_pictures(here / name, seed)
    found = set()
    for _ in range(2):
        code, output = multirun(here, *SETTINGS, *SMALL, "data.root=A,B")
        assert code == 0, output
        (winner,) = re.findall(r"^1 +(root=\w)", output, re.M)
        assert output.rstrip().endswith(f" data.{winner}"), output
        assert "The points are of several data sets (data.root)" in output
        (parent,) = parents_in(here).values()
        assert parent.data.tags["winner_command"].endswith(f" data.{winner}")
        found.add(winner)
        for old, new in ("AC", "BA", "CB"):
            (here / old).rename(here / new)
    assert found == {"root=A", "root=B"}
    shutil.copytree(here / "A", here / "C")
    code, output = multirun(here, *SETTINGS, *SMALL, "data.root=A,C")
    assert code == 0 and "several data sets" not in output
    assert re.search("one run, because settings and images are equal: .*data.root=A.*; .*data.root=C", output), output


def test_missing_images_are_reported_before_anything_starts(here, multirun):
    """Every point used to start, and to fail."""
    code, output = multirun(here, "data=cifar10", "data.root=empty", "data.urls=[http://127.0.0.1:9/x]", "seed=1,2")
    assert code == 2 and "data" in output and "Traceback" not in output, output
    assert not (here / "outputs").exists()


def test_a_multirun_is_what_it_computes_not_what_was_typed(here, multirun):
    """Each step says how many parent runs there are after it, and how many of its two points were run before."""
    folder_of_pictures(here / "pictures", 0)
    preset = here / "mine/experiment/small.yaml"
    preset.parent.mkdir(parents=True)
    text = "# @package _global_\nmodel: {blocks: 1, kernel_size: 3, dense_width: 4}\ntraining: {epochs: 1}\n"
    preset.write_text(text)
    mine = ("--config-dir", "mine", "experiment=small")

    def step(*arguments):
        code, output = multirun(here, *arguments)
        assert code == 0, output
        return len(parents_in(here)), "2 of 2 points were run before" in output

    grid = (*SETTINGS, "data.root=pictures", "model.filters=2,3")
    assert step(*mine, *grid) == (1, False)
    assert step(*mine, *reversed(grid)) == (1, True)
    renamed = [text.replace("=pictures", "=./pictures") for text in grid]
    assert step(*mine, *renamed, "sweep.name=mine") == (1, True)
    assert step(*mine, *grid, "sweep.name=mine", "seed=5") == (2, False)
    preset.write_text(text.replace("4", "5"))
    assert step(*mine, *grid) == (3, False)
    preset.write_text(text)
    folder_of_pictures(here / "pictures", 1)
    assert step(*mine, *grid) == (4, False)
    folder_of_pictures(here / "pictures", 0)
    assert step(*mine, *grid) == (4, True)
