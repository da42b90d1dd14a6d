"""The checkpoint of a run."""

from conftest import DIGITS
from experiments.config.loading import compose_config
from experiments.experiment import run


def numbers(result):
    """The final metrics without the time that it took."""
    return {name: value for name, value in result.metrics.items() if name != "seconds"}


def test_a_damaged_checkpoint_is_not_used(here, caplog):
    overrides = [*DIGITS, "tracking=none", "training.epochs=1"]
    first = run(compose_config(overrides))
    (folder,) = here.glob("outputs/runs/*")
    (folder / "results.json").unlink()
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:5000])
    assert numbers(run(compose_config(overrides))) == numbers(first)
    assert "checkpoint.pt is damaged" in caplog.text
