"""The benchmark as a user types it, on few pictures: both contenders that need nothing more, once."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT
from experiments.benchmark import table
from experiments.benchmark.contest import Contest, Outcome, Setting, installed

FEW = ("--images", "64", "--epochs", "1", "--rounds", "1", "--threads", "1")


def benchmark(*arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments]
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
    assert table.ratios(other, ours) == [2.0, 1.5]


def test_a_contender_that_fails_is_told_of(here, tmp_path):
    (tmp_path / "plain.py").write_text("raise SystemExit('no pictures')")
    contest = Contest(tmp_path, None, {})
    setting = Setting("data", ("plain",), 32, "fp32", rounds=1)
    (outcome,) = contest.run(setting)
    assert outcome.error == "no pictures"
    assert contest.missing(setting) == [(1, "plain")]


def test_what_is_not_installed_is_left_out_with_a_word(monkeypatch):
    monkeypatch.setattr("experiments.benchmark.contest.NEEDS", {"plain": (), "keras": ("no_such_module",)})
    can, (line,) = installed(("plain", "keras"), {})
    assert can == ["plain"]
    assert "no_such_module" in line and "pip install -e '.[benchmark]'" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "holds no cifar-10-batches-py"),
        (("--python", "keras=/no/python"), "must be NAME=PATH"),
        (("--rounds", "0"), "must be at least 1"),
    ],
)
def test_mistakes(here, arguments, message):
    done = benchmark("--contenders", "ours", *arguments, cwd=here)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
