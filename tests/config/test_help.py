"""The help is complete, because it is made from the comments in conf/."""

import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, train_py
from experiments.config.help import WIDTH, explained, help_lines
from experiments.config.keys import CHOICES, flatten
from experiments.config.loading import compose_config
from samples import needed_by

CONF = ROOT / "conf"
GROUPS = ("data", "augment", "model", "optimizer", "schedule", "training", "tracking")
CHOSEN = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("[!_]*.yaml"))]
DESCRIBED = [file.relative_to(CONF).with_suffix("").as_posix() for file in sorted(CONF.rglob("[!_]*.yaml"))]


def without_explanation(folder, name):
    return [key for key, (_, text) in explained([folder], name)[1].items() if not text]


@pytest.fixture(scope="module")
def shown():
    return list(help_lines([CONF]))


def test_every_key_of_a_run_is_explained(shown):
    keys = [key for key, _ in flatten(compose_config([]).to_dict()) if key.split(".")[0] not in GROUPS]
    assert set(explained([CONF], "config")[1]) == set(keys)
    assert not without_explanation(CONF, "config")
    assert all(any(line.startswith(f"  {key} ") for line in shown) for key in keys)


@pytest.mark.parametrize(("group", "choice"), CHOSEN, ids=lambda name: name)
def test_every_key_of_every_choice_is_explained(group, choice, shown, tmp_path):
    settings = compose_config([f"{group}={choice}", *needed_by(choice, tmp_path)]).to_dict()[group]
    keys = [key for key, _ in flatten(settings) if key not in CHOICES]
    assert set(explained([CONF], f"{group}/{choice}")[1]) == set(keys)
    assert not without_explanation(CONF, f"{group}/{choice}")
    assert all(any(line.startswith(f"  {group}.{key} ") for line in shown) for key in keys)


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_choice_is_described(name, shown):
    description, _ = explained([CONF], name)
    assert description[0].isupper() or description[0].isdigit()
    if name != "config":
        group, _, choice = name.rpartition("/")
        heading = next(number for number, line in enumerate(shown) if line.startswith(f"\n== {group}=..."))
        assert any(line.startswith(f"  {choice} ") for line in shown[heading + 1 :])


def test_a_key_without_a_comment_is_found(tmp_path):
    shutil.copytree(CONF, tmp_path / "conf")
    with (tmp_path / "conf/model/cnn.yaml").open("a") as file:
        file.write("stride: 2\n")
    assert without_explanation(tmp_path / "conf", "model/cnn") == ["stride"]


def test_comments_are_at_the_end_of_a_line_or_above_it(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/_base.yaml").write_text("# What others are based on.\nwidth: 3  # of a layer\ndepth: 1\n")
    (tmp_path / "model/mine.yaml").write_text(
        "# @package model\n# A network. It is\n# new.\ndefaults: [_base]\n\n_target_: mine.Net\nwidth: 4\n"
        "# layers\n# in all\ndepth: 2\ncolour: 'a # b'  # a name: # too\nlist:  # of names\n  - a\n  - b\n"
        "section:  # not a key\n  inner: {a: 1}  # a mapping\nempty: ''\n"
    )
    description, keys = explained([tmp_path], "model/mine")
    assert description == "A network. It is new."
    assert keys == {
        "width": ("4", "of a layer"),
        "depth": ("2", "layers in all"),
        "colour": ("a # b", "a name: # too"),
        "list": ("[a, b]", "of names"),
        "section.inner": ("{a: 1}", "a mapping"),
        "empty": ("''", ""),
    }


def test_what_choices_share_is_shown_once(shown):
    (momentum,) = [number for number, line in enumerate(shown) if line.startswith("  optimizer.momentum ")]
    assert shown[momentum - 1] == " muon or sgd:" and shown[momentum].endswith("(sgd: 0.9)")
    assert sum(line.startswith("  optimizer.weight_decay ") for line in shown) == 1


def test_the_command_prints_the_help_and_its_configuration(tmp_path):
    done = train_py("--help", "model=fastnet", "training.epochs=7", cwd=tmp_path)
    documentation, _, configuration = done.stdout.partition("\n== Configuration of this command line ==\n")
    assert done.returncode == 0 and done.stderr == "" and not list(tmp_path.iterdir())
    assert "epochs: 7" in configuration and "convolutions: 2" in configuration and "hydra" not in configuration
    assert documentation.count("python train.py") >= 3 and "_base" not in documentation
    assert max(len(line) for line in documentation.splitlines()) <= WIDTH
    assert "seed: 3" in train_py("--help", "-m", "seed=3,4", cwd=tmp_path).stdout
    assert "root: ???" in train_py("--help", "data=image_folder", cwd=tmp_path).stdout


def test_a_mistake_beside_help_is_named(tmp_path):
    done = train_py("--help", "data=digitz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "did you mean data=digits?" in done.stderr


def test_the_choices_in_the_folder_of_config_dir_are_shown(tmp_path):
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text("# A network.\n_target_: mine.Net\nwidth: 3  # units\n")
    done = train_py("--config-dir", "own", "model=mine", "--help", cwd=tmp_path)
    assert re.search(r"^  mine +A network\.$", done.stdout, re.MULTILINE) and "_target_: mine.Net" in done.stdout
    (tmp_path / "own/model/mine.yaml").write_text("width: [\n")
    broken = train_py("--config-dir", "own", "--help", cwd=tmp_path)
    assert broken.returncode == 2 and "mine.yaml" in broken.stderr and "Traceback" not in broken.stderr


def test_help_imports_nothing_slow(tmp_path):
    program = (
        "import contextlib, runpy, sys; sys.argv = ['train.py', '--help']\n"
        f"with contextlib.suppress(SystemExit): runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "sys.exit(bool({'torch', 'mlflow', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True).returncode == 0
