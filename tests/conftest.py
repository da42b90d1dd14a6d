"""What is slow to make, once per session: files in the official format of CIFAR-10, and one finished run."""

import gc
import multiprocessing
import os
import pickle
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import requests
from proxy import free_port

import unsynced  # noqa: F401
from samples import paint

ROOT = Path(__file__).parents[1]
DIGITS = ("data=digits", "threads=1")
FINISHED = (*DIGITS, "training.epochs=3", "training.label_smoothing=0.1")  # its probabilities are far too low


SLOW = ("commands", "sweep")  # folders of tests that start whole processes


def pytest_configure():
    """Signals that a shell in the background or `nohup` ignores: the processes that tests start must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # still ignored here, but a handler is not inherited by a program


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in SLOW or "finished" in item.fixturenames:  # a whole run is made for it
            item.add_marker("slow")


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # else each full collection looks at everything that was imported: 0.3 s


def train_py(*overrides: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    """`python train.py ...` as a user types it, in the folder `cwd`."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="session")
def start():
    """A function that starts a process with everything imported, so that a kill hits the work and not the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])

    def begin(target, *arguments):
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # for the server of the processes
        first = begin(check_preloaded)
        first.join()  # the imports
    assert first.exitcode == 0
    return begin


def check_preloaded():
    """The server ignores it if it cannot import a module."""
    sys.exit("preloaded" not in sys.modules)


def typed(folder, *arguments, script="train.py", errors="output.txt"):
    """The body of a process: `python SCRIPT ...` in `folder`, leading a process group; its output is in output.txt."""
    os.setsid()
    os.chdir(folder)
    for name, stream in (("output.txt", 1), (errors, 2)):
        with open(name, "a") as file:  # noqa: PTH123
            os.dup2(file.fileno(), stream)
    sys.dont_write_bytecode = True  # of the files of a test, in whose folder nothing may be left
    sys.argv = [str(ROOT / script), *map(str, arguments)]
    runpy.run_path(sys.argv[0], run_name="__main__")


def typed_script(script, folder, arguments):
    typed(folder, *arguments, script=script, errors="errors.txt")


def kill_group(process):
    """SIGKILL for a process that was started by `start`, and for all that it has started, unless it has ended."""
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is not yet so far that it leads a group
            process.kill()
        process.join()


@pytest.fixture(scope="session")
def command(start):
    """A function that runs `python SCRIPT ...` in a folder, without waiting for the imports; returns what `subprocess.run` does."""

    def run(script, *arguments, cwd):
        process = start(typed_script, script, cwd, arguments)
        process.join()
        output, errors = ((cwd / name).read_text() for name in ("output.txt", "errors.txt"))
        for name in ("output.txt", "errors.txt"):
            (cwd / name).unlink()
        return subprocess.CompletedProcess([script, *arguments], process.exitcode, output, errors)

    return run


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The file of an MLflow store without runs: making its tables takes seconds."""
    from experiments.runs import store

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.connect(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def ready_store(empty_store):
    """A function that puts an MLflow store without runs in a folder, and returns its address."""

    def put(folder):
        shutil.copy(empty_store, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return put


@pytest.fixture(scope="session")
def mlflow_server(ready_store, tmp_path_factory):
    """(port, folder) of an MLflow server: it starts slowly."""
    folder = tmp_path_factory.mktemp("mlflow_server")
    ready_store(folder)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    quick = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six more processes, which nothing here uses
    with (folder / "server.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=quick, stdout=output, stderr=output, start_new_session=True)
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
            break
        except requests.ConnectionError:
            assert process.poll() is None
    yield port, folder
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


@pytest.fixture(scope="session")
def multirun(start, ready_store):
    """A function that types `python train.py -m ...` in a folder and waits; returns the exit code and the output."""

    def run(folder, *arguments):
        if not (folder / "mlflow.db").exists() and "tracking=none" not in arguments:
            ready_store(folder)
        (folder / "output.txt").unlink(missing_ok=True)
        process = start(typed, folder, "-m", *arguments)
        process.join()
        return process.exitcode, (folder / "output.txt").read_text()

    return run


def family(folder):
    """(client, the parent, its children by name) of the only multirun of this folder."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    (above,) = [run for run in runs if "sweep" in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == above.info.run_id]
    assert len(runs) == len(children) + 1
    return client, above, {run.info.run_name: run for run in children}


@pytest.fixture(scope="session")
def finished(command, ready_store, tmp_path_factory):
    """(folder, output) of `python train.py data=digits` with three epochs and smoothed labels."""
    folder = tmp_path_factory.mktemp("finished")
    ready_store(folder)
    done = command("train.py", *FINISHED, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def store(finished, tmp_path_factory):
    """The address of a copy of the finished run's store, which the tests of a module may add to."""
    copy = tmp_path_factory.mktemp("store") / "mlflow.db"
    shutil.copy(finished[0] / "mlflow.db", copy)
    return f"sqlite:///{copy}"


@pytest.fixture(scope="module")
def trained(store):
    """The finished run, loaded from that store."""
    from experiments.runs.finished import load_run

    return load_run("best", uri=store)


@pytest.fixture(scope="module")
def test_images(trained):
    """The test set of the finished run."""
    return trained.splits().test


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tracked(here, ready_store):
    """A working directory with an MLflow store without runs."""
    ready_store(here)
    return here


@pytest.fixture
def picture_folder(tmp_path):
    """10 pictures of cats and 20 of dogs."""
    paint(tmp_path / "pictures", "cat", 10, 0)
    paint(tmp_path / "pictures", "dog", 20, 100)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory):
    """A folder laid out like the official CIFAR-10, with random pixels."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (10_000, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": rng.integers(0, 10, 10_000).tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"class{number}".encode() for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return root
