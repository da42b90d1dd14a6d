"""Every mistake is found, named and explained, before anything slow is imported or anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, train_py
from experiments.config import UserError
from experiments.config.composition import with_defaults
from experiments.config.keys import flatten
from experiments.config.loading import check_overrides, compose_config
from experiments.config.optimizers import OPTIMIZERS
from experiments.config.renamed import RENAMED
from experiments.config.validation import parse
from samples import needed_by

CONF = ROOT / "conf"
GROUPS = sorted(
    (file.parent.name, file.stem)
    for file in CONF.glob("*/[!_]*.yaml")
    if file.parent.name not in ("hydra", "experiment")
)


def mistakes(*overrides):
    with pytest.raises(UserError) as caught:
        check_overrides(overrides)
    return str(caught.value)


def test_defaults_are_the_notebooks():
    config = compose_config([])
    assert (config.seed, config.device, config.precision, config.resume) == (888, "auto", "fp32", True)
    assert config.model.parameters == {"filters": 32, "kernel_size": 4, "dense_width": 256, "blocks": 2, "dropout": 0.0}
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.epsilon) == ("adam", 0.001, 1e-7)
    assert (config.training.epochs, config.training.batch_size) == (25, 32)
    assert (config.early_stopping.monitor, config.early_stopping.patience) == ("val/loss", 2)
    assert (config.data.name, config.data.validation_size, config.data.split) == ("cifar10", 10_000, "random")


def test_the_notebook_preset_differs_in_split_and_weights():
    config = compose_config(["experiment=notebook"])
    assert (config.data.split, config.early_stopping.restore_best) == ("first", False)


@pytest.mark.parametrize(("group", "choice"), GROUPS, ids=lambda name: name)
def test_every_choice_of_every_group_composes(group, choice, tmp_path):
    config = compose_config([f"{group}={choice}", *needed_by(choice, tmp_path)])
    assert parse(config.to_dict()) == config


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
def test_what_cannot_be_printed_is_an_error(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "--cfg", "job", "--package", "model"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode and "No space left" in done.stderr


@pytest.mark.parametrize("preset", [file.stem for file in (CONF / "experiment").glob("*.yaml")])
def test_every_preset_composes(preset, tmp_path):
    needed = [f"data.root={tmp_path}"] if preset in ("photographs", "features", "imagenet") else []
    compose_config([f"experiment={preset}", *needed])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.filtres=64", "model.filtres: there is no such key; did you mean model.filters?"),
        ("filters=64", "filters: there is no such key; did you mean model.filters?"),
        ("+model.foo=1", "model.foo: there is no such key"),
        ("~seed", "seed is missing"),
        (
            "optimizer.weightdecay=0.1",
            "optimizer.weightdecay: there is no such key; did you mean optimizer.weight_decay?",
        ),
        ("modle.filters=4", "modle.filters: there is no such key; did you mean model.filters?"),
        ("schedule.warm=1", "schedule.warm: there is no such key; did you mean schedule.warmup?"),
        ("augment.zoom=1", "augment.zoom: there is no such key; augment has flip, translate,"),
        ("data=digitz", "did you mean data=digits?"),
        ("modle=cnn", "did you mean model?"),
        ("learning_rate=0.1", "learning_rate: there is no such key; did you mean optimizer.lr?"),
        ("optimizer.learning_rate=0.1", "did you mean optimizer.lr?"),
        ("dataset=digits", "dataset: there is no such key; did you mean data?"),
        ("early_stopping=false", "must be a group of keys: early_stopping.monitor, early_stopping.patience, early_"),
        ("data.extra=[tiger.jpg]", "data.extra[0]=tiger.jpg: must be a group of keys: {path: ..., label: ...}"),
        ("model.filters=many", "model.filters=many: must be a whole number from 1 to 4,096"),
        ("model.filters=1.5", "model.filters=1.5: must be a whole number"),
        ("model.filters=true", "model.filters=true: must be a whole number"),
        ("model.filters=0", "model.filters=0: must be a whole number from 1 to 4,096"),
        ("optimizer.lr=-1", "optimizer.lr=-1: must be a number above 0 and at most 100"),
        ("optimizer.lr=null", "optimizer.lr=null: must be a number"),
        ("training.epochs=[3]", "training.epochs=[3]: must be a whole number"),
        ("resume=perhaps", "resume=perhaps: must be true or false"),
        ("device=gpu", "device=gpu: must be one of auto, cpu, cuda, mps"),
        ("model.kernel_size=11", "the largest that fits is 10"),
        ("schedule.warmup=25", "schedule.warmup=25.0: must be below training.epochs=25"),
        ("training.image_sizes=[20]", "training.image_sizes=[20]: must be [] for a network with a dense layer"),
        ("training.image_sizes=20", "training.image_sizes=20: must be a list"),
        ("training.sides=[20]", "training.sides was renamed: set training.image_sizes=..."),
        ("+optimizer.unit_filters=true", "optimizer.unit_filters was renamed: set optimizer.normalize_filters=..."),
        ("optimizer.rest_lr=0.1", "optimizer.rest_lr was renamed: set optimizer.adam_lr=..."),
        (
            "optimizer.weight_decay_on=weights",
            "optimizer.weight_decay_on was renamed: set optimizer.weight_decay_exclude=none (was all) or bias_and_norm (was weights)",
        ),
        ("schedule=non", "schedule=non: must be one of constant, cosine, linear, onecycle, step, triangular"),
        ("optimizer=sdg", "optimizer=sdg: must be one of adam, adamw, muon, sgd; did you mean optimizer=sgd?"),
        ("precision=tf16", "precision=tf16: must be one of fp32, tf32, bf16"),
        ("model.blocks=6", "model.blocks=6: too many for images of 32x32; must be at most 5"),
        ("data.validation_size=50000", "must be at most 49999; cifar10 has 50,000 training images"),
        ("data.image_size=64", "must be 32 for cifar10"),
        ("data.mean=[0.5]", "data.mean=[0.5]: must be a list of 3"),
        ("data.std=[1,0,1]", "data.std[1]=0: must be a number above 0"),
        ("data.extra=[{path: a.jpg}]", "data.extra[0].label is missing"),
        ("early_stopping.monitor=val/acc", "must be one of train/loss, train/accuracy, val/loss, val/accuracy"),
        ("tracking.uri=mlruns", "must be sqlite:///FILE.db"),
        ("model._target_=CNN", "must be the dotted path of a network's class"),
        ("model.filters=[1", "cannot be read"),
        ("model.filters=16,0", "model.filters=0: must be"),
        ("model.filters=interval(0,3)", "model.filters=0: must be"),
        ("training=3", "training=3: must be one of default"),
        ("=3", "=3: cannot be read"),
        ("tracking.uri=foo://x", "must be sqlite:///FILE.db"),
        ("tracking.experiment=", "tracking.experiment=: must be text of 1 to 250 characters"),
        ("data.extra=[{path: nowhere.png, label: a}]", "data.extra: there is no file or folder nowhere.png"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(override, message):
    assert message in mistakes(override)


@pytest.mark.parametrize("size", [1, 10])
def test_the_largest_kernel_that_is_named_does_fit(size):
    assert compose_config([f"model.kernel_size={size}"]).model.parameters["kernel_size"] == size


def test_several_values_need_a_multirun():
    check_overrides(["seed=1,2", "optimizer=glob(*)"])
    with pytest.raises(UserError, match="seed=1,2: several values need a multirun"):
        check_overrides(["seed=1,2"], multirun=False)


def test_the_folder_of_config_dir_is_searched(tmp_path):
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text("_target_: mine.Net\nwidth: 3\n")
    shown = train_py("--config-dir", "own", "model=mine", "model.width=4", "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0 and "width: 4" in shown.stdout
    wrong = train_py("--config-dir", "own", "model=mine", "model.width=wide", cwd=tmp_path)
    assert wrong.returncode == 2 and "model.width=wide: must have the type int, like 3 in its YAML file" in wrong.stderr


def test_image_folder_needs_its_folder():
    assert "data.root is missing" in mistakes("data=image_folder")
    assert "there is no such folder" in mistakes("data=image_folder", "data.root=nowhere")


def test_a_wrong_key_is_named_although_a_value_is_missing():
    found = mistakes("data=image_folder", "model.filtres=1")
    assert "did you mean model.filters?" in found and "data.root is missing" in found


def test_all_mistakes_come_at_once():
    wrong = ("model.filtres=1", "data=digitz", "model.kernel_size=40", "training.epochs=0", "device=gpu")
    assert len(mistakes(*wrong, "training.sides=[20]").split("\n")) == 6


def test_an_old_key_is_explained_once_in_a_multirun(tmp_path):
    done = train_py("-m", "training.sides=[20],[24]", "seed=1,2", "device=gpu", cwd=tmp_path)
    explained = "training.sides was renamed: set training.image_sizes=..."
    assert done.returncode == 2 and done.stdout == ""
    assert sorted(done.stderr.splitlines()) == ["device=gpu: must be one of auto, cpu, cuda, mps", explained]


@pytest.mark.parametrize(
    ("overrides", "old", "value"),
    [
        (["model=fastnet", "training.image_sizes=[20]"], "training.sides", [20]),
        (["optimizer=muon", "optimizer.normalize_filters=true"], "optimizer.unit_filters", True),
        (["optimizer=muon", "optimizer.adam_lr=0.01"], "optimizer.rest_lr", 0.01),
        (["optimizer.weight_decay_exclude=bias_and_norm"], "optimizer.weight_decay_on", "weights"),
        (["optimizer=muon", "optimizer.weight_decay_exclude=none"], "optimizer.weight_decay_on", "all"),
    ],
)
def test_a_configuration_that_was_saved_with_an_old_key_is_read(overrides, old, value):
    config = compose_config(overrides)
    saved = config.to_dict()
    group, name = old.split(".")
    del saved[group][RENAMED[old][0].split(".")[1]]
    saved[group][name] = value
    assert with_defaults(saved) == config
    assert saved[group][name] == value  # as it was


def test_a_renamed_key_exists():
    keys = {key for name in OPTIMIZERS for key, _ in flatten(compose_config([f"optimizer={name}"]).to_dict())}
    assert {new for new, _ in RENAMED.values()} <= keys and not set(RENAMED) & keys


def test_mistakes_show_before_torch_and_mlflow_are_imported():
    program = (
        "import sys; from experiments.config.loading import check_overrides; check_overrides(['data=digits']);"
        "sys.exit(bool({'torch', 'mlflow', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_command_line_reports_it_once_and_writes_nothing(tmp_path):
    done = train_py("data=digits", "model.filtres=64", "training.epochs=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 2 and "Traceback" not in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []
