"""Where a run computes: threads, the GPU of a process, precision, deterministic algorithms, random states."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.training import devices


@pytest.fixture
def one_processor():
    """Only one processor may be used, while torch has three threads."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(allowed)})
    torch.set_num_threads(3)
    yield
    os.sched_setaffinity(0, allowed)
    torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
@pytest.mark.parametrize(
    ("variable", "overrides", "expected"),
    [
        (None, [], 1),
        ("OMP_NUM_THREADS", [], devices.TORCH_THREADS),
        ("MKL_NUM_THREADS", [], devices.TORCH_THREADS),
        (None, ["threads=2"], 2),
    ],
)
def test_no_more_threads_than_processors_unless_requested(variable, overrides, expected, one_processor, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(devices.TORCH_THREADS))
    devices.choose_device(compose_config(["device=cpu", *overrides]))
    assert torch.get_num_threads() == expected


CHOOSE = """
from experiments.files import limits
from experiments.training import devices
from experiments.config.loading import compose_config
import torch
config = compose_config(["device=cpu"])
devices.choose_device(config)
print(torch.get_num_threads(), devices.choose_device(config) and torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").exists() or (os.cpu_count() or 1) < 2, reason="nothing to share here")
def test_one_thread_where_other_programs_use_every_processor():
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHOOSE], env=environment, capture_output=True, text=True, timeout=300
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert done.stdout.split() == ["1", "1"], done.stderr
    assert "threads=1, because other programs use" in done.stderr and done.stderr.count("other programs") == 1


def test_the_default_returns_after_a_run_that_set_a_number():
    before, seen = torch.get_num_threads(), []
    try:
        for threads in ("null", "1", "2", "null"):
            devices.choose_device(compose_config(["device=cpu", f"threads={threads}"]))
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen[1:3] == [1, 2] and seen[0] == seen[3]


class Cards:
    """Stands for a machine with GPUs that are not here: what PyTorch would say about them, and what it is told."""

    def __init__(self, count, major):
        self.count, self.major, self.current, self.states = count, major, 0, {}

    def set(self, monkeypatch):
        answers = {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "set_device": lambda device: setattr(self, "current", device.index),
            "get_device_name": lambda device=None: "Some GPU",
            "get_device_properties": lambda device=None: SimpleNamespace(major=self.major),
            "get_rng_state": lambda device: self.states.setdefault(device.index, torch.tensor([device.index])),
            "set_rng_state": lambda state, device: self.states.__setitem__(device.index, state),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.delenv(devices.WORKSPACE, raising=False)
        return self


@pytest.fixture
def tf32_flags():
    """The flags of TF32 are those of before after the test."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def start_by_torchrun(monkeypatch, local_rank, count):
    """Set what torchrun sets in the environment of one of its processes."""
    values = {"RANK": local_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    for name, value in {"TORCHELASTIC_RUN_ID": "a", **values}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("tf32_flags")
@pytest.mark.parametrize(("local_rank", "current", "expected"), [(3, 0, 3), (None, 2, 2)])
def test_every_process_has_its_own_gpu(local_rank, current, expected, monkeypatch):
    cards = Cards(4, major=8).set(monkeypatch)
    cards.current = current
    if local_rank is not None:
        start_by_torchrun(monkeypatch, local_rank, 4)
    assert devices.choose_device(compose_config(["device=cuda"])) == torch.device("cuda", expected)
    assert cards.current == expected and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_more_processes_than_gpus_are_refused(monkeypatch):
    Cards(2, major=8).set(monkeypatch)
    start_by_torchrun(monkeypatch, 0, 3)
    with pytest.raises(UserError, match=r"--nproc-per-node=3: this machine has 2 CUDA devices"):
        devices.choose_device(compose_config([]))


@pytest.mark.usefixtures("tf32_flags")
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_precision_that_the_gpu_lacks_is_refused(precision, monkeypatch):
    config = compose_config([f"precision={precision}"])
    Cards(1, major=8).set(monkeypatch)
    assert devices.choose_device(config).type == devices.device_type(config) == "cuda"
    Cards(1, major=7).set(monkeypatch)
    for choose in (devices.choose_device, devices.device_type):
        with pytest.raises(
            UserError, match=f"precision={precision}: Some GPU cannot compute in it; use precision=fp32"
        ):
            choose(config)


@pytest.mark.usefixtures("tf32_flags")
@pytest.mark.parametrize("precision", ["tf32", "fp32", "bf16"])
def test_the_flags_of_tf32_follow_the_precision_and_agree(precision, monkeypatch):
    Cards(1, major=8).set(monkeypatch)
    devices.choose_device(compose_config([f"precision={precision}"]))
    expected = precision == "tf32"
    with torch.backends.cudnn.flags(enabled=True):  # reads the flags of both generations
        pass
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == expected
    for flags in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        assert (flags.fp32_precision == "tf32") == expected


def states():
    """Of all flags that deterministic=true sets."""
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *strict, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


def test_deterministic_algorithms_are_used_in_the_run_only():
    before = states()
    with devices.deterministic(compose_config([])):
        assert states() == before
    with pytest.raises(KeyboardInterrupt), devices.deterministic(compose_config(["deterministic=true"])):
        assert states() == (True, False, True, False)
        raise KeyboardInterrupt
    assert states() == before


def test_an_operation_without_a_deterministic_algorithm_is_named():
    with (
        pytest.raises(UserError, match=r"deterministic=true: put_ has no deterministic .* or deterministic=false"),
        devices.deterministic(compose_config(["deterministic=true"])),
    ):
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([1.0]))
    with pytest.raises(RuntimeError, match="other"), devices.deterministic(compose_config(["deterministic=true"])):
        raise RuntimeError("other")


def test_a_workspace_of_cublas_that_is_not_deterministic_is_refused(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with (
        pytest.raises(UserError, match="deterministic=true: CUBLAS_WORKSPACE_CONFIG=:0:0 must be :4096:8 or :16:8"),
        devices.deterministic(compose_config(["deterministic=true"])),
    ):
        pass


def test_only_the_random_state_of_the_own_device_is_kept(monkeypatch):
    cards = Cards(2, major=8).set(monkeypatch)
    assert devices.random_state(torch.device("cpu")).keys() == {"cpu"} and cards.states == {}
    kept = devices.random_state(torch.device("cuda", 1))
    assert kept.keys() == {"cpu", "cuda"} and cards.states.keys() == {1}
    cards = Cards(1, major=8).set(monkeypatch)  # continued where there are fewer
    devices.set_random_state(kept, torch.device("cuda", 0))
    assert cards.states == {0: kept["cuda"]}
    devices.set_random_state(kept, torch.device("cpu"))
    devices.set_random_state({"cpu": kept["cpu"]}, torch.device("cuda", 0))
    assert cards.states == {0: kept["cuda"]}
