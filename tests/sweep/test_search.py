"""A search: no trial twice, as many as asked for, and the same trials whether it was interrupted or not."""

import math
import os
import random
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Integer
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from conftest import DIGITS, family, kill_group, typed
from experiments.comparison.points import Point
from experiments.config import UserError
from experiments.config.composition import CONF
from experiments.sweep.budget import Budget
from experiments.sweep.rungs import Rungs, Time
from experiments.sweep.samplers import Spec
from experiments.sweep.space import combinations, lowest, parse_space
from experiments.sweep.study import Study
from experiments.sweep.workers import worker_heartbeat

SPACE = ["a=interval(0.0,1.0)", "b=range(1,9)", "c=tag(log,interval(1e-4,1.0))"]
UNLIMITED = Budget(Path(), math.inf, math.inf)
RUNGS = "experiments.sweep.rungs.Rungs"
SPACE_OF_NETWORKS = ["hydra/sweeper=optuna", "model.filters=range(4,9)", "optimizer.lr=tag(log,interval(1e-5,1e-1))"]
SEARCH = [*DIGITS, *SPACE_OF_NETWORKS, "hydra.sweeper.n_trials=6", "hydra/sweeper/pruner=median"]
SEARCH += ["hydra.sweeper.pruner.n_startup_trials=2", "training.epochs=3", "early_stopping.patience=null"]


def spec(folder, sampler="TPESampler", pruner="optuna.pruners.NopPruner", n_trials=12, ranges=SPACE, **settings):
    seeded = {"_target_": f"optuna.samplers.{sampler}", "seed": 3}
    pruning = {"_target_": pruner, **settings}
    return Spec(
        "s", f"sqlite:///{folder}/o.db", seeded, pruning, parse_space(ranges)[0], n_trials, ("val/accuracy",), folder
    )


def run_search(spec, chance=0.0):
    """(parameters, state and value per point; number of trials) of a search whose worker dies with this chance per epoch."""
    moments = random.Random(1)
    while True:
        study = Study(spec, UNLIMITED)
        study.fill_queue(others=False)
        with worker_heartbeat(spec.folder) as worker:
            while claimed := study.claim(worker):
                point = train_point(study, claimed, lambda: moments.random() < chance)
                if point is None:
                    break
                study.finish(claimed, point)
            else:
                if not study.promote():
                    break
    trials = trials_in(f"{spec.folder}/o.db")
    latest = {trial.user_attrs["point"]: (trial.params, trial.state.name, trial.value) for trial in trials}
    return latest, len(trials)


def train_point(study, claimed, dies):
    """A point of four epochs that needs no network; None where the worker died."""
    height = (
        1 - (claimed.params["a"] - 0.3) ** 2 - abs(math.log10(claimed.params["c"]) + 2) / 10 - claimed.params["b"] / 50
    )
    history = {"val/accuracy": [], "val/loss": []}
    for epoch in range(1, 5):
        if dies():
            return None
        history["val/accuracy"].append(height - 1 / (epoch + 1))
        history["val/loss"].append(1 - height)
        if study.report(claimed, epoch, history["val/accuracy"][-1]):
            return Point("", "", "pruned", {}, history, {})
    return Point("", "", "finished", {}, history, {"best/epoch": 4})


def trials_in(path):
    storage = RDBStorage(f"sqlite:///{path}")
    (study,) = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


