"""Memory that is not enough: what train.py says, and what scripts/find_batch.py finds."""

import os
import re
import resource
import shlex
from pathlib import Path

import pytest
import torch

from conftest import DIGITS, typed
from experiments.analysis.batch_finder import search
from experiments.config.command_line import Command
from experiments.config.loading import compose_config
from experiments.runs import store
from experiments.training.out_of_memory import advice, is_out_of_memory

MORE = 700 << 20  # bytes beside those of a process that has made a small run


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError("Unable to allocate 2.00 GiB for an array"), True),
        (RuntimeError("could not create a primitive"), True),  # of oneDNN
        (RuntimeError("could not create a primitive descriptor for a convolution forward"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_that_memory_is_missing(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_advice_names_the_key_its_value_and_what_would_fit():
    config = compose_config([*DIGITS, "training.batch_size=30", "training.accumulate=4"])
    error = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB"
    assert advice(config, Command(("data=digits", "seed=1")), error) == (
        "out of memory (tried to allocate 2.00 GiB): training.batch_size=30 does not fit; "
        "training.accumulate=8 computes it in parts of 4 images; "
        "this finds the largest batch size that fits:  python scripts/find_batch.py data=digits seed=1"
    )


@pytest.mark.parametrize("first", [2, 3, 32, 700, 1000])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 31, 32, 700, 999, 1000, 5000])
def test_the_search_ends_within_an_eighth_of_the_limit(first, limit):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= limit

    largest, too_large = search(fits, first, 2, 1000)
    assert len(tried) == len(set(tried)) <= 17 and min(tried) >= 2 and max(tried) <= 1000
    if limit < 2:
        assert (largest, too_large) == (0, 2)
    elif limit >= 1000:
        assert (largest, too_large) == (1000, None)
    else:
        assert largest <= limit < too_large and too_large - largest <= max(1, largest // 8)


def with_little_memory(folder, script, arguments):
    """The body of a process: `python SCRIPT ...` that may take `MORE` bytes."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE, used + MORE))
    typed(folder, *arguments, script=script)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory is used")
def test_a_batch_that_does_not_fit_and_the_largest_one_that_does(start, tracked):
    def run(script, *arguments):
        (tracked / "output.txt").unlink(missing_ok=True)
        process = start(with_little_memory, tracked, script, arguments)
        process.join()
        return process.exitcode, (tracked / "output.txt").read_text()

    images = ["data.image_size=64", "data.validation_size=1300"]  # 200 for training
    network = ["model.filters=128", "model.kernel_size=1", "model.dense_width=8"]  # much memory, little computing
    large = [*DIGITS, *images, *network, "training.epochs=1", "training.batch_size=200"]
    code, output = run("train.py", *large)
    message, find = output.splitlines()[-1].split(":  python ")
    assert code == 1 and "Traceback" not in output
    assert message.startswith("out of memory (") and "training.batch_size=200 does not fit" in message
    (failed,) = store.connect("sqlite:///mlflow.db").search_runs(["1"])
    assert failed.info.status == "FAILED" and "training.accumulate=2" in failed.data.tags[store.TAG_FAILURE]

    script, *arguments = shlex.split(find)
    code, output = run(script, *arguments)
    assert code == 0, output
    results = dict(re.findall(r"^training\.batch_size=(\d+): (fits|out of memory)$", output, re.MULTILINE))
    largest = max(int(size) for size, result in results.items() if result == "fits")
    assert results["200"] == "out of memory" and largest > 1
    assert f"python train.py {' '.join(large[:-1])} training.batch_size={largest}\n" in output
