"""README and docs/ are true: their commands are CI's or are understood, their names exist, their examples run."""

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml

from conftest import FINISHED, ROOT
from experiments.config import ModelSettings
from experiments.config.loading import check_overrides, compose_config
from experiments.data import load_splits
from experiments.models.build import build_classifier

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
README, TEXT = DOCUMENTS["README.md"], "\n".join(DOCUMENTS.values())
INSTALLS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("pip install")]
TRAINS = dict.fromkeys(command.strip() for command in re.findall(r"python train\.py ?([^#`\n]*)", TEXT))
SCRIPTS = dict.fromkeys(command.strip() for command in re.findall(r"python (scripts/[^#`\n|]*)", TEXT))
CUSTOM = ("model=tiny", "data=stripes")  # examples in the documents, tested below
PICTURES = 200_000  # bytes
KEYS = {
    f"{file.parent.name}.{key}"
    for group in ("data", "augment", "model", "optimizer", "schedule", "training", "tracking")
    for file in (ROOT / "conf" / group).glob("*.yaml")
    for key in yaml.safe_load(file.read_text())
} | {
    f"{group}.{key}"
    for group, section in yaml.safe_load((ROOT / "conf" / "config.yaml").read_text()).items()
    if isinstance(section, dict)
    for key in section
}


@pytest.fixture
def users_files(here, monkeypatch):
    """A working directory with the files that the commands name."""
    for folder in ("my/cats", "pictures/cat", "holiday", "FOLDER"):
        (here / folder).mkdir(parents=True)
    for file in ("tiger.jpg", "labels.csv", "squeezenet1_1.pth", "tf_efficientnet_lite0.pth"):
        (here / file).touch()
    monkeypatch.setenv("SEARCHES", "sqlite:///searches.db")
    return here


def overrides(command):
    return [word for word in shlex.split(command) if not word.startswith("-") and "=" in word]


def installed(command):
    """Overrides without those of a launcher that is not installed here."""
    words = overrides(command)
    launcher = re.search(r"hydra/launcher=(ray|submitit)", command)
    if launcher and not importlib.util.find_spec(f"hydra_plugins.hydra_{launcher[1]}_launcher"):
        return [word for word in words if "launcher" not in word]
    return words


def test_two_commands_do_everything():
    assert INSTALLS == ["pip install -e . && python train.py data=digits", "pip install -e '.[test]' && pytest"]


def test_ci_takes_its_commands_from_the_readme():
    assert "grep -E '^pip install' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", [c for c in TRAINS if "filtres" not in c and not c.startswith(CUSTOM)])
def test_every_command_is_understood(command, users_files):
    check_overrides(installed(command), multirun="-m" in shlex.split(command))


@functools.cache
def shown_help(script):
    return subprocess.run([sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_script_has_the_options_that_it_is_shown_with(command, users_files):
    script, *words = shlex.split(command)
    assert all(word in shown_help(script) for word in ["usage:", *words] if word.startswith(("--", "usage:")))
    if "key=value" in shown_help(script) and "--overrides" not in shown_help(script):  # it takes those of train.py
        fold = ["data.fold=0"] if "data.folds=" in command else []  # check_labels.py trains every fold
        check_overrides([*overrides(command), *fold], multirun=False)


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"'?\.\[(\w+)\]", TEXT))))
def test_every_extra_can_be_installed(extra):
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_mlflow_has_the_commands_and_options():
    from mlflow.cli import cli

    commands = re.findall(r"^mlflow ([a-z].*?) *(?:#.*)?$", TEXT, re.M)
    assert len(commands) >= 3
    for command in commands:
        group, words = cli, shlex.split(command)
        while words and hasattr(group, "commands"):
            group = group.get_command(None, words.pop(0))
        options = {option for parameter in group.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options


def test_every_key_exists():
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    groups = "|".join({key.partition(".")[0] for key in KEYS})
    named = set(re.findall(rf"`((?:{groups})\.[a-z_0-9]+)[`=]", prose))
    assert len(named) > 15 and named <= KEYS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[document]):
        if not target.startswith("http"):
            file, _, heading = target.partition("#")
            path = (ROOT / document).parent / file if file else ROOT / document
            assert path.exists(), target
            assert path.suffix != ".png" or path.stat().st_size < PICTURES
            headings = (
                [line.lstrip("# ").lower() for line in path.read_text().splitlines() if line.startswith("#")]
                if heading
                else []
            )
            assert not heading or heading in [re.sub(r"[^\w -]", "", text).replace(" ", "-") for text in headings]


def test_every_document_is_in_the_index():
    listed = set(re.findall(r"\]\((\w+\.md)\)", DOCUMENTS["docs/README.md"]))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_tree_has_every_package_and_command():
    tree = re.search(r"## What is where\n+```text\n(.*?)```", README, re.DOTALL)[1]
    source = ROOT / "src" / "experiments"
    packages = [file.parent.name for file in source.glob("*/__init__.py")]
    assert {name for name in packages if f"\n  {name}/ " in tree} == set(packages)
    scripts = {file.stem for file in (ROOT / "scripts").glob("*.py")}
    assert scripts == set(re.findall(r"\w+", re.search(r"\nscripts/(.*)", tree)[1]))


def test_the_mistakes_are_reported_as_printed():
    block = re.search(r"\$ python train\.py (.*filtres.*)\n((?:.+\n)+?)```", README)
    with pytest.raises(ValueError) as caught:
        check_overrides(overrides(block[1]))
    assert str(caught.value) == block[2].strip()


def custom(document, here):
    """Write the Python file and the YAML file of a document's example; returns the YAML."""
    example = DOCUMENTS[document].partition("## A custom ")[2]
    source, configuration = re.search(r"```python\n(.*?)```.*?```yaml\n(.*?)```", example, re.DOTALL).groups()
    (here / re.search(r"`(\w+\.py)`", example)[1]).write_text(source)
    file = here / re.search(r"`(conf/\w+/\w+\.yaml)`", example)[1]
    file.parent.mkdir(parents=True)
    file.write_text(configuration)
    (command,) = [command for command in TRAINS if command.startswith(CUSTOM) and command in example]
    return [*overrides(command), f"hydra.searchpath=[file://{here / 'conf'}]"], yaml.safe_load(configuration)


def test_the_custom_network_is_built(here):
    words, parameters = custom("docs/networks.md", here)
    check_overrides([*words, "model.weights=null"], multirun=False)
    assert parameters.pop("defaults") == ["_base"]
    model = build_classifier(
        ModelSettings(parameters.pop("_target_"), parameters), 5, (3, 32, 32), (0, 0, 0), (1, 1, 1)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 16 * 27 + 16 + 256 * 5 + 5


def test_the_custom_data_source_is_read(here):
    words, _ = custom("docs/data.md", here)
    splits = load_splits(compose_config(words).data)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1280, 320, 400)
    assert splits.train.classes == ("plain", "striped")


def test_the_cells_about_a_finished_run_work(finished, monkeypatch):
    from PIL import Image

    folder, _ = finished
    monkeypatch.chdir(folder)
    cells = re.findall(r"```python\n(.*?)```", DOCUMENTS["docs/runs.md"], re.DOTALL)
    assert len(cells) == 1 and 'run("data=digits", ' in cells[0]
    Image.new("L", (8, 8)).save(folder / "seven.png")
    known = ", ".join(f'"{override}"' for override in FINISHED if not override.startswith("training.epochs"))
    exec(cells[0].replace('"data=digits"', known), {})  # the finished run, found again
    assert len(list(folder.glob("mlruns/digits/models/*"))) == 1
    (folder / "seven.png").unlink()
