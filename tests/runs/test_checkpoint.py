"""The checkpoint of a run."""

import hashlib
import io
import shutil

import numpy as np
import pytest
import torch

from conftest import DIGITS
from experiments.config import metrics
from experiments.config.errors import RunFailed
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.membership import Membership
from experiments.experiment import run
from experiments.runs import checkpoint_files, finished
from experiments.runs.checkpoint import State
from experiments.runs.fingerprint import fingerprint

SMALL = [*DIGITS, "model.filters=2", "model.dense_width=8", "early_stopping.patience=null"]


def numbers(result):
    """The final metrics without the time that it took."""
    return {name: value for name, value in result.metrics.items() if name != "seconds"}


@pytest.mark.usefixtures("tracked")
def test_the_metrics_of_the_kept_weights_are_logged(here):
    """Steps so small that the accuracy stays the same: the first epoch is the best one, the last is kept."""
    still = ["tracking=none", "training.epochs=2", "optimizer.lr=1e-9", "early_stopping.monitor=val/accuracy"]
    for restore_best, kept in (("false", 2), ("true", 1)):
        result = run(compose_config([*still, *SMALL, f"early_stopping.restore_best={restore_best}"]))
        for prefix, epoch in (("best", 1), ("kept", kept)):
            expected = metrics.of_epoch(prefix, epoch, result.history[epoch - 1])
            assert expected.items() <= result.metrics.items()
        assert result.history[0]["val/loss"] != result.history[1]["val/loss"]