@pytest.mark.parametrize(
    ("sampler", "pruner", "settings"),
    [
        ("TPESampler", "optuna.pruners.SuccessiveHalvingPruner", {"reduction_factor": 2}),
        ("CmaEsSampler", "optuna.pruners.HyperbandPruner", {"max_resource": 4}),
        ("RandomSampler", "optuna.pruners.MedianPruner", {"n_startup_trials": 2}),
        ("TPESampler", RUNGS, {"epochs": 4}),
        ("QMCSampler", RUNGS, {"epochs": 4, "reduction_factor": 2}),
    ],
)
def test_an_interrupted_search_continues_with_the_same_trials(sampler, pruner, settings, tmp_path):
    for name in ("uncut", "cut"):
        (tmp_path / name).mkdir()
    uncut, count = run_search(spec(tmp_path / "uncut", sampler, pruner, **settings))
    cut, tries = run_search(spec(tmp_path / "cut", sampler, pruner, **settings), chance=0.1)
    assert cut == uncut and len(uncut) == 12 <= count < tries
    states = Counter(trial.state.name for trial in trials_in(tmp_path / "cut/o.db"))
    assert states["FAIL"] == tries - count and states["PRUNED"] > 0 and states["RUNNING"] == states["WAITING"] == 0


def test_rungs_promote_the_best_third_rounded_up(tmp_path):
    trials, attempts = run_search(spec(tmp_path, "QMCSampler", RUNGS, epochs=4, reduction_factor=2))
    by_end = {}
    for trial in trials_in(tmp_path / "o.db"):
        by_end.setdefault(max(trial.intermediate_values), {})[trial.user_attrs["point"]] = trial
    first, second, last = (by_end[end] for end in (1, 2, 4))
    assert (len(first), len(second), len(last)) == (12, 6, 3) and attempts == 21
    for above, below, epoch in ((first, second, 1), (second, last, 2)):
        chosen = sorted(above, key=lambda point: -above[point].intermediate_values[epoch])[: len(below)]
        assert set(chosen) == below.keys()
    assert Counter(state for _, state, _ in trials.values()) == {"PRUNED": 9, "COMPLETE": 3}


def waiting_trials(values, rung=0, seconds=1.0):
    """Trials that wait after one epoch of a rung, one per value."""
    notes = {"rung": rung, "val/loss": [1.0], "epoch_seconds": [seconds]}
    paused = {"state": TrialState.PRUNED, "user_attrs": notes}
    return {point: create_trial(intermediate_values={1: value}, **paused) for point, value in enumerate(values)}


def test_a_budget_decides_how_many_trials_go_on():
    rungs, trials = Rungs(epochs=9), waiting_trials([0.3, 0.5, 0.4, 0.1, 0.2])

    def promoted(left, workers=1, sign=1, among=trials, finishing=()):
        return rungs.promoted(among, sign, Time(left=left, workers=workers, around=2.0), finishing)

    # to epoch 3: 2 + 2 s, from there to the end: 2 + 6 s, which one of three does
    assert promoted(20.1) == {1: False, 2: False}  # the best third, rounded up
    assert promoted(12.1) == {1: False}
    assert promoted(11.9) == {1: False}  # it reaches its next rung, and then trains as long as the time lasts
    assert promoted(14.0, sign=-1) == {3: False, 4: False}
    above = {point: waiting_trials([0.5] * 3, rung=1)[point] for point in (1, 2)}
    assert promoted(12.1, among=trials | above) == {1: True}
    assert promoted(8.0, among=trials | above) == {1: True}  # it does not end in time
    assert promoted(12.1, among=trials | above, finishing=[1]) == {2: True}
    assert promoted(20.1, workers=2, among=trials | above, finishing=[1, 2]) == {0: False, 4: False, 3: False}


def test_a_better_trial_that_does_not_end_in_time_is_trained_instead_of_a_faster_one():
    slow, fast = waiting_trials([0.7, 0.6], rung=1, seconds=20.0), waiting_trials([0.1, 0.1, 0.5], rung=1)
    trials = slow | {2: fast[2]}
    assert Rungs(epochs=9).promoted(trials, 1, Time(left=60.0, workers=1, around=2.0)) == {0: True}
    assert Rungs(epochs=9).promoted(trials, 1, Time(left=60.0, workers=2, around=2.0)) == {0: True, 1: True}
    later = Rungs(epochs=9).promoted(trials, 1, Time(left=20.0, workers=1, around=2.0), finishing=[0])
    assert later == {2: True}  # the second best has no time for an epoch


