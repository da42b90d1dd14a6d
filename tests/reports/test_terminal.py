"""What a run prints, on a terminal and into a file."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from experiments.reports import epoch_log, terminal
from experiments.training.evaluation import Evaluation
from experiments.training.loop import EpochResult, RunningEpoch


@pytest.fixture
def printed(request, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=request.param, highlight=False, soft_wrap=True, width=140)
    monkeypatch.setattr(terminal, "console", console)
    return lambda: re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())


def log_an_epoch(monkeypatch, losses):
    """Ten steps of ten images, a tenth of a second each."""
    times = (step / 10 for step in range(100))
    monkeypatch.setattr(epoch_log, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    result = EpochResult(1, 0.9, 0.7, Evaluation(0.4, np.array([[3, 1], [0, 4]])), 0.001, 1.0, 100)
    with epoch_log.EpochLog(12, SimpleNamespace(images=range(100), note="")) as log:
        for step in range(1, 11):
            log.step(RunningEpoch(1, None, losses, torch.tensor(6 * step), 0.0, step, 10 * step))
        log.finish_epoch(result, best=True)


@pytest.mark.parametrize("printed", [True], indirect=True)
def test_an_epoch_that_continues_is_shown_from_its_step_on(printed, monkeypatch):
    """Interrupted after 60 of 100 images, which took 2 seconds."""
    times = (second / 4 for second in range(100))
    monkeypatch.setattr(epoch_log, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    with epoch_log.EpochLog(12, SimpleNamespace(images=range(100), note="")) as log:
        for step in range(7, 11):
            log.step(RunningEpoch(3, None, torch.full((10,), 5.0), torch.tensor(6 * step), -2.0, step, 10 * step))
    shown = re.findall(r"epoch   3/12 \S+ loss 0.5000  accuracy 0.6000 (\d+) images/s", printed())
    assert [int(speed) for speed in shown[:3]] == [32, 33, 33]  # 80 images in 2.5 s, 90 in 2.75 s, 100 in 3 s


LINE = "epoch   1/12  train loss 0.9000  accuracy 0.7000  validation loss 0.4000  accuracy 0.8750"


@pytest.mark.parametrize("printed", [False], indirect=True)
def test_a_file_has_one_line_per_epoch(printed, monkeypatch):
    log_an_epoch(monkeypatch, losses=None)  # which is not even read
    (line,) = printed().splitlines()
    assert line.startswith(LINE) and line.endswith("images/s  best")


@pytest.mark.parametrize("printed", [True], indirect=True)
def test_a_terminal_shows_the_running_epoch_now_and_then(printed, monkeypatch):
    log_an_epoch(monkeypatch, losses=torch.full((10,), 5.0))
    out = printed()
    shown = re.findall(r"epoch   1/12 \S+ loss 0.5000  accuracy 0.6000 (\d+) images/s", out)
    assert 4 <= len(shown) < 10 and LINE in out  # every second step, and once more below the line of the epoch
    assert all(90 < int(speed) < 160 for speed in shown)


class Late:
    """A copy that arrives when it is asked for the third time."""

    def __init__(self, tensor):
        self.values, self.asked = tensor, 0

    @property
    def has_arrived(self):
        self.asked += 1
        return self.asked == 3


def test_what_has_not_arrived_from_a_gpu_is_not_waited_for():
    means, losses, shown = epoch_log.RunningMeans(Late), torch.arange(10.0, 60.0, 10.0), []
    for epoch, step in [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (2, 2), (2, 3), (2, 4)]:
        running = RunningEpoch(epoch, None, epoch * losses, torch.tensor(step**2), 0.0, step, 10 * step)
        current = means.update(running)
        shown.append((round(means.loss, 6), round(means.accuracy, 6)) if current else None)
    first, third, of_next_epoch = (1.0, 0.1), (2.0, 0.3), (3.0, 0.2)
    assert shown == [None, None, first, first, third, None, None, None, of_next_epoch]


@pytest.mark.parametrize("printed", [False], indirect=True)
def test_results_are_in_columns(printed):
    terminal.show_results({"seconds": 9, "best/epoch": 2, "test/of_a_long_name": 0.5, "test/f1/cat": 0.1}, "2 views")
    assert printed() == "\nbest/epoch           2\ntest/of_a_long_name  0.5000  2 views\n"


@pytest.mark.parametrize("printed", [False], indirect=True)
@pytest.mark.parametrize(("prefix", "split"), [("test/", "test"), ("kept/val_", "validation"), ("train/", "train")])
def test_the_calibration_is_one_line(printed, prefix, split):
    names = ("loss", "ece", "brier", "calibrated_loss", "calibrated_ece", "calibrated_brier")
    results = {"temperature": 1.5} | {f"{prefix}{name}": place / 10 for place, name in enumerate(names)}
    terminal.show_results(results, "2 views", groups=("test/", "train/"))
    *others, line = printed().splitlines()
    assert line == f"calibrated with temperature 1.5: {split} calibration error 0.1000 -> 0.4000, loss 0.0000 -> 0.3000"
    assert not any("ece" in other or "brier" in other or "calibrated" in other for other in others)
    terminal.show_results(results | {"temperature": 1.0}, "2 views", groups=("test/", "train/"))
    alike = f"{split} calibration error 0.1000: no temperature is significantly better on the validation images"
    assert printed().splitlines()[-1] == alike


@pytest.mark.parametrize("printed", [False], indirect=True)
def test_the_most_frequent_mistakes_are_named(printed):
    terminal.show_test(Evaluation(0.4, np.array([[3, 1, 0], [5, 4, 0], [0, 0, 0]])), ["cat", "dog", "[b]"])
    assert "most confused: dog predicted as cat 5x; cat predicted as dog 1x\n" in printed()
    assert re.search(r"\[b\] +· +· +· +none", printed())


@pytest.mark.parametrize("printed", [False], indirect=True)
@pytest.mark.parametrize(("classes", "headings"), [(4, "a name th…"), (8, "a n…"), (12, "a …"), (14, None)])
def test_a_confusion_matrix_fits_the_terminal_or_is_left_out(printed, classes, headings):
    terminal.console.width = 80
    names = [f"a name that is long {number}" for number in range(classes)]
    terminal.show_test(Evaluation(0.4, np.full((classes, classes), 12)), names)
    matrix, mistakes = printed().split("most confused: ")
    assert all(len(line) <= 80 for line in matrix.splitlines())
    rows = re.findall(rf"^ a name.*(?: +12){{{classes}}} +0\.\d\d $", matrix, re.MULTILINE)
    assert len(rows) == (classes if headings else 0)
    assert ("report.html has it" in matrix) if headings is None else (f" {headings} " in matrix)
    assert "a name that is long 0 predicted as" in mistakes
