"""A run on photographs: every way to predict sees what the run saw, at full quality."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments import notebook
from experiments.analysis import explanation
from experiments.analysis.prediction import predict
from samples import photographs

pytestmark = pytest.mark.slow
SMALL = ("model.filters=4", "model.dense_width=8", "training.epochs=1", "threads=1", "augment.flip=random")


@pytest.fixture(scope="module")
def overrides(ready_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    read = photographs(folder / "pictures", {"cat": 15, "dog": 20})
    places = (
        f"outputs={folder}/outputs",
        f"tracking.uri={ready_store(folder)}",
        f"tracking.artifacts={folder}/mlruns",
    )
    return (*read, *places, *SMALL)


@pytest.fixture(scope="module")
def result(overrides):
    return notebook.run(*overrides, "augment.crop_scale=[0.5,1]")


def files_of(result):
    return [f"{result.config.data.root}/{name}" for name in result.splits.test.names]


def test_a_photograph_gets_the_prediction_of_the_test_set_to_the_last_bit(result):
    expected = result._run.probabilities(result.splits.test)
    accuracy = (expected.argmax(axis=1) == result.splits.test.labels).mean()
    assert accuracy == pytest.approx(result.metrics["test/accuracy"])
    files = files_of(result)
    opened = [Image.open(file) for file in files]
    with open(files[0], "rb") as first:  # noqa: PTH123
        streams = [first, *(io.BytesIO(open(file, "rb").read()) for file in files[1:])]  # noqa: PTH123, SIM115
        for sources in (files, opened, streams):
            for row, answer in zip(expected, predict(result._run, sources), strict=True):
                assert dict(answer.top) == dict(zip(result.classes, map(float, row)))


def test_pictures_of_the_data_are_shown_whole(result):
    images = result.splits.test
    shapes = {explained.original.shape for explained in explanation.mistakes(result._run, 3)}
    assert shapes <= {(75, 100, 3), (100, 75, 3)}
    figure = result.show(0)
    picture, seen, _ = figure.axes
    assert picture.images[0].get_array().shape[:2] in {(75, 100), (100, 75)}
    assert np.array_equal(seen.images[0].get_array(), images.image(0).transpose(1, 2, 0))
    assert result.splits.digest == notebook.images(*overrides_of(result)).digest


def overrides_of(result):
    data = result.config.data
    return (
        "data=image_folder",
        f"data.root={data.root}",
        "data.fit=crop",
        "data.image_size=48",
        f"data.cache={data.cache}",
    )


def test_without_crops_both_ways_of_decoding_give_the_same_numbers(overrides):
    once, fly = (notebook.run(*overrides, *more) for more in ((), ("data.map_limit=0",)))
    timed = ("seconds", "per_second")
    assert once.run_id != fly.run_id
    assert [
        {name: value for name, value in run.metrics.items() if not name.endswith(timed)} for run in (once, fly)
    ].count({name: value for name, value in once.metrics.items() if not name.endswith(timed)}) == 2