@pytest.mark.usefixtures("tracked")
def test_a_run_that_was_started_before_a_metric_was_added_continues(here):
    """Its first epoch has no validation accuracy, as if that metric were new."""
    overrides = [*SMALL, "tracking=none", "training.epochs=2", "early_stopping.restore_best=true"]
    with pytest.raises(KeyboardInterrupt):
        run(compose_config(overrides), should_prune=interrupt)
    (path,) = here.glob("outputs/runs/*/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    del state["history"][0]["val/accuracy"]
    written = io.BytesIO()
    torch.save(state, written)
    path.write_bytes(written.getvalue() + hashlib.sha256(written.getvalue()).digest())
    result = run(compose_config(overrides))
    assert result.metrics["kept/epoch"] == 2 and result.metrics["kept/val_accuracy"] > 0
    again = run(compose_config(overrides))  # read from its files
    assert again.metrics == result.metrics and again.history == result.history
    assert "val/accuracy" not in again.history[0] and again.history[1]["val/accuracy"] > 0


def interrupt(epoch, _):
    raise KeyboardInterrupt


def until(last, *overrides):
    """Stop a run of five epochs after epoch `last`, with its checkpoint, as a kill would."""
    settings = compose_config([*SMALL, "training.epochs=5", "tracking=none", *overrides])
    assert run(settings, should_prune=lambda epoch, _: epoch == last).pruned


def content(folder):
    """The weights, and the loss of each epoch, in the checkpoint of the only run in a folder."""
    (path,) = folder.glob("outputs/runs/*/checkpoint.pt")
    saved = torch.load(path, weights_only=True)
    weights = {f"{kind} {key}": value for kind in ("model", "best") for key, value in saved[kind].items()}
    return {key: value.numpy().tobytes() for key, value in weights.items()}, [
        (epoch["train/loss"], epoch["val/loss"]) for epoch in saved["history"]
    ]


@pytest.mark.numbers
def test_no_flipped_bit_of_a_checkpoint_is_believed(tmp_path, monkeypatch, caplog):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    for folder, last in ((cut, 3), (whole, 4)):
        folder.mkdir()
        monkeypatch.chdir(folder)
        until(last)
    expected = content(whole)
    random = np.random.default_rng(888)
    for number in range(20):
        folder = shutil.copytree(cut, tmp_path / str(number))
        monkeypatch.chdir(folder)
        (path,) = folder.glob("outputs/runs/*/checkpoint.pt")
        damaged = bytearray(path.read_bytes())
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        caplog.clear()
        until(4)
        assert content(folder) == expected, number
        (message,) = [record.getMessage() for record in caplog.records if "checkpoint" in record.getMessage()]
        assert "checkpoint.pt is damaged" in message and "the one before it is used" in message


def test_without_any_usable_checkpoint_training_starts_again(here, caplog):
    until(3)
    expected = content(here)
    for path in here.glob("outputs/runs/*/checkpoint*.pt"):
        path.write_bytes(path.read_bytes()[:5000])
    until(3)
    assert content(here) == expected
    assert "checkpoint.pt is damaged" in caplog.text and "training starts from its first epoch" in caplog.text


def test_a_run_that_was_killed_between_two_checkpoints_has_the_first(here):
    until(3)
    expected = content(here)
    (path,) = here.glob("outputs/runs/*/checkpoint.pt")
    path.unlink()  # as between the two steps in which the new one takes its place
    until(3)
    assert content(here) == expected
    assert expected[1] != [] and len(list(path.parent.glob("checkpoint*.pt"))) == 2


def test_a_finished_run_keeps_one_checkpoint(here):
    settings = compose_config([*SMALL, "training.epochs=2", "tracking=none"])
    run(settings)
    (path,) = here.glob("outputs/runs/*/checkpoint*")
    shutil.copy(path, path.with_stem("checkpoint-previous"))  # as when it is killed before it has deleted it
    run(settings)
    assert list(here.glob("outputs/runs/*/checkpoint*")) == [path]


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"test/loss": 0.5', '{"test/loss": 0.5}', b"\xff\xfe\x00"])
def test_damaged_results_of_an_untracked_run_are_not_believed(damage, here, caplog):
    settings = compose_config([*SMALL, "training.epochs=1", "tracking=none"])
    expected = run(settings)
    (path,) = here.glob("outputs/runs/*/results.json")
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    again = run(settings)
    assert numbers(again) == numbers(expected) and again.history == expected.history
    assert "results.json is damaged" in caplog.text


def test_a_changed_digit_in_the_results_of_an_untracked_run_is_not_believed(here, caplog):
    settings = compose_config([*SMALL, "training.epochs=1", "tracking=none"])
    expected = run(settings)
    (path,) = here.glob("outputs/runs/*/results.json")
    text = path.read_text()
    place = text.index("test/accuracy") + len('test/accuracy": 0.')
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    assert numbers(run(settings)) == numbers(expected)
    assert "results.json is damaged" in caplog.text


@pytest.mark.usefixtures("tracked")
def test_a_folder_that_is_deleted_while_a_run_is_trained_is_written_again(here):
    def delete(epoch, _):
        shutil.rmtree("outputs")
        return False

    result = run(compose_config([*SMALL, "training.epochs=2"]), should_prune=delete)
    assert (
        finished.load_run(result.run_id, uri="sqlite:///mlflow.db").metrics["test/loss"] == result.metrics["test/loss"]
    )
    names = {path.name for path in here.glob("outputs/runs/*/artifacts/*")}
    assert {"report.html", "origin.json"} <= names


@pytest.mark.usefixtures("tracked")
def test_a_report_whose_folder_is_deleted_is_written_again(here, monkeypatch):
    write, deleted = Membership.write, []

    def delete_before(membership, path):
        if not deleted:
            deleted.append(shutil.rmtree("outputs"))
        write(membership, path)

    monkeypatch.setattr(Membership, "write", delete_before)
    settings = [*SMALL, "training.epochs=1", "training.label_smoothing=0.1"]  # calibrated
    result = run(compose_config(settings))
    again = run(compose_config([*settings, "tracking=none"]))  # nothing is deleted
    assert again.metrics["temperature"] != 1 and numbers(again) == numbers(result)
    place = f"mlruns/digits/{result.run_id}/artifacts"
    assert {path.name for path in here.glob("outputs/runs/*/artifacts/*")} == {
        path.name for path in here.glob(f"{place}/*")
    }
    assert (here / place / "report.html").exists()


@pytest.mark.usefixtures("tracked")
def test_a_folder_that_is_deleted_in_the_middle_of_a_step_is_named(here, monkeypatch):
    def deleting(*_):
        shutil.rmtree("outputs")
        (here / "outputs" / "gone").read_text()

    monkeypatch.setattr(State, "save", deleting)
    with pytest.raises(RunFailed, match=r"outputs/runs/\w+ was deleted while this run used it; the same command"):
        run(compose_config([*SMALL, "training.epochs=1"]))


def write(path, content):
    """Write a file with the digest of a checkpoint, whatever it holds."""
    written = io.BytesIO()
    torch.save(content, written)
    path.write_bytes(written.getvalue() + hashlib.sha256(written.getvalue()).digest())


@pytest.mark.parametrize("content", [[1, 2], {"format": checkpoint_files.FORMAT}, {"a": torch.nn.Linear}])
def test_a_checkpoint_with_other_content_is_not_used(content, here, caplog):
    overrides = [*SMALL, "tracking=none", "training.epochs=1", "evaluate_test=false"]
    with pytest.raises(KeyboardInterrupt):
        run(compose_config(overrides), should_prune=interrupt)
    (path,) = here.glob("outputs/runs/*/checkpoint.pt")
    write(path, content)
    assert len(run(compose_config(overrides)).history) == 1
    assert f"{path.relative_to(here)} is damaged and not used" in caplog.text


def change(path, **values):
    """Change a checkpoint."""
    write(path, torch.load(path, weights_only=True) | values)


def test_a_run_of_a_gpu_continues_on_a_cpu_and_says_so(tmp_path, monkeypatch, caplog):
    """Its checkpoint is that of a CPU under the name and with the machine of a GPU."""
    here, whole = tmp_path / "here", tmp_path / "whole"
    for folder, last in ((whole, 2), (here, 1)):
        folder.mkdir()
        monkeypatch.chdir(folder)
        until(last)
    (path,) = here.glob("outputs/runs/*/checkpoint.pt")
    saved = torch.load(path, weights_only=True)
    assert saved["random"].keys() == {"cpu"} and saved["machine"]["torch"] == torch.__version__
    gpu = {"device": "cuda", "torch": str(torch.__version__), "GPU": "NVIDIA H100", "cuDNN": "91002"}
    change(path, machine=gpu, random=saved["random"] | {"cuda": saved["random"]["cpu"]})
    shutil.rmtree(here / "outputs/trunks")
    settings = compose_config([*SMALL, "training.epochs=5", "tracking=none"])
    identity = fingerprint(settings, "cuda", load_splits(settings.data).digest)
    path.parent.rename(path.parents[1] / f"{identity[:16]}-untracked")
    caplog.clear()
    until(2)
    assert content(here) == content(whole)
    (message,) = [record.getMessage() for record in caplog.records if "last bits" in record.getMessage()]
    then = "trained so far with device cuda, GPU NVIDIA H100, cuDNN 91002, from here on with device cpu, "
    assert message.startswith(then) and message.endswith(": the last bits may differ")
    (record,) = here.glob("outputs/trunks/*/*.json")
    assert '"threads": 0' in record.read_text()  # no other run takes its epochs for those of this machine
