"""The run that a configuration describes."""

import pytest

from conftest import DIGITS
from experiments.config.command_line import Command
from experiments.config.keys import run_name
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.runs.fingerprint import fingerprint
from experiments.runs.provenance import ParentRun
from experiments.runs.start import started
from experiments.training.devices import choose_device
from experiments.training.learner import initial_model

OVERRIDES = [*DIGITS, "model.filters=4"]


def start(*others, parent=None, command=OVERRIDES):
    config = compose_config([*OVERRIDES, *others])
    splits = load_splits(config.data)
    return started(
        config, Command(tuple(command)), splits, initial_model(config, splits), choose_device(config), parent
    )


@pytest.mark.parametrize("tracking", ["tracking=mlflow", "tracking=none"])
def test_runs_are_named_by_one_rule(here, tracking):
    config = compose_config(OVERRIDES)
    identity = fingerprint(config, choose_device(config).type, load_splits(config.data).digest)
    with start(tracking) as active:
        assert active.tracker.name == run_name(OVERRIDES, identity)
    with start(tracking, "resume=false", parent=ParentRun(None, "filters=4")) as active:
        assert active.tracker.name == "filters=4"
    with start(tracking, "resume=false", "tracking.run_name=mine", parent=ParentRun(None, "filters=4")) as active:
        assert active.tracker.name == "mine"


def test_names_and_overrides_longer_than_mlflow_allows(here):
    from experiments.comparison.loading import to_point
    from experiments.runs import store

    long = [*OVERRIDES, *(f"+model.note{number}='a b'" for number in range(400))]
    with start(command=long) as active:
        assert len(active.tracker.name) == store.MAX_NAME
        point = to_point(active.tracker.client, active.tracker.client.get_run(active.tracker.run_id))
    assert point.overrides == long


def test_who_is_tested(here):
    parent = ParentRun(None, "a")
    for others, above, test in [
        ((), None, True),
        ((), parent, False),
        (("evaluate_test=true",), parent, True),
        (("evaluate_test=false",), None, False),
    ]:
        with start("tracking=none", *others, parent=above) as active:
            assert active.test is test and not active.is_complete
