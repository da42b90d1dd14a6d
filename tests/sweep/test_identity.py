"""What makes two multiruns the same multirun."""

import numpy as np
from PIL import Image


def folder_of_pictures(path, seed):
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        (path / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path / name / f"{number}.png")


def test_other_images_are_another_multirun(here, multirun):
    """A search is the same as a grid here: both are what `Multirun` makes of their overrides."""
    from mlflow import MlflowClient

    settings = ("data=image_folder", "data.image_size=8", "data.validation_size=4", "data.test_size=4", "threads=1")
    settings += ("tracking.experiment=both",)  # by default it has the name of the folder
    small = ("model.blocks=1", "model.kernel_size=3", "model.dense_width=4", "training.epochs=1")
    for seed, name in enumerate("AB"):
        folder_of_pictures(here / name, seed)
        code, output = multirun(here, *settings, f"data.root={name}", *small, "model.filters=2,3")
        assert code == 0, output
        assert "run before" not in output
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("both").experiment_id])
    parents = [run for run in runs if "sweep" in run.data.tags]
    assert len(parents) == 2 and len(runs) == 6
    roots = {run.info.run_id: run.data.tags["overrides"] for run in parents}
    for run in runs:
        if "sweep" not in run.data.tags:
            assert f"data.root={run.data.params['data.root']}" in roots[run.data.tags["mlflow.parentRunId"]]
