"""Words that agree with their number, on the terminal."""

import torch

from conftest import DIGITS
from experiments.config.loading import compose_config
from experiments.config.wording import counted
from experiments.data import load_splits
from experiments.reports import terminal


def test_one_of_a_thing_is_singular(capsys):
    config = compose_config([*DIGITS, "training.epochs=1", "early_stopping.patience=1"])
    terminal.show_start(config, load_splits(config.data), torch.device("cpu"))
    shown = capsys.readouterr().out
    for part in (
        "at most 1 epoch,",
        "1 epoch without",
        f"cpu ({counted(torch.get_num_threads(), 'thread')})",
        "10 classes",
    ):
        assert part in shown
