"""The loop and the sums: early stopping, guards, exactness, determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn import metrics

from experiments import config, training
from experiments.composition import load as compose
from experiments.data import load
from experiments.data.batches import Batches
from experiments.data.images import Images
from experiments.evaluation import Evaluation, evaluate
from experiments.learning import Learner
from experiments.models import build

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


class Silent:
    def step(self, *_):
        pass


def digits(*overrides):
    settings = compose(["data=digits", *overrides])
    return settings, load(settings.data, 1)


def fresh(settings, splits, seed=1):
    torch.manual_seed(seed)
    return build(settings.model, len(splits.classes), splits.image_shape, settings.data.mean, settings.data.std)


def epochs(settings, splits, count, seed=1):
    learner = Learner.of(settings, fresh(settings, splits, seed), splits.train, CPU)
    batches = Batches(splits.train, 32, CPU, settings.training.sampler), Batches(splits.validation, 250, CPU)
    return learner.evaluated, training.train(learner, *batches, range(1, count + 1), Silent())


def test_the_same_seed_gives_the_same_bits():
    settings, splits = digits("model.dropout=0.3")
    results = []
    for seed in (1, 1, 2):
        model, run = epochs(settings, splits, 2, seed)
        losses = [(epoch.train_loss, epoch.validation.loss) for epoch in run]
        results.append((losses, model.state_dict()["network.0.weight"]))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_an_epoch_sees_every_image_once_and_the_last_batch_too():
    _, splits = digits()
    batches = Batches(splits.train[np.arange(101)], 32, CPU, "shuffle")
    torch.manual_seed(0)
    seen = torch.cat([pixels for pixels, _, _ in batches]).numpy()
    assert len(batches) == 4
    assert np.array_equal(
        np.sort(Images(seen, np.zeros(101, int), ()).fingerprints()), np.sort(batches.images.fingerprints())
    )


@pytest.mark.parametrize("batch_size", [1, 7, 297, 1000])
def test_evaluation_is_exact_for_any_batch_size(batch_size):
    settings, splits = digits()
    model = fresh(settings, splits)
    logits = model(torch.from_numpy(splits.test.pixels)).detach()
    labels = torch.tensor(splits.test.labels)
    found = evaluate(model, Batches(splits.test, batch_size, CPU), FP32)
    assert found.loss == pytest.approx(torch.nn.functional.cross_entropy(logits.double(), labels).item(), abs=1e-6)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, logits.argmax(1)))
    assert model.training


def test_numbers_follow_from_the_confusion_matrix():
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 5, 1000), rng.integers(0, 5, 1000)
    found = Evaluation(0.0, metrics.confusion_matrix(true, said))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, said))
    assert found.f1 == pytest.approx(metrics.f1_score(true, said, average=None))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(true, said, average="macro"))
    expected = metrics.classification_report(true, said, target_names=list("abcde"), output_dict=True)
    report = found.report("abcde")
    assert report.keys() == expected.keys()
    assert all(report[name] == pytest.approx(expected[name]) for name in expected)


def test_a_class_without_test_pictures_does_not_lower_macro_f1():
    confusion = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert Evaluation(0.0, confusion).macro_f1 == 1


def test_most_confused():
    confusion = np.array([[9, 2, 0], [7, 9, 1], [0, 0, 9]])
    assert Evaluation(0.0, confusion).most_confused(2) == [(1, 0, 7), (0, 1, 2)]
    assert len(Evaluation(0.0, confusion).most_confused(9)) == 3


def test_the_guard_names_epoch_and_step():
    settings, splits = digits("optimizer=sgd", "optimizer.lr=100")
    _, run = epochs(settings, splits, 3)
    with pytest.raises(training.Diverged, match=r"loss is (nan|inf) in epoch 1, step \d+; try optimizer.lr below 100"):
        list(run)


def stop_after(values, monitor="val/loss", patience=2, min_delta=0.0):
    stopping = training.EarlyStopping(config.EarlyStopping(monitor, patience, min_delta, True))
    for epoch, value in enumerate(values, 1):
        if stopping.update(epoch, {monitor: value}):
            return epoch, stopping.best_epoch
    return None, stopping.best_epoch


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3, 2, 1, 2, 2, 0], {}, (5, 3)),
        ([3, 2, 1], {}, (None, 3)),
        ([3, 3, 3], {}, (3, 1)),
        ([3, 2.9, 2.8, 2.7], {"min_delta": 0.5}, (3, 1)),
        ([0.1, 0.2, 0.1, 0.1], {"monitor": "val/accuracy"}, (4, 2)),
        ([1, 2, 2, 2, 2], {"patience": None}, (None, 1)),
        ([1, 2], {"patience": 0}, (2, 1)),
        ([1, 0.5, 0.6], {"patience": 0}, (3, 2)),
    ],
)
def test_early_stopping(values, options, expected):
    assert stop_after(values, **options) == expected


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
def test_every_optimizer_learns(optimizer):
    settings, splits = digits(f"optimizer={optimizer}")
    _, run = epochs(settings, splits, 2)
    first, second = run
    assert second.train_loss < first.train_loss and second.validation.accuracy > 0.8


def imbalanced():
    """9 pictures of class 0, 90 of class 1, none of class 2."""
    labels = np.repeat([0, 1], [9, 90])
    return Images(np.zeros((99, 3, 8, 8), dtype=np.uint8), labels, ("a", "b", "c"))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    images = imbalanced()
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=images.labels)
    assert images.balancing_weights[:2] == pytest.approx(expected) and images.balancing_weights[2] == 0


def test_the_balanced_sampler_draws_every_class_alike_often():
    torch.manual_seed(0)
    batches = Batches(imbalanced(), 50, CPU, "balanced")
    drawn = torch.cat([labels for _ in range(50) for _, labels, _ in batches])
    assert len(drawn) == 50 * 99 and 0.47 < (drawn == 0).float().mean() < 0.53


@pytest.mark.parametrize("override", ["training.class_weights=balanced", "training.sampler=balanced"])
def test_balancing_finds_more_of_a_rare_class(override):
    """A tenth of the eights: without balancing fewer of those in the test set are found."""
    recalls = []
    _, splits = digits()
    keep = np.flatnonzero((splits.train.labels != 8) | (np.arange(len(splits.train)) % 20 == 0))
    splits = dataclasses.replace(splits, train=splits.train[keep])
    for options in ([], [override]):
        model, run = epochs(compose(["data=digits", *options]), splits, 3)
        list(run)
        recalls.append(evaluate(model, Batches(splits.test, 250, CPU), FP32).recall[8])
    assert recalls[1] > recalls[0] + 0.1
