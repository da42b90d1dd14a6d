"""A multirun from the command line: every combination once, killed or not, ranked, and its winner tested once."""

import contextlib
import csv
import itertools
import os
import random
import re
import runpy
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest

from conftest import DIGITS, ROOT, family, kill_group, typed
from experiments import data
from experiments.comparison import loading
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.config.wording import counted
from experiments.runs import store
from experiments.runs.tracker import Tracker
from experiments.sweep.workers import common_threads
from samples import paint

GRID = [*DIGITS, "training.epochs=2", "model.kernel_size=3", "model.filters=4,8", "seed=1,2"]
ENDLESS = [*DIGITS, "model.filters=2", "model.dense_width=8", "training.epochs=1000", "early_stopping.patience=null"]
NAMES = {f"filters={filters} seed={seed}" for filters in (4, 8) for seed in (1, 2)}
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="module")
def swept(multirun, tmp_path_factory):
    """(folder, output) of a finished grid of four points."""
    folder = tmp_path_factory.mktemp("swept")
    code, output = multirun(folder, *GRID)
    assert code == 0, output
    return folder, output


def ranking(folder):
    (path,) = folder.glob("outputs/sweeps/*/report/ranking.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder):
    """Everything that must not depend on interruptions: the metrics per epoch and the final metrics of every child."""
    client, above, children = family(folder)
    timed = ("epoch_seconds", "images_per_second", "seconds")
    values = {
        name: {
            metric: [(value.step, value.value) for value in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics.keys() - timed
        }
        for name, run in children.items()
    }
    statuses = {name: (run.info.status, run.data.tags["test_set_evaluations"]) for name, run in children.items()}
    return (
        values,
        statuses,
        above.info.status,
        above.data.tags["test_set_evaluations"],
        [row["name"] for row in ranking(folder)],
    )


def test_every_point_is_a_child_with_a_short_name(swept):
    _, above, children = family(swept[0])
    assert children.keys() == NAMES and above.info.status == "FINISHED"
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    for name, run in children.items():
        assert run.data.params["model.filters"] in name and run.data.params["seed"] in name


def winning(folder):
    """The names of the points of the winner."""
    return {row["name"] for row in ranking(folder) if row["place"] == "1"}


def test_it_ranks_configurations_by_the_epochs_that_are_kept(swept):
    client, above, children = family(swept[0])
    reached, means = {}, {}
    for name, run in children.items():
        history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "val/accuracy")}
        reached[name] = history[int(run.data.metrics["best/epoch"])]
        means.setdefault(name.split()[0], []).append(reached[name])
    means = {filters: sum(values) / len(values) for filters, values in means.items()}
    rows = ranking(swept[0])
    expected = sorted(reached, key=lambda name: (-means[name.split()[0]], -reached[name]))
    assert [row["name"] for row in rows] == expected and [row["place"] for row in rows] == ["1", "1", "2", "2"]
    assert [float(row["val/accuracy"]) for row in rows] == [reached[name] for name in expected]
    assert above.data.metrics["best/val_accuracy"] == pytest.approx(max(means.values()))


def test_only_the_seeds_of_the_winner_touch_the_test_set_and_once(swept):
    client, above, children = family(swept[0])
    tested = {name for name, run in children.items() if any(metric.startswith("test/") for metric in run.data.metrics)}
    evaluated = {name for name, run in children.items() if run.data.tags["test_set_evaluations"] != "0"}
    assert tested == evaluated == winning(swept[0]) and len(tested) == 2
    assert {children[name].data.tags["test_set_evaluations"] for name in tested} == {"1"}
    assert set(above.data.tags["winner"].split()) == {children[name].info.run_id for name in tested}
    assert above.data.tags["test_set_evaluations"] == "2"
    accuracies = [children[name].data.metrics["test/accuracy"] for name in tested]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert above.data.metrics["test/accuracy"] == pytest.approx(mean)
    assert above.data.metrics["test/accuracy_sd"] == pytest.approx(deviation)
    assert "test/accuracy_low" not in above.data.metrics  # two seeds are too few
    sentence = f"Only the winner's 2 seeds were evaluated on the test set: accuracy {mean:.4f} ± {deviation:.4f}"
    (page,) = swept[0].glob("outputs/sweeps/*/report/report.html")
    assert sentence in page.read_text().replace("&#39;", "'") and sentence in swept[1]
    for name, run in children.items():
        path = client.download_artifacts(run.info.run_id, "report.html", str(swept[0]))
        with open(path) as file:  # noqa: PTH123
            assert ("The test set was not used" in file.read()) == (name not in tested)


