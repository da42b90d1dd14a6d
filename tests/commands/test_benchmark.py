"""The benchmark as a user types it, on few images: once, with the two contenders that need no other packages."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmark"))  # as Python does for a script in it

from benchmark import Benchmark, Outcome
from settings import CONTENDERS, Contender, Setting, installed
from tables import ratios

pytestmark = pytest.mark.numbers

SCRIPTS = ROOT / "scripts" / "benchmark"
FEW = ("--images", "64", "--epochs", "1", "--rounds", "1", "--threads", "1")


def benchmark(*arguments, cwd, script="speed.py"):
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def measured(cifar_root, tmp_path_factory):
    """(folder, what was printed) of this project and the plain loop."""
    folder = tmp_path_factory.mktemp("benchmark")
    contenders = ("--contenders", "ours", "plain", "--json", "all.json")
    done = benchmark("--data", str(cifar_root), *FEW, *contenders, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_numbers_are_there_and_plausible(measured):
    folder, printed = measured
    (results,) = json.loads((folder / "all.json").read_text())["results"]
    assert {outcome["contender"] for outcome in results["outcomes"]} == {"ours", "plain"}
    for outcome in results["outcomes"]:
        (seconds,) = outcome["seconds"]
        assert 0 < seconds < outcome["first_step"] < 100
        assert len(outcome["accuracies"]) == 2
        assert all(0 <= accuracy <= 1 for accuracy in outcome["accuracies"])
        assert 100 << 20 < outcome["peak_bytes"] < 4 << 30
    others = results["flops"]["others"]
    assert others["forward"] == 2 * (29 * 29 * 32 * 48 + 11 * 11 * 32 * 512 + 800 * 256 + 256 * 10)
    assert 2.5 < others["training"] / others["forward"] < 3  # the first layer's input needs no gradient
    assert 1e9 < results["peaks"][0] < 1e15
    for name in ("this project", "plain PyTorch loop"):
        assert name in printed


def test_what_is_known_is_not_measured_again(measured, cifar_root):
    folder, first = measured
    before = (folder / "all.json").read_text()
    again = benchmark(
        "--data", str(cifar_root), *FEW, "--contenders", "ours", "plain", "--json", "all.json", cwd=folder
    )
    assert again.stdout.splitlines()[-3:] == first.splitlines()[-3:]
    assert (folder / "all.json").read_text() == before


def test_ratios_are_those_of_each_round():
    ours = [Outcome("ours", number, (seconds,)) for number, seconds in ((1, 2.0), (2, 4.0))]
    other = [Outcome("plain", number, (seconds, seconds)) for number, seconds in ((2, 8.0), (1, 3.0), (3, 1.0))]
    assert ratios(other, ours) == [2.0, 1.5]


def test_a_contender_that_fails_is_reported(tmp_path):
    (tmp_path / "plain.py").write_text("raise SystemExit('no images')")
    benchmark = Benchmark(None, {}, tmp_path)
    setting = Setting("data", ("plain",), 32, "fp32", rounds=1)
    (outcome,) = benchmark.run(setting)
    assert outcome.error == "no images"
    assert benchmark.missing(setting) == [(1, "plain")]


def test_every_contender_is_there():
    assert all((SCRIPTS / "contenders" / contender.program).exists() for contender in CONTENDERS.values())


def test_a_contender_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setitem(CONTENDERS, "keras", Contender("Keras", "with_keras.py", 1, ("no_such_module",)))
    can, (line,) = installed(("plain", "keras"), {})
    assert can == ["plain"]
    assert "no_such_module" in line and "pip install -e '.[benchmark]'" in line
    assert installed(("keras",), ("keras",)) == (["keras"], [])  # of another interpreter nothing is known


MEASURED = ("train.py", "conf/config.yaml", "src/experiments/data/batches.py", "src/experiments/models/_pooling.c")


@pytest.mark.parametrize("file", [*MEASURED, "scripts/benchmark/contenders/plain.py"])
def test_results_of_other_code_are_not_used(file, tmp_path, monkeypatch):
    for copied in ("train.py", "conf", "src", "scripts"):
        copy = shutil.copytree if (ROOT / copied).is_dir() else shutil.copy
        copy(ROOT / copied, tmp_path / copied)
    monkeypatch.setattr("benchmark.ROOT", tmp_path)
    monkeypatch.setattr("experiments.__file__", str(tmp_path / "src" / "experiments" / "__init__.py"))
    programs = tmp_path / "scripts" / "benchmark" / "contenders"
    before = Benchmark(None, {}, programs).code
    assert Benchmark(None, {}, programs).code == before
    with (tmp_path / file).open("a") as changed:
        changed.write("# changed")
    assert Benchmark(None, {}, programs).code != before


def test_time_to_an_accuracy(cifar_root, tmp_path):
    small = (
        "model.filters=4",
        "training.epochs=1",
        "training.batch_size=1000",
        "data.validation_size=40000",
        "threads=1",
    )
    few = ("--accuracy", "0.05", "--seeds", "1", "--contenders", "ours", "--preset", "notebook", "--overrides", *small)
    done = benchmark("--data", str(cifar_root), *few, cwd=tmp_path, script="time_to_accuracy.py")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^notebook, (in a new folder|once more) +([\d.]+) +([\d.]+) +([\d.]+) *$", done.stdout, re.M)
    assert [row[0] for row in rows] == ["in a new folder", "once more"]
    for _, seconds, accuracy, whole in rows:
        assert 0 < float(seconds) < float(whole) < 100
        assert 0.05 <= float(accuracy) < 0.2  # noise
    assert not list(tmp_path.iterdir())


RECORD = """
import torch
for name, count in (("train", 50_000), ("test", 10_000)):
    data = torch.load(f"cifar10/{name}.pt")
    assert data["images"].shape == (count, 32, 32, 3) and data["images"].dtype == torch.uint8
    assert data["labels"].shape == (count,) and len(data["classes"]) == 10
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run, accuracy in (("warmup", 0.1), (0, 0.94), (1, 0.93), (2, 0.95)):
    print(f"|  {run}  |  7  |  0.9  |  0.9  |    |  2.0  |")
    print(f"|    |  eval  |  0.9  |  0.9  |  {accuracy}  |  2.5  |")
