"""`training.budget`: a run that stops after the epoch that fits, and goes on with more time as if it had not stopped."""

import subprocess
import sys
import time

from mlflow import MlflowClient

from conftest import DIGITS
from experiments.config.loading import compose_config
from experiments.experiment import run
from experiments.runs.clock import Clock

SMALL = (*DIGITS, "model.filters=4", "model.kernel_size=3", "model.dense_width=8", "training.epochs=4")
SMALL += ("early_stopping.patience=null", "schedule=cosine")
CLOCKED = ("seconds", "epoch_seconds", "images_per_second")


def of(folder, run_id):
    return MlflowClient(f"sqlite:///{folder}/mlflow.db").get_run(run_id)


def numbers(result):
    return [{key: value for key, value in epoch.items() if key not in CLOCKED} for epoch in result.history]


def test_a_run_stops_in_time_and_continues_with_more(tracked, capsys):
    whole = run(compose_config([*SMALL, "tracking=none", "outputs=whole"]))
    capsys.readouterr()

    first = run(compose_config([*SMALL, "training.budget=1s"]))
    shown = capsys.readouterr().out
    assert len(first.history) == 1 and "test/accuracy" in first.metrics
    assert "the budget stopped the training after epoch 1 of 4; a larger training.budget continues it" in shown
    assert "the learning rate had not decayed: schedule=cosine takes all 4 epochs" in shown
    before = of(tracked, first.run_id)
    assert before.info.status == "FINISHED" and before.data.tags["test_set_evaluations"] == "1"

    again = run(compose_config([*SMALL, "training.budget=1s"]))
    assert again.run_id == first.run_id and len(again.history) == 1
    assert "the budget stopped the training" in capsys.readouterr().out

    longer = run(compose_config([*SMALL, "training.budget=10min"]))
    assert longer.run_id == first.run_id and numbers(longer) == numbers(whole)
    assert "the budget" not in capsys.readouterr().out
    assert {name: value for name, value in longer.metrics.items() if name not in CLOCKED} == {
        name: value for name, value in whole.metrics.items() if name not in CLOCKED
    }
    after = of(tracked, first.run_id)
    assert after.info.status == "FINISHED" and after.data.tags["test_set_evaluations"] == "2"
    assert after.data.metrics["test/loss"] == whole.metrics["test/loss"]
    steps = [
        value.step
        for value in MlflowClient(f"sqlite:///{tracked}/mlflow.db").get_metric_history(first.run_id, "val/loss")
    ]
    assert steps == [1, 2, 3, 4]
    unlimited = run(compose_config(list(SMALL)))
    assert unlimited.run_id == first.run_id and len(unlimited.history) == 4
    assert of(tracked, first.run_id).data.tags["test_set_evaluations"] == "2"


def test_without_mlflow_it_continues_too(here):
    settings = [*SMALL, "tracking=none", "schedule=constant"]
    assert len(run(compose_config([*settings, "training.budget=1s"])).history) == 1
    assert len(run(compose_config(settings)).history) == 4


def test_the_seconds_of_earlier_commands_count(tmp_path):
    file = tmp_path / "seconds"
    shown = Clock(file, time.time() - 100)
    with shown.running():
        pass  # nothing was trained
    assert not file.exists()
    killed = Clock(file, time.time() - 100)
    killed.keeping = True
    with killed.running():
        assert 100 <= killed.spent < 110
    later = Clock(file, time.time() - 20)
    assert 100 <= later.before < 110 and 120 <= later.spent < 130
    assert Clock(file, anew=True).spent < 10
    file.write_text("damaged")
    assert Clock(file).before == 0


def test_a_command_counts_from_the_start_of_its_process():
    code = (
        "import time; time.sleep(1); from experiments.config.command_line import process_start; print(process_start())"
    )
    before = time.time()
    started = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert before - 0.5 < started < before + 0.9