def test_the_test_of_the_winner_is_no_part_of_its_duration(swept):
    runs = sorted(family(swept[0])[2].values(), key=lambda run: run.info.start_time)
    assert all(run.info.end_time <= later.info.start_time for run, later in itertools.pairwise(runs))


def test_it_prints_a_line_per_point_the_ranking_and_what_to_type(swept):
    output = swept[1]
    assert all(f"{count}/4  " in output for count in range(1, 5)) and output.count("val/accuracy 0.") == 4
    filters = ranking(swept[0])[0]["model.filters"]
    command = f"python train.py -m data=digits threads=1 training.epochs=2 model.kernel_size=3 model.filters={filters} seed=1,2"
    assert f"train it:     {command}\n" in output and family(swept[0])[1].data.tags["winner_command"] == command
    assert re.search(rf"^1 +filters={filters} +2 +0\.", output, re.MULTILINE)
    assert "HYDRA" not in output and "Traceback" not in output


def test_the_same_command_again_trains_nothing(swept, multirun):
    before = outcome(swept[0])
    client, above, _ = family(swept[0])
    partial = swept[0] / f"mlruns/digits/{above.info.run_id}/artifacts/figures/.artifact.uploading.a1b2c3d4"
    partial.write_bytes(b"half of a file")  # what a killed process was writing
    code, output = multirun(swept[0], *GRID)
    assert code == 0 and "4 of 4 points were run before" in output and "1/4" not in output
    assert outcome(swept[0]) == before and not partial.exists()
    assert all(len(client.get_metric_history(above.info.run_id, name)) == 1 for name in above.data.metrics)


