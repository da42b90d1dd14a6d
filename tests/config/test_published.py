"""The networks of torchvision and timm: what their images are, without importing either; and that the tables are right."""

import runpy
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from conftest import ROOT
from experiments.config import UserError
from experiments.config.composition import with_defaults
from experiments.config.loading import compose_config
from experiments.config.published import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LIBRARIES,
    TIMM,
    TORCHVISION,
    networks,
    version_of_table,
)

INCEPTION = (0.5, 0.5, 0.5)


def data_of(*overrides):
    return compose_config(list(overrides)).data


@pytest.mark.parametrize(
    ("overrides", "size", "mean", "std"),
    [
        ([], 32, (0, 0, 0), (1, 1, 1)),
        (["model=fastnet"], 32, (0, 0, 0), (1, 1, 1)),
        (["model=resnet18"], 224, IMAGENET_MEAN, IMAGENET_STD),
        (["model=efficientnet_v2_s"], 384, IMAGENET_MEAN, IMAGENET_STD),
        (["model=inception_v3"], 299, IMAGENET_MEAN, IMAGENET_STD),
        (["model=torchvision", "model.name=vit_h_14"], 518, IMAGENET_MEAN, IMAGENET_STD),
        (["model=timm", "model.name=tf_efficientnet_lite0"], 224, INCEPTION, INCEPTION),
        (["model=timm", "model.name=resnet50.a1_in1k"], 224, IMAGENET_MEAN, IMAGENET_STD),
        (["model=resnet18", "data.image_size=64", "data.mean=[0,0,0]"], 64, (0, 0, 0), IMAGENET_STD),
    ],
)
def test_images_are_what_the_network_wants(overrides, size, mean, std):
    data = data_of("data=digits", *overrides)
    assert (data.image_size, data.mean, data.std) == (size, mean, std)


def test_a_source_with_one_size_keeps_it():
    data = data_of("data=cifar10", "model=resnet18")
    assert (data.image_size, data.mean) == (32, IMAGENET_MEAN)


def test_a_saved_configuration_keeps_its_numbers():
    for overrides in (["model=resnet18"], ["model=cnn"]):
        config = compose_config(["data=digits", *overrides])
        saved = config.to_dict()
        del saved["model"]["weights"]  # of a run of an earlier version
        assert with_defaults(saved) == config


def test_nothing_slow_is_imported_for_it():
    program = (
        "import sys\nfrom experiments.config.loading import compose_config\n"
        "compose_config(['data=digits', 'model=resnet18', 'model.weights=imagenet'])\n"
        "sys.exit(bool({'torch', 'torchvision', 'timm', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_weights_that_nobody_publishes_are_named():
    nameless = next(name for name, network in networks(TIMM).items() if not network.address)
    with pytest.raises(UserError, match=rf"model\.weights=imagenet: timm publishes none for {nameless}"):
        compose_config(["data=digits", "model=timm", f"model.name={nameless}", "model.weights=imagenet"])


@pytest.fixture(scope="module")
def listing():
    return runpy.run_path(str(ROOT / "scripts/list_networks.py"))


def compare(target, columns, rows):
    """The table is that of the installed version, or its networks are among those of the installed version."""
    library = LIBRARIES[target]
    _, header, *lines = (ROOT / f"src/experiments/config/{library}.csv").read_text().splitlines()
    assert header == ",".join(columns)
    rows = [",".join(map(str, row)) for row in rows]
    if version_of_table(target) == f"{library} {version(library)}":
        assert rows == lines
    else:  # python scripts/list_networks.py makes new tables
        there = {row.partition(",")[0].partition(".")[0] for row in rows}
        assert {line.partition(",")[0].partition(".")[0] for line in lines} <= there


@pytest.mark.slow
def test_the_table_of_torchvision_is_that_of_the_installed_version(listing):
    """The smallest sizes are compared below, for some networks: to find them all takes most of a minute."""

    def find_smallest(name, size, published):
        known = networks(TORCHVISION).get(name)
        return known.smallest if known else published

    compare(TORCHVISION, listing["COLUMNS"], listing["torchvision_rows"](find_smallest))


@pytest.mark.slow
def test_the_table_of_timm_is_that_of_the_installed_version(listing):
    pytest.importorskip("timm")
    compare(TIMM, listing["COLUMNS"], listing["timm_rows"]())


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "densenet121"])
def test_the_smallest_size_is_the_smallest(name):
    from experiments.models.build import build

    smallest = networks(TORCHVISION)[name].smallest
    for size, fits in ((smallest, True), (smallest - 1, False)):
        overrides = ["data=digits", "model=torchvision", f"model.name={name}", f"data.image_size={size}"]
        if not fits:
            with pytest.raises(UserError, match=f"must be at least {smallest} for {name}"):
                compose_config(overrides)
            continue
        model = build(compose_config(overrides), 3)
        assert np.isfinite(model(model.normalize.scale.new_zeros((2, 3, size, size)).byte()).detach().numpy()).all()