def test_new_trials_have_a_third_of_the_time():
    rungs = Rungs(epochs=9)
    assert rungs.has_room([], Time(left=1.0, workers=1, around=2.0))
    assert not rungs.has_room([], Time(left=0.0, workers=1, around=2.0))
    first = list(waiting_trials([0.1, 0.2, 0.3]).values())  # 9 of 36 seconds, and the next one takes 3
    assert rungs.has_room(first, Time(left=27.1, workers=1, around=2.0))
    assert not rungs.has_room(first, Time(left=26.9, workers=1, around=2.0))
    assert rungs.has_room(first[:1], Time(left=15.1, workers=1, around=2.0))  # one more, and then one to its end
    slow = list(waiting_trials([0.1], seconds=60.0).values())  # one more, and then one to its end: 544 s
    assert not rungs.has_room(slow, Time(left=500.0, workers=1, around=2.0))
    assert rungs.has_room(slow, Time(left=400.0, workers=1, around=2.0))  # none fits: the best one is cut short
    assert not rungs.has_room(slow, Time(left=120.0, workers=1, around=2.0))


def test_where_no_training_fits_the_best_trial_is_cut_short():
    rungs, trials = Rungs(epochs=9), waiting_trials([0.3, 0.5, 0.4], seconds=60.0)

    def promoted(left, among=trials, **settings):
        return rungs.promoted(among, 1, Time(left=left, workers=1, around=2.0), **settings)

    assert promoted(100.0) == {1: True}  # its next rung takes 122 s
    assert promoted(1.0) == {1: True}  # finished as it is
    assert promoted(1.0, finishing=[1]) == {}
    assert promoted(100.0, finishing=[1]) == {}
    assert promoted(0.0) == {}
    ended = trials | {4: create_trial(state=TrialState.COMPLETE, value=0.4)}
    assert promoted(100.0, among=ended) == promoted(100.0, among=ended, finishing=[4]) == {}


def test_the_number_of_trials_is_the_total_also_when_it_grows(tmp_path):
    first, _ = run_search(spec(tmp_path, n_trials=5))
    more, count = run_search(spec(tmp_path, n_trials=8))
    assert count == 8 and {number: more[number] for number in range(5)} == first
    assert run_search(spec(tmp_path, n_trials=6)) == (more, 8)


def test_a_point_that_kills_its_worker_again_and_again_is_given_up(tmp_path):
    study = Study(spec(tmp_path, n_trials=2), UNLIMITED)
    study.fill_queue(others=False)
    claimed = []
    while study.open:
        with worker_heartbeat(tmp_path) as worker:
            claimed.append(study.claim(worker))
            if claimed[-1].point == 1:
                study.finish(claimed[-1], train_point(study, claimed[-1], lambda: False))
        study.fail_stale(others=False)
    assert [one.point for one in claimed] == [0, 0, 0, 1]
    assert study.died == [claimed[0].params] and not study.has_running


def test_the_order_of_the_ranges_does_not_change_the_trials(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole, _ = run_search(spec(tmp_path / "one", "RandomSampler"))
    run_search(spec(tmp_path / "two", "RandomSampler", n_trials=5))
    assert run_search(spec(tmp_path / "two", "RandomSampler", ranges=SPACE[::-1])) == (whole, 12)


def test_a_grid_tries_every_combination_once(tmp_path):
    ranges = ["a=0.1,0.5", "b=range(1,4)", "c=0.01,0.1"]
    found, count = run_search(spec(tmp_path, "GridSampler", n_trials=100, ranges=ranges))
    assert count == 12 and len({tuple(params.items()) for params, _, _ in found.values()}) == 12
    assert combinations(parse_space(["a=range(0,1,0.25)", "b=x,y"])[0]) == [
        {"a": a, "b": b} for a in (0, 0.25, 0.5, 0.75) for b in "xy"
    ]
    with pytest.raises(UserError, match="a: is continuous"):
        combinations(parse_space(SPACE)[0])


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("1,2", Categorical((1, 2))),
        ("x,'y z',true,1.5", Categorical(("x", "'y z'", True, 1.5))),
        ("[1,2],[3]", Categorical(("[1,2]", "[3]"))),
        ("range(1,9)", Integer(1, 8)),
        ("range(9,1,-2)", Integer(3, 9, step=2)),
        ("range(0.1,0.95,0.1)", Float(0.1, 0.9, step=0.1)),
        ("range(1,0,-0.3)", Float(0.1, 1.0, step=0.3)),
        ("int(range(1,3,0.5))", Categorical((1, 1, 2, 2))),
        ("interval(0,1)", Float(0, 1)),
        ("int(interval(1,9))", Integer(1, 9)),
        ("tag(log,int(interval(1,9)))", Integer(1, 9, log=True)),
        ("tag(log,interval(1e-4,1))", Float(1e-4, 1, log=True)),
    ],
)
def test_a_range_becomes_a_distribution(text, distribution):
    assert parse_space([f"a={text}", "b=3"]) == ({"a": distribution}, ["b=3"])


@pytest.mark.parametrize("text", ["range(4,1)", "range(1,1)", "range(1,4,0)", "range(1.0,4,0)", "interval(4,1)"])
def test_an_empty_range_is_a_mistake(text):
    with pytest.raises(UserError, match="is not a search range"):
        parse_space([f"a={text}"])


def claim_all(folder):
    """The body of a worker: claims trials until there is none."""
    study = Study(spec(folder, "RandomSampler", n_trials=60), UNLIMITED)
    with worker_heartbeat(folder) as worker, open(folder / f"{os.getpid()}.txt", "w") as file:  # noqa: PTH123
        while claimed := study.claim(worker):
            file.write(f"{claimed.point}\n")
            study.finish(claimed, Point("", "", "finished", {}, {"val/accuracy": [0.5]}, {"best/epoch": 1}))


def test_two_processes_claim_no_trial_twice(start, tmp_path):
    Study(spec(tmp_path, n_trials=60), UNLIMITED).fill_queue(others=False)
    workers = [start(claim_all, tmp_path) for _ in range(2)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    claimed = [path.read_text().split() for path in tmp_path.glob("[0-9]*.txt")]
    assert all(claimed) and sorted(int(point) for points in claimed for point in points) == list(range(60))


@pytest.fixture(scope="module")
def found(multirun, tmp_path_factory):
    """(folder, output) of a finished search of six trials with pruning."""
    folder = tmp_path_factory.mktemp("search")
    code, output = multirun(folder, *SEARCH)
    assert code == 0, output
    return folder, output


def test_a_pruned_trial_is_marked_in_mlflow_and_in_optuna(found):
    _, above, below = family(found[0])
    trials = trials_in(found[0] / "outputs/optuna.db")
    states = Counter(trial.state.name for trial in trials)
    assert len(below) == len(trials) == 6 and states["PRUNED"] > 0 and states["PRUNED"] + states["COMPLETE"] == 6
    pruned = [run for run in below.values() if "pruned" in run.data.tags]
    assert len(pruned) == states["PRUNED"] and {run.info.status for run in pruned} == {"KILLED"}
    for run in pruned:
        (trial,) = [trial for trial in trials if trial.user_attrs["run_id"] == run.info.run_id]
        assert run.data.tags["pruned"] == f"after epoch {max(trial.intermediate_values)}"
        assert f"{run.info.run_name}  val/accuracy" in found[1] and f"pruned {run.data.tags['pruned']}" in found[1]
    assert above.data.tags["test_set_evaluations"] == "1" and above.info.status == "FINISHED"


def test_a_search_killed_in_training_continues_its_runs(found, start, multirun, ready_store, tmp_path):
    moments = random.Random(1)
    ready_store(tmp_path)
    for _ in range(2):
        process = start(typed, tmp_path, "-m", *SEARCH)
        process.join(moments.uniform(2, 5))
        kill_group(process)
    code, output = multirun(tmp_path, *SEARCH)
    assert code == 0, output
    uncut, cut = family(found[0])[2], family(tmp_path)[2]
    kept = ("best/val_loss", "val/loss", "test/loss")
    assert {name: [run.data.metrics.get(key) for key in kept] for name, run in cut.items()} == {
        name: [run.data.metrics.get(key) for key in kept] for name, run in uncut.items()
    }
    assert {name: run.data.tags.get("pruned") for name, run in cut.items()} == {
        name: run.data.tags.get("pruned") for name, run in uncut.items()
    }
    client, above, _ = family(tmp_path)
    winner = above.data.tags["winner"]
    client.set_tag(
        winner, "test_set_evaluations", "0"
    )  # killed between two commits: the test is stored, its count is not
    client.update_run(above.info.run_id, status="RUNNING")
    assert multirun(tmp_path, *SEARCH)[0] == 0
    assert client.get_run(winner).data.tags["test_set_evaluations"] == "1"


AUTO = [*DIGITS, "search=auto", "hydra.sweeper.n_trials=4", "training.epochs=3", "early_stopping.patience=null"]


def test_promoted_trials_continue_their_runs(multirun, command, tmp_path):
    tiny = ["model.filters=4", "model.dense_width=8", "resume=false"]
    code, output = multirun(tmp_path, *AUTO, *tiny)
    assert code == 0, output
    client, above, below = family(tmp_path)
    epochs = {name: len(client.get_metric_history(run.info.run_id, "val/loss")) for name, run in below.items()}
    after_one = {
        name: client.get_metric_history(run.info.run_id, "val/accuracy")[0].value for name, run in below.items()
    }
    promoted = {name for name, count in epochs.items() if count == 3}
    assert sorted(epochs.values()) == [1, 1, 3, 3] and above.data.tags["test_set_evaluations"] == "1"
    assert min(after_one[name] for name in promoted) >= max(after_one[name] for name in below.keys() - promoted)
    assert {name for name, run in below.items() if run.info.status == "FINISHED"} == promoted
    assert {run.data.tags.get("pruned") for name, run in below.items() if name not in promoted} == {"after epoch 1"}
    winner = client.get_run(above.data.tags["winner"])
    printed = re.search(r"train it: +python (.*)", output)[1]
    done = command(*shlex.split(printed), cwd=tmp_path)  # found as finished
    assert done.returncode == 0 and f"{winner.data.metrics['test/accuracy']:.4f}" in done.stdout, done.stdout
    scratch = command(*shlex.split(printed), "resume=false", cwd=tmp_path)
    assert scratch.returncode == 0
    again = client.search_runs(["1"], f"tags.fingerprint = '{winner.data.tags['fingerprint']}'")
    assert len({run.data.metrics["test/loss"] for run in again}) == 1 < len(again)


@pytest.mark.numbers
def test_a_budget_too_short_for_one_training_still_has_a_winner(multirun, tmp_path):
    search = [*DIGITS, "hydra/sweeper=optuna", "hydra/sweeper/pruner=rungs", "hydra.sweeper.n_trials=100"]
    search += ["model.filters=range(4,9)", "training.epochs=100000", "early_stopping.patience=null"]
    code, output = multirun(tmp_path, *search, "sweep.budget=30s")
    assert code == 0 and "the best trial was trained while the time lasted" in output, output
    client, _, children = family(tmp_path)
    (ended,) = (run for run in children.values() if run.info.status == "FINISHED")
    assert "test/accuracy" in ended.data.metrics
    assert len(client.get_metric_history(ended.info.run_id, "val/loss")) > 1


def test_two_terminals_share_a_search(start, ready_store, tmp_path):
    ready_store(tmp_path)
    shared = [*DIGITS, "-m", *SPACE_OF_NETWORKS, "hydra.sweeper.n_trials=5", "training.epochs=1", "sweep.join=true"]
    both = [start(typed, tmp_path, *shared) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0, (tmp_path / "output.txt").read_text()
    _, above, below = family(tmp_path)
    trials = trials_in(tmp_path / "outputs/optuna.db")
    assert len(below) == len(trials) == 5 and {trial.state.name for trial in trials} == {"COMPLETE"}
    assert above.info.status == "FINISHED" and above.data.tags["test_set_evaluations"] == "1"


def test_several_objectives_have_a_front(multirun, tmp_path):
    two = ["sweep.objectives=[val/accuracy,parameters]", "hydra/sweeper/sampler=grid", "hydra/sweeper=optuna"]
    code, output = multirun(tmp_path, *DIGITS, *two, "model.filters=2,8", "training.epochs=1")
    assert code == 0, output
    assert "parameters" in output and list(tmp_path.glob("outputs/sweeps/*/report/figures/pareto.png"))
    assert all(len(trial.values) == 2 for trial in trials_in(tmp_path / "outputs/optuna.db"))


def test_a_storage_without_a_driver_is_a_mistake(multirun, tmp_path):
    storage = "hydra.sweeper.storage=postgresql+nothing://x/y"
    code, output = multirun(tmp_path, "data=digits", "hydra/sweeper=optuna", "seed=1,2", storage)
    assert code == 2 and storage in output and "Traceback" not in output
    assert not list(tmp_path.glob("outputs/runs"))


@pytest.mark.parametrize("sweeper", ["basic", "optuna"])
def test_a_key_that_every_swept_choice_has_can_be_fixed(sweeper, multirun, tmp_path):
    tiny = [*DIGITS, "training.epochs=1", "model.filters=2", "model.dense_width=8"]
    grid = ["hydra/sweeper/sampler=grid"] if sweeper == "optuna" else []
    arguments = [f"hydra/sweeper={sweeper}", *grid, "optimizer=sgd,muon", "optimizer.momentum=0.8", "++seed=1,2"]
    code, output = multirun(tmp_path, *tiny, *arguments)
    assert code == 0, output
    children = family(tmp_path)[2]
    assert children.keys() == {f"optimizer={name} seed={seed}" for name in ("sgd", "muon") for seed in (1, 2)}
    runs = children.values()
    assert {run.data.params["optimizer.name"] for run in runs} == {"sgd", "muon"}
    assert {run.data.params["optimizer.momentum"] for run in runs} == {"0.8"}


def test_a_choice_keeps_its_quotes():
    for name in ("d/\u00fcml\u00e4ut", "a, b", "2024_01", "a=b"):
        space, _ = parse_space([f'data.root=choice("{name}","d/plain")'])
        (override,) = OverridesParser.create().parse_overrides(lowest(space))
        assert override.value() == name


@pytest.mark.parametrize("preset", [file.stem for file in (CONF / "search").glob("*.yaml")])
def test_every_preset_searches(preset, multirun, tmp_path):
    code, output = multirun(tmp_path, *DIGITS, f"search={preset}", "hydra.sweeper.n_trials=1", "training.epochs=1")
    assert code == 0, output


@pytest.mark.parametrize("kind", ["sampler", "pruner"])
def test_every_sampler_and_pruner_can_be_chosen(kind, tmp_path):
    import yaml

    for number, file in enumerate((CONF / "hydra/sweeper" / kind).glob("*.yaml")):
        chosen = yaml.safe_load(file.read_text().replace("${seed}", "3").replace("${training.epochs}", "4"))
        folder = tmp_path / str(number)
        folder.mkdir()
        ranges = ["a=0.1,0.5", "b=range(1,4)", "c=0.01,0.1"]
        sampler = chosen if kind == "sampler" else {"_target_": "optuna.samplers.RandomSampler", "seed": 3}
        pruner = chosen if kind == "pruner" else {"_target_": "optuna.pruners.NopPruner"}
        choice = Spec(
            "s", f"sqlite:///{folder}/o.db", sampler, pruner, parse_space(ranges)[0], 4, ("val/accuracy",), folder
        )
        assert len(run_search(choice)[0]) == 4