def evaluated_in(folder):
    """How many runs have been evaluated on the test set."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True)) as database:
        (found,) = database.execute("SELECT COUNT(*) FROM latest_metrics WHERE key = 'test/loss'").fetchone()
    return found


def test_killed_several_times_it_has_the_same_results(swept, start, multirun, ready_store, tmp_path):
    ready_store(tmp_path)
    moments = random.Random(888)
    for _ in range(KILLS):
        process = start(typed, tmp_path, "-m", *GRID)
        process.join(moments.uniform(0.5, 6))
        kill_group(process)
    process = start(typed, tmp_path, "-m", *GRID)
    while process.exitcode is None and not evaluated_in(tmp_path):  # between the tests of the winner's seeds
        process.join(0.01)
    kill_group(process)
    code, output = multirun(tmp_path, *GRID)
    assert code == 0, output
    assert outcome(tmp_path) == outcome(swept[0])


def test_a_multirun_that_was_given_up_is_closed_by_another_command(start, multirun, ready_store, tmp_path):
    ready_store(tmp_path)
    process = start(typed, tmp_path, "-m", *ENDLESS, "seed=1,2")
    while not list(tmp_path.glob("outputs/runs/*/checkpoint.pt")):
        process.join(0.1)
        assert process.exitcode is None
    kill_group(process)
    assert multirun(tmp_path, *DIGITS, "training.epochs=1", "model.filters=4", "seed=1,2")[0] == 0
    client = store.connect(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    parents = [run for run in runs if "sweep" in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED", "KILLED"]


def compare(folder, *arguments):
    """The body of a process: `python scripts/compare.py ...` in `folder`; its output is in compared.txt."""
    os.chdir(folder)
    with open("compared.txt", "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [str(ROOT / "scripts/compare.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def test_compare_shows_it_again(swept, start):
    def compared(*arguments):
        process = start(compare, swept[0], *arguments)
        process.join()
        return process.exitcode, (swept[0] / "compared.txt").read_text()

    _, above, children = family(swept[0])
    (printed,) = [line.split()[3].rstrip(",") for line in swept[1].splitlines() if line.startswith("look at it:")]
    table = [line for line in swept[1].splitlines() if line.startswith(tuple("1234"))]
    for which in (above.info.run_id[:6], above.info.run_name, printed, above.data.tags["sweep"]):
        code, output = compared(which, "--save", "page")
        assert code == 0, output
        assert all(line in output for line in table if "/4" not in line)
    page = (swept[0] / "page/report.html").read_text()
    links = re.findall(r'<a href="([^"]*)"><code>', page)
    assert len(links) == 4 and len(page) > 10_000
    assert all((swept[0] / "page" / link).is_file() for link in links)
    assert all(any(run.info.run_id in link for link in links) for run in children.values())
    code, output = compared("nothing", "--save", "page2")
    assert code == 2 and "nothing: no multirun or run has this name" in output
    assert not (swept[0] / "page2").exists()


def test_single_runs_are_compared_too(swept, monkeypatch):
    monkeypatch.chdir(swept[0])
    _, _, children = family(swept[0])
    chosen = [run.info.run_id for run in children.values()][:2]
    found = loading.find_comparison(chosen, "sqlite:///mlflow.db", ["val/loss"])
    assert [point.run_id for point in found.points] == chosen and {run.run_id for run in found.winner.points} <= {
        *chosen
    }
    with pytest.raises(UserError, match="there are no runs here"):
        loading.find_comparison([], "sqlite:///elsewhere.db", [])


@pytest.mark.parametrize("label", ["tracking.run_name=mine", "tracking.run_name=null"])
def test_points_of_one_name_are_all_ranked(label, multirun, tmp_path):
    code, output = multirun(
        tmp_path, *DIGITS, label, "training.epochs=1", "model.filters=4", "optimizer.lr=0.00100001,0.00100002"
    )
    assert code == 0, output
    assert {row["name"] for row in ranking(tmp_path)} == {"lr=0.00100001", "lr=0.00100002"}, output


def test_a_failed_point_stops_no_other(multirun, tmp_path):
    """The name is longer than what MLflow keeps of a tag."""
    named = [*DIGITS, f"sweep.name={'rates' * 1100}", "training.epochs=1", "model.filters=4", "optimizer=sgd"]
    code, output = multirun(tmp_path, *named, "optimizer.lr=100,0.01")
    assert code == 1 and "1 failed:" in output and "lr=100: Diverged" in output and "Traceback" not in output
    _, above, children = family(tmp_path)
    assert above.info.status == "FAILED" and "Diverged" in children["lr=100"].data.tags["failure"]
    assert children["lr=0.01"].info.status == "FINISHED" and "test/loss" in children["lr=0.01"].data.metrics
    found = loading.find_comparison(["rates" * 1100], f"sqlite:///{tmp_path}/mlflow.db", [])
    assert {point.name: point.status for point in found.points} == {"lr=100": "failed", "lr=0.01": "finished"}
    assert found.command.overrides[2] == named[2]


FAILING = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, image_shape, classes, **_):
        assert torch.initial_seed() != 2
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, classes))
"""


def test_a_seed_that_failed_before_it_had_a_run_is_counted(multirun, tmp_path):
    (tmp_path / "my_network.py").write_text(FAILING)
    code, output = multirun(tmp_path, "data=digits", "training.epochs=1", "model._target_=my_network.Net", "seed=1,2")
    assert code == 1 and re.search(r"^1 +all points +1 of 2 ", output, re.MULTILINE), output


