"""What other systems lack or forbid, as far as Linux can show it."""

import re
import subprocess
import sys

from conftest import ROOT

# Windows has none of these. Python's own modules, and those of others, have read what they need before.
WITHOUT = """
import os, runpy, signal, sys, time
import concurrent.futures.process, filelock, hydra, multiprocessing.synchronize, subprocess, torch
for module, names in (
    (os, "fork getuid sched_getaffinity sysconf wait4"),
    (signal, "SIGHUP SIGALRM SIGUSR1 SIGUSR2 alarm setitimer pthread_kill"),
    (time, "clock_gettime"),
):
    for name in names.split():
        delattr(module, name)
sys.argv = ["train.py", "data=digits", "model.filters=2", "model.dense_width=4", "training.epochs=1", "tracking=none"]
runpy.run_path(TRAIN, run_name="__main__")
"""


def test_a_run_needs_nothing_that_windows_lacks(tmp_path):
    command = [sys.executable, "-c", WITHOUT.replace("TRAIN", repr(str(ROOT / "train.py")))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout


FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)  # by Windows


def check_names(paths):
    names = {part for path in paths for part in path.parts}
    assert names and not [name for name in names if FORBIDDEN.search(name)]
    assert len({str(path).casefold() for path in paths}) == len(paths)  # neither macOS tells these apart


def test_every_file_has_a_name_that_all_systems_allow(finished):
    check_names([path.relative_to(finished[0]) for path in finished[0].rglob("*")])


def test_every_file_of_the_project_has_such_a_name():
    folders = ("conf", "docs", "scripts", "src", "tests")
    check_names([path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*")])
