"""The speed record, airbench94_muon.py (Jordan, 2024), unchanged, on the same images: its first runs, without the one that warms up.

It is not part of this project, see `gpu.py`. The last line is JSON: [[seconds since the start of the program, test accuracy,
seconds that it counts itself], ...], one element per run. It counts training and the last evaluation, not loading and compiling.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from stopwatch import read

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def main(program: str, data: str, runs: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        save_images(data, Path(folder, "cifar10"))
        started = time.perf_counter()
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, program], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        try:
            found = [(time.perf_counter() - started, *result) for result in islice(results(process.stdout), runs)]
        finally:
            process.kill()  # it would go on for 200 runs
            process.wait()
    if len(found) < runs:
        sys.exit(f"{program} ended after {len(found)} of {runs} runs")
    print("\n" + json.dumps(found))


def results(lines: Iterable[str]) -> Iterator[tuple[float, float]]:
    """(test accuracy, seconds) of each run, from its table: | run | epoch | ... | tta_val_acc | time_seconds |."""
    columns, run = [""], ""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "tta_val_acc" in cells:
            columns = cells
        row = dict(zip(columns, cells))
        run = row.get("run") or run  # only in the first row of a run
        if row.get("epoch") == "eval" and run != "warmup":
            yield float(row["tta_val_acc"]), float(row["time_seconds"])


def save_images(data: str, folder: Path) -> None:
    """The files in which it keeps CIFAR-10, so that it downloads nothing."""
    folder.mkdir()
    for name, parts in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("test", ["test_batch"])):
        pixels, labels = map(torch.from_numpy, read(data, *parts))
        torch.save({"images": pixels.contiguous(), "labels": labels, "classes": CLASSES}, folder / f"{name}.pt")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