def test_multiruns_that_start_together_share_a_run(start, ready_store, tmp_path):
    """One of them waits for the run, and it is in the tables of both."""
    small = [*DIGITS, "training.epochs=10", "early_stopping.patience=null", "model.filters=2", "model.dense_width=8"]
    ready_store(tmp_path)
    both = [start(typed, tmp_path, "-m", *small, f"seed=1,{seed}") for seed in (2, 3)]
    for process in both:
        process.join()
        assert process.exitcode == 0, (tmp_path / "output.txt").read_text()
    client = store.connect(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    above = [run.info.run_id for run in runs if "sweep" in run.data.tags]
    tables = [loading.find_comparison([one], f"sqlite:///{tmp_path}/mlflow.db", []).points for one in above]
    assert {frozenset(point.name for point in table) for table in tables} == {
        frozenset({"seed=1", f"seed={seed}"}) for seed in (2, 3)
    }
    assert len(runs) == 5 and len({point.run_id for table in tables for point in table}) == 3


NETWORK = """
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, image_shape, classes, width):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, width), nn.ReLU(), nn.Linear(width, classes))
        if width == 3:  # as a user may do while the last point trains
            CHANGE
"""
EDIT = 'file = Path("mine/experiment/small.yaml"); file.write_text(file.read_text().replace("0.01", "0.02"))'
EXCHANGE = 'Path("pictures/a/0.png").write_bytes(Path("pictures/b/100.png").read_bytes())'


@pytest.mark.parametrize("change", [EDIT, EXCHANGE], ids=["edit", "exchange"])
def test_the_winner_is_tested_by_its_run(change, multirun, tmp_path, monkeypatch):
    """Files change while the last point trains. The table keeps its numbers, and no other run is trained."""
    for name, first in (("a", 0), ("b", 100)):
        paint(tmp_path / "pictures", name, 12, first, size=8)
    for name, text in {
        "my_network.py": NETWORK.replace("CHANGE", change),
        "mine/model/net.yaml": "_target_: my_network.Net\nwidth: 4\n",
        "mine/experiment/small.yaml": "# @package _global_\noptimizer: {lr: 0.01}\ntraining: {epochs: 2}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    sizes = [f"data.{key}=4" for key in ("validation_size", "test_size")]
    own = ["data=image_folder", "data.root=pictures", "data.image_size=8", *sizes, "model=net", "experiment=small"]
    code, output = multirun(tmp_path, "--config-dir", "mine", *own, "threads=1", "model.width=2,3")
    client = store.connect(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("pictures").experiment_id])
    (above,) = [run for run in runs if "sweep" in run.data.tags]
    by_id = {run.info.run_id: run for run in runs}
    rows = ranking(tmp_path)
    assert len(runs) == 3, output
    assert {row["run_id"] for row in rows} == by_id.keys() - {above.info.run_id}
    assert [float(row["val/loss"]) for row in rows] == [
        by_id[row["run_id"]].data.metrics["best/val_loss"] for row in rows
    ]
    winner = by_id[rows[0]["run_id"]]
    assert above.data.tags["winner"] == winner.info.run_id and rows[0]["place"] == "1"
    assert {run.info.status for run in by_id.values() if run is not above} == {"FINISHED"}
    if change == EDIT:
        assert code == 0 and "Only the winner was evaluated" in output, output
        assert "test/accuracy" in winner.data.metrics and above.data.tags["winner_command"] == ""
        assert "no command does today" in output
    else:
        monkeypatch.chdir(tmp_path)
        found = loading.find_comparison([], "sqlite:///mlflow.db", [])
        assert above.data.tags["winner_command"] == found.winner_command != "" and "--config-dir mine" in output
        reason = "The evaluation of the winner on the test set failed: its settings, its images or the code"
        assert code == 1 and reason in " ".join(output.split()), output
        assert "test/accuracy" not in winner.data.metrics and above.info.status == "FAILED"


def imported(done):
    """The modules that a process started with `python -X importtime` has imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def start_with_importtime(folder, *arguments):
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_without_mlflow_it_ranks_and_tests_the_winner_and_does_not_import_it(tmp_path):
    small = [*DIGITS, "tracking=none", "training.epochs=1", "model.filters=4"]
    done = start_with_importtime(tmp_path, "-m", *small, "optimizer=glob(ad*)", "seed=1,2")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = ranking(tmp_path)
    names = {f"optimizer={name} seed={seed}" for name in ("adam", "adamw") for seed in (1, 2)}
    assert {row["name"] for row in rows} == names
    winner = f"python train.py -m {' '.join(small)} optimizer={rows[0]['optimizer.name']} seed=1,2\n"
    assert winner in done.stdout
    tested = [path for path in tmp_path.glob("outputs/runs/*/results.json") if "test/loss" in path.read_text()]
    assert len(tested) == 2 and not (tmp_path / "mlflow.db").exists()
    assert "torch" in imported(done) and "mlflow" not in imported(done)


@pytest.mark.parametrize("mistake", ["seed=3,4", "hydra/sweeper=optuna", "sweep.name=a,b", "model=glob(x*)"])
def test_a_mistake_is_reported_without_importing_what_is_slow(mistake, tmp_path):
    done = start_with_importtime(tmp_path, "-m", "data=digits", "seed=1", mistake)
    assert done.returncode == 2 and not {"torch", "mlflow", "matplotlib", "sklearn"} & imported(done)


def test_a_mistake_in_any_point_shows_before_the_first_one_trains(multirun, tmp_path):
    wrong = ["data=digits", "data.image_size=32,8", "model.kernel_size=3,4", "model.blocks=2,3"]
    code, output = multirun(tmp_path, *wrong)
    assert code == 2 and "too large for images of 8x8" in output and "Traceback" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "output.txt"]


def test_a_running_multirun_is_not_started_twice(start, command, ready_store, tmp_path):
    long = [*ENDLESS, "seed=1,2"]
    ready_store(tmp_path)
    first = start(typed, tmp_path, "-m", *long)
    while not list(tmp_path.glob("outputs/runs/*/checkpoint.pt")):
        first.join(0.1)
        assert first.exitcode is None
    printed = (tmp_path / "output.txt").rename(tmp_path / "of_the_first.txt")  # the other one has a file of its own
    refused = command("train.py", "-m", *long, cwd=tmp_path)
    os.kill(first.pid, signal.SIGINT)
    first.join()
    assert refused.returncode == 2 and "this multirun is already running (process" in refused.stderr
    _, above, children = family(tmp_path)
    assert first.exitcode == 130 and above.info.status == "KILLED"
    assert {run.info.status for run in children.values()} == {"KILLED"}
    assert "python train.py -m data=digits" in printed.read_text()


def test_runs_that_start_together_name_their_data_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.connect("sqlite:///mlflow.db")
    together = threading.Barrier(8, timeout=60)
    for seed in range(5):
        config = compose_config([*DIGITS, f"data.seed={seed}"])
        splits = data.load_splits(config.data)

        def begin(name, config=config, splits=splits):
            together.wait()
            return Tracker(config, store.connect("sqlite:///mlflow.db"), [], name, name, splits, tmp_path)

        with ThreadPoolExecutor(together.parties) as threads:
            begun = list(threads.map(begin, "abcdefgh"))
        for tracker in begun:
            inputs = tracker.client.get_run(tracker.run_id).inputs.dataset_inputs
            assert {given.tags[0].value for given in inputs} == {"training", "validation", "testing"}


def typed_with_all_threads(folder, *arguments):
    """The body of a process: `python train.py ...` where the environment does not limit the number of threads, but the GPUs."""
    del os.environ["OMP_NUM_THREADS"]
    os.environ["CUDA_VISIBLE_DEVICES"] = "3,1"
    typed(folder, *arguments)


def test_several_at_a_time(start, tmp_path):
    """The points also share their epochs, so one of them waits for the other."""
    jobs = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.name=a"]
    small = ["data=digits", "data.validation_size=1000", "model.filters=4", "model.dense_width=8", "training.epochs=3"]
    process = start(typed_with_all_threads, tmp_path, "-m", *small, "early_stopping.patience=3,4", *jobs)
    process.join()
    assert process.exitcode == 0, (tmp_path / "output.txt").read_text()
    client, above, children = family(tmp_path)
    assert children.keys() == {"patience=3", "patience=4"} and above.info.status == "FINISHED"
    (file,) = tmp_path.glob("outputs/sweeps/*/threads")
    trained = [line for line in (file.parent / "epochs").read_text().splitlines() if line.startswith("trained")]
    assert len(trained) == 3
    assert {run.data.params["threads"] for run in children.values()} == {file.read_text()}
    assert common_threads(file.parent, lambda: 64) == int(file.read_text())
    assert len(list(file.parent.glob("*.place"))) == 2  # each worker has had a GPU of its own
    for run in children.values():
        page = client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
        with open(page) as file:  # noqa: PTH123
            assert f"cpu, {counted(max(1, joblib.cpu_count() // 2), 'thread')}" in file.read()
