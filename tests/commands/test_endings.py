"""How a command ends that is stopped, or whose output cannot be written; and what nobody may read afterwards."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

from conftest import DIGITS, ROOT, train_py
from experiments.runs import store

TRAIN = [sys.executable, str(ROOT / "train.py")]
TINY = [*DIGITS, "training.epochs=1", "model.filters=2", "model.dense_width=8"]
ENDLESS = [*DIGITS, "training.epochs=100000", "early_stopping.patience=null", "model.filters=2", "model.dense_width=8"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def importing(folder, module, **options):
    """A process of train.py that has just imported a module whose name begins with `module`."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "tracking=none", *TINY]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    for line in process.stderr:
        if line.startswith("import time:") and line.rpartition("|")[2].strip().startswith(module):
            return process
    raise AssertionError(f"{module} was not imported")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["hydra._internal", "torch.nn"])
def test_a_signal_during_the_imports(number, module, tmp_path):
    process = importing(tmp_path, module)
    process.send_signal(number)
    errors = process.communicate()[1]
    said = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert said == ["", "stopped; this continues it:  python train.py tracking=none " + " ".join(TINY)]
    assert process.returncode == 130


def test_before_that_ctrl_c_ends_the_process_at_once(tmp_path):
    process = importing(tmp_path, "experiments.config.schema")
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in errors


def test_signals_that_are_ignored_stay_ignored(tmp_path):
    ignored = (signal.SIGHUP, signal.SIGINT)
    process = importing(
        tmp_path, "hydra._internal", preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored]
    )
    for number in ignored:
        process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 0 and "test/accuracy" in output


def statuses(folder):
    client = store.connect(f"sqlite:///{folder}/mlflow.db")
    return [run.info.status for run in client.search_runs(["1"])]


def test_a_terminal_that_is_closed(tmp_path):
    """The kernel sends SIGHUP, and nothing can be written any more."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*TRAIN, *ENDLESS],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(theirs)
        while not list(tmp_path.glob("outputs/runs/*/checkpoint.pt")):
            os.read(ours, 4096)
        os.close(ours)
    assert process.returncode == 130
    assert statuses(tmp_path) == ["KILLED"] and list(tmp_path.glob("outputs/runs/*/checkpoint.pt"))


@pytest.mark.parametrize(
    ("redirected", "code", "message"),
    [
        (">/dev/full", 1, "No space left on device"),
        (">&-", 1, "the standard output is closed; write it to a file, or to /dev/null"),
        ("| true", 0, "the output was closed: only the output is not complete"),
        ("--help >/dev/full", 1, "No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written(redirected, code, message, tmp_path):
    command = f"set -o pipefail; {sys.executable} -u {ROOT}/train.py tracking=none {' '.join(TINY)} {redirected}"
    if "full" in redirected:
        command = command.replace(" -u ", " ")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code and done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr


def test_a_closed_error_output_is_no_problem(tmp_path):
    command = f"{sys.executable} {ROOT}/train.py tracking=none {' '.join(TINY)} 2>&-"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "test/accuracy" in done.stdout


SECRET = "geheim1"
# A network of the user's own, of which one point of a multirun fails in training as a driver of a database would.
FAILING = f'''
from torch import nn

class Net(nn.Sequential):
    def __init__(self, image_shape, classes, width):
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, classes))
        self.width = width

    def forward(self, images):
        if self.width == 3 and self.training and len(images) > 2:
            secret = bytes.fromhex("{SECRET.encode().hex()}").decode()
            at = f"postgresql://me:a@{{secret}}@127.0.0.1:9/x?user=me&password={{secret}}"
            raise OSError(f"cannot reach {{at}}, nor https://{{secret}}@127.0.0.1:9/x")
        return super().forward(images)
'''


def leaks(folder):
    return [
        str(file)
        for file in folder.rglob("*")
        if SECRET in file.name or (file.is_file() and SECRET.encode() in file.read_bytes())
    ]


def test_passwords_appear_nowhere(mlflow_server, command, tmp_path):
    port, folder = mlflow_server
    server = f"http://me:{SECRET}@127.0.0.1:{port}"  # which ignores the user and the password
    project = tmp_path / "project"
    (project / "own/model").mkdir(parents=True)
    (project / "failing.py").write_text(FAILING)
    (project / "own/model/failing.yaml").write_text("_target_: failing.Net\nwidth: 2\n")
    url = f"https://me:{SECRET}@127.0.0.1:9/data.tar.gz?token={SECRET}"
    for overrides, code in [
        (["-m", "--config-dir=own", "model=failing", "model.width=2,3", *TINY[:-2], f"tracking.uri={server}"], 1),
        ([*TINY, f"tracking.uri={server}"], 0),
        ([*DIGITS, f"tracking.uri={server}", "optimizer=sgd", "optimizer.lr=100"], 1),
        (["data=cifar10", f"'data.urls=[\"{url}\"]'".strip("'"), "tracking=none"], 2),
        (["-m", "seed=1,2", "data=cifar10", f"'data.urls=[\"{url}\"]'".strip("'"), f"tracking.uri={server}"], 2),
        (["-m", "search=cnn", "data=digits", f"hydra.sweeper.storage=postgresql://me:{SECRET}@127.0.0.1:9/x"], 2),
        ([*TINY, f"tracking.uri=mysql://me:{SECRET}@127.0.0.1:9/x"], 2),
        *(([*TINY, f"tracking.uri={server}", *option.split()], 0) for option in ("--help", "--cfg all", "--info all")),
    ]:
        alone = overrides[-2:] == ["--info", "all"]  # printed through handlers that a forked process has already
        done = train_py(*overrides, cwd=project) if alone else command("train.py", *overrides, cwd=project)
        assert done.returncode == code, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert "failing" not in " ".join(overrides) or "nor https://***@127.0.0.1:9/x" in done.stdout  # the reason
    assert leaks(project) == leaks(folder) == [] == leaks(tmp_path)
