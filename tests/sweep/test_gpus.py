"""Which GPU a worker of a multirun has; the GPUs are only names here."""

import functools
import os

import joblib
import pytest

from experiments.files.limits import RUNS_PER_GPU, runs_per_gpu
from experiments.sweep.workers import VISIBLE, OnGpu, describe_gpus, gpu_environment, visible_gpus


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        (["0"], 3, [("0", 3)] * 3),
        (["0", "1"], 2, [("0", 1), ("1", 1)]),
        (["3", "GPU-8f6a"], 5, [("3", 3), ("GPU-8f6a", 2), ("3", 3), ("GPU-8f6a", 2), ("3", 3)]),
        (["0", "1", "2", "3"], 2, [("0", 1), ("1", 1)]),
    ],
)
def test_worker_i_has_gpu_i_modulo_n(gpus, workers, expected):
    found = [gpu_environment(gpus, workers, worker) for worker in range(workers)]
    assert found == [{VISIBLE: gpu, RUNS_PER_GPU: str(runs)} for gpu, runs in expected]


def test_a_worker_of_a_second_process_shares_a_gpu_with_those_of_the_first():
    assert gpu_environment(["0", "1"], 2, 3) == {VISIBLE: "1", RUNS_PER_GPU: "2"}


@pytest.mark.parametrize(
    ("listed", "expected"), [("3, 1", ["3", "1"]), ("GPU-8f6a,0", ["GPU-8f6a", "0"]), ("1,-1,0", ["1"]), ("", [])]
)
def test_the_gpus_that_the_user_lists(listed, expected, monkeypatch):
    monkeypatch.setenv(VISIBLE, listed)
    assert visible_gpus() == expected


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("0", 1), ("many", 1), ("", 1)])
def test_the_runs_that_share_a_gpu(value, expected, monkeypatch):
    monkeypatch.setenv(RUNS_PER_GPU, value)
    assert runs_per_gpu() == expected


def test_what_is_shared_is_said():
    assert describe_gpus(0, 4) == describe_gpus(2, 2) == ""
    assert describe_gpus(1, 2) == "up to 2 runs at the same time on the GPU, each with its own copy of the images there"
    assert describe_gpus(2, 3).startswith("up to 2 runs at the same time on each of 2 GPUs")


def seen(pipe, mode):
    """What a job sees; it waits until another process opens the other end of the pipe."""
    with open(pipe, mode):  # noqa: PTH123
        return os.environ[VISIBLE], os.environ[RUNS_PER_GPU], os.getpid()


def test_every_worker_of_joblib_keeps_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "3,1,0")
    os.mkfifo(tmp_path / "pipe")
    job = OnGpu(functools.partial(seen, tmp_path / "pipe"), tmp_path, tuple(visible_gpus()), 2)
    with joblib.Parallel(n_jobs=2) as parallel:
        found = {row for _ in range(3) for row in parallel(joblib.delayed(job)(mode) for mode in ("r", "w"))}
    assert {(gpu, runs) for gpu, runs, _ in found} == {("3", "1"), ("1", "1")}
    assert len(found) == len({process for *_, process in found}) == 2
    assert os.environ[VISIBLE] == "3,1,0"
