"""One process at a time."""

import pytest

from conftest import DIGITS
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.experiment import run
from experiments.runs.fingerprint import fingerprint
from experiments.runs.lock import locked


def test_of_two_at_once_the_second_names_the_owner(here):
    settings = compose_config([*DIGITS, "tracking=none", "training.epochs=1"])
    splits = load_splits(settings.data)
    identity = fingerprint(settings, "cpu", splits.digest)
    with (
        locked(here / "outputs/runs" / f"{identity[:16]}-untracked", Command()),
        pytest.raises(UserError, match=r"process \d+ on .*, since"),
    ):
        run(settings)
