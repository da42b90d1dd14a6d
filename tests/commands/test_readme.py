"""The README speaks the truth: its commands are CI's, they are understood, and its network trains."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT
from experiments.config import ModelSettings
from experiments.config.loading import check_overrides
from experiments.models.build import build_classifier

README = (ROOT / "README.md").read_text()
INSTALLS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("pip install")]
TRAINING = (ROOT / "docs" / "training.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
TRAINS = re.findall(r"python train\.py ?([^#`\n]*)", README + TRAINING)


def test_two_commands_do_everything():
    assert INSTALLS == ["pip install -e . && python train.py data=digits", "pip install -e '.[test]' && pytest"]


def test_ci_takes_its_commands_from_the_readme():
    assert "grep -E '^pip install' README.md" in (ROOT / ".ci" / "run").read_text()


def overrides(command):
    return [word for word in shlex.split(command) if not word.startswith("-")]


@pytest.mark.parametrize("command", [c for c in TRAINS if "filtres" not in c and "tiny" not in c])
def test_every_command_is_understood(command):
    check_overrides([word for word in overrides(command) if "extra" not in word])


@pytest.mark.parametrize("command", re.findall(r"^python (scripts/.*)", README + TRAINING + PERFORMANCE, re.M))
def test_every_script_has_the_options_that_it_is_shown_with(command):
    script, *words = shlex.split(command.split("|")[0])
    shown = subprocess.run([sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True).stdout
    assert all(word in shown for word in words if word.startswith("--"))


def test_the_mistakes_are_reported_as_printed():
    block = re.search(r"\$ python train\.py (.*filtres.*)\n((?:.+\n)+?)```", README)
    with pytest.raises(ValueError) as caught:
        check_overrides(overrides(block[1]))
    assert str(caught.value) == block[2].strip()


def test_the_network_of_ones_own_is_built(here):
    source, configuration = re.search(r"```python\n(from torch.*?)```.*?```yaml\n(.*?)```", README, re.DOTALL).groups()
    (here / "my_networks.py").write_text(source)
    parameters = yaml.safe_load(configuration)
    model = build_classifier(
        ModelSettings(parameters.pop("_target_"), parameters), 5, (3, 32, 32), (0, 0, 0), (1, 1, 1)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 16 * 27 + 16 + 256 * 5 + 5