"""


def test_a_gpu_is_measured_beside_the_record(cifar_root, tmp_path):
    """On the CPU, with few images, a small network, and a program that prints what the record prints."""
    (tmp_path / "airbench94_muon.py").write_text(RECORD, encoding="utf-8")
    few = shlex.split(
        "--images 64 --epochs 1 --rounds 1 --batch 32 --precision fp32 --seeds 1 --airbench . --device cpu"
    )
    small = shlex.split(
        "model.widths=[4] training.epochs=1 data.validation_size=40000 training.batch_size=1000 training.image_sizes=[] evaluation.tta=none tracking=none"
    )
    done = benchmark("--data", str(cifar_root), *few, "--overrides", *small, cwd=tmp_path, script="gpu.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^32 +fp32 +[1-9][\d,]* +\d+ % +\d+\.\d+ *$", done.stdout, re.M)
    preset = re.search(r"^fast92 +0\.\d{4} +never +(\d+\.\d+) +(\d+\.\d+) *$", done.stdout, re.M)
    assert 0 < float(preset[1]) < float(preset[2])
    assert re.search(r"^airbench94_muon\.py +0\.9400 +(\d+\.\d) +2\.50 +\1 *$", done.stdout, re.M)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("gpu.py", ("--airbench", "nowhere"), "--airbench nowhere: does not contain airbench94_muon.py"),
        ("speed.py", ("--data", "nowhere"), "does not contain cifar-10-batches-py"),
        ("speed.py", ("--python", "keras=/no/python"), "must be NAME=PATH"),
        ("speed.py", ("--rounds", "0"), "must be at least 1"),
        ("speed.py", ("--batch", "32", "many"), "must be at least 1"),
        ("speed.py", ("--curve", "depth"), "width"),
        ("time_to_accuracy.py", ("--data", "nowhere"), "does not contain cifar-10-batches-py"),
    ],
)
def test_mistakes(here, script, arguments, message):
    contenders = () if script == "gpu.py" else ("--contenders", "ours")
    done = benchmark(*contenders, *arguments, cwd=here, script=script)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_preset_that_does_not_exist_ends_with_the_message_of_train_py(cifar_root, tmp_path):
    arguments = ("--contenders", "ours", "--preset", "fast71", "--data", str(cifar_root))
    done = benchmark(*arguments, cwd=tmp_path, script="time_to_accuracy.py")
    assert done.returncode == 2
    assert "fast70" in done.stderr and "Traceback" not in done.stderr


def test_the_speed_of_decoding_is_printed_with_ratios_and_differences(tmp_path):
    few = (
        "--count",
        "40",
        "--size",
        "60",
        "45",
        "--image-size",
        "32",
        "--batch",
        "4",
        "--epochs",
        "1",
        "--rounds",
        "1",
    )
    done = benchmark(*few, "--workers", "0", cwd=tmp_path, script="decoding.py")
    assert done.returncode == 0, done.stderr
    for name in ("from the memory map", "on the fly"):
        assert re.search(rf"images/s +\d+\.\d\d \(.*\)  this project, {name}\n", done.stdout)
        differences = re.findall(rf" +(\d+\.\d\d)  this project, {name}, (?:random crops|evaluation)\n", done.stdout)
        assert len(differences) == 2 and all(float(value) < 2 for value in differences)
    assert re.search(r"1\.00 \(1\.00 to 1\.00\)  torchvision: .*, 0 workers", done.stdout)
