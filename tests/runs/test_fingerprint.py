"""The identity of a run."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from experiments.config.loading import compose_config
from experiments.runs import fingerprint as identity
from experiments.runs.fingerprint import fingerprint, folder_of, identify


def of(*overrides, digest="data"):
    return fingerprint(compose_config(["data=digits", *overrides]), "cpu", digest)


def test_the_fingerprint_is_what_determines_the_numbers(here):
    assert of() == of("resume=false") == of("tracking=none") == of("outputs=elsewhere") == of("tracking.run_name=a")
    changes = (
        "seed=1",
        "model.filters=8",
        "optimizer.lr=0.01",
        "training.epochs=1",
        "data.mean=[1,0,0]",
        "precision=bf16",
        "deterministic=true",
        "evaluation.tta=flip",
        "schedule=cosine",
    )
    assert len({of(), of(digest="other"), *(of(change) for change in changes)}) == len(changes) + 2

    (here / "own_network.py").write_text("class Net: pass\n")
    first = of("model._target_=own_network.Net")
    (here / "own_network.py").write_text(
        '"""Nor a docstring."""\n# a comment changes nothing\nclass Net:\n    """Nor this."""\n'
    )
    assert of("model._target_=own_network.Net") == first
    (here / "own_network.py").write_text("class Net: width = 3\n")
    assert of("model._target_=own_network.Net") != first


PROJECT = {
    "networks/__init__.py": "",
    "networks/net.py": "import torch, json\nimport plain\nfrom . import near\nfrom .deep.layer import Layer\n"
    "import dotted.part\nfrom both import inner\ndef late():\n    import late_one\nclass Net: pass\n",
    "networks/near.py": "from ..nowhere import nothing\nfrom .circle import a\n",
    "networks/circle.py": "from . import near, net\n",
    "networks/deep/__init__.py": "",
    "networks/deep/layer.py": "from networks.deep import activation as act\nclass Layer: pass\n",
    "networks/deep/activation.py": "",
    "plain.py": "from far import *\n",
    "far.py": "",
    "dotted/__init__.py": "",
    "dotted/part.py": "",
    "both/__init__.py": "",
    "both/inner.py": "",
    "late_one.py": "",
}
UNUSED = {"networks/other.py": "", "unused.py": "", "both/outer.py": ""}


@pytest.fixture
def project(here, monkeypatch):
    """A folder with a network in many files, and others that it does not import."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # the folder is added to it
    for name, text in (PROJECT | UNUSED).items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    return here


@pytest.mark.parametrize("name", [*PROJECT, *UNUSED])
def test_every_module_that_a_custom_network_imports_counts(name, project):
    before = of("model._target_=networks.net.Net")
    (project / name).write_text((project / name).read_text() + "\nchanged = 1\n")
    assert (of("model._target_=networks.net.Net") == before) is (name in UNUSED)


def test_exchanged_modules_count(project):
    (project / "plain.py").write_text("a = 1")
    (project / "late_one.py").write_text("a = 2")
    before = of("model._target_=networks.net.Net")
    (project / "plain.py").write_text("a = 2")
    (project / "late_one.py").write_text("a = 1")
    assert of("model._target_=networks.net.Net") != before


def test_installed_packages_and_pythons_own_modules_do_not_count(project):
    found = identity.own_sources("networks.net.Net")
    assert set(found) == set(PROJECT)
    assert not any(sysconfig.get_path("purelib") in name for name in found)


def test_the_sources_are_found_without_importing_them(project):
    program = (
        "import sys\nfrom experiments.config.targets import source_files\n"
        "print(len(source_files('networks.net.Net')), 'torch' in sys.modules, 'plain' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120)
    assert found.stdout.split() == [str(len(PROJECT)), "False", "False"], found.stderr


DECIDING = [
    *("models/cnn.py", "models/_pooling.c", "training/learner.py", "training/early_stopping.py", "data/batches.py"),
    *("data/images.py", "data/pixels.py", "data/augmentation/mixing.py", "config/views.py", "config/networks.py"),
    *("config/optimizers.py", "runs/checkpoint.py", "experiment.py"),
]


@pytest.mark.parametrize("name", [*DECIDING, "reports/figures.py", "config/help.py", "runs/store.py"])
def test_a_change_in_what_decides_changes_the_identity(name, tmp_path, monkeypatch):
    """A process reads its own package once, so the changed one is a second copy."""
    copies = [
        Path(shutil.copytree(identity.PACKAGE, tmp_path / copy, ignore=shutil.ignore_patterns("*.so")))
        for copy in ("before", "after")
    ]
    file = copies[1] / name
    file.write_text(file.read_text() + ("\n/* changed */" if name.endswith(".c") else "\nchanged = 1\n"))
    identities = set()
    for package in copies:
        monkeypatch.setattr(identity, "PACKAGE", package)
        identities.add(of())
    assert (len(identities) == 2) is (name in DECIDING)


def test_the_same_command_finds_the_run_of_another_device(here):
    config = compose_config(["data=digits"])
    own, gpu = (fingerprint(config, device, "data") for device in ("cpu", "cuda"))

    def found(device="auto"):
        return identify(compose_config(["data=digits", f"device={device}"]), "cpu", "data", None)

    assert found() == own
    folder_of(config, gpu).mkdir(parents=True)
    assert found() == gpu and found("cpu") == own  # then the user has chosen the device
    folder_of(config, own).mkdir()
    assert found() == own
