"""The loop and the sums: early stopping, guards, exactness, determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchvision.transforms.v2.functional import resize

from experiments import config
from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_splits
from experiments.data.batches import Batches
from experiments.data.images import Images
from experiments.models.build import build
from experiments.training import early_stopping, loop
from experiments.training.evaluation import Evaluation, evaluate, predict, views
from experiments.training.learner import Learner, cross_entropy, initial_model, training_batches

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


class Silent:
    def step(self, *_):
        pass


def digits(*overrides):
    settings = compose_config(["data=digits", "data.seed=1", *overrides])
    return settings, load_splits(settings.data)


def fresh(settings, splits, seed=1):
    torch.manual_seed(seed)
    return build(settings, len(splits.classes))


def epochs(settings, splits, count, seed=1):
    learner = Learner.create(settings, fresh(settings, splits, seed), splits.train, CPU)
    batches = Batches(splits.train, 32, CPU, settings.training.sampler), Batches(splits.validation, 250, CPU)
    return learner.eval_model, loop.train(learner, *batches, range(1, count + 1), Silent())


def test_the_same_seed_gives_the_same_bits():
    settings, splits = digits("model.dropout=0.3")
    results = []
    for seed in (1, 1, 2):
        model, run = epochs(settings, splits, 2, seed)
        losses = [(epoch.train_loss, epoch.validation.loss) for epoch in run]
        results.append((losses, model.state_dict()["network.0.weight"]))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_an_epoch_has_every_image_once_also_those_of_the_last_batch():
    _, splits = digits()
    batches = Batches(splits.train[np.arange(101)], 32, CPU, "shuffle")
    torch.manual_seed(0)
    seen = torch.cat([pixels for pixels, _, _ in batches]).numpy()
    assert len(batches) == 3
    assert np.array_equal(
        np.sort(Images(seen, np.zeros(101, int), ()).pixel_hashes()), np.sort(batches.images.pixel_hashes())
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
    true, predicted = rng.integers(0, 5, 1000), rng.integers(0, 5, 1000)
    found = Evaluation(0.0, metrics.confusion_matrix(true, predicted))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found.f1 == pytest.approx(metrics.f1_score(true, predicted, average=None))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    expected = metrics.classification_report(true, predicted, target_names=list("abcde"), output_dict=True)
    report = found.report("abcde")
    assert report.keys() == expected.keys() | {"macro_f1"}
    assert all(report[name] == pytest.approx(expected[name]) for name in expected)


def test_a_class_without_test_images_does_not_lower_macro_f1():
    confusion = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 0]])
    assert Evaluation(0.0, confusion).macro_f1 == 1


def test_most_confused():
    confusion = np.array([[9, 2, 0], [7, 9, 1], [0, 0, 9]])
    assert Evaluation(0.0, confusion).most_confused(2) == [(1, 0, 7), (0, 1, 2)]
    assert len(Evaluation(0.0, confusion).most_confused(9)) == 3


def test_the_guard_names_epoch_and_step():
    settings, splits = digits("optimizer=sgd", "optimizer.lr=100")
    _, run = epochs(settings, splits, 3)
    with pytest.raises(loop.Diverged, match=r"loss is (nan|inf) in epoch 1, step \d+; try optimizer.lr below 100"):
        list(run)


def stop_after(values, monitor="val/loss", patience=2, min_delta=0.0):
    stopping = early_stopping.EarlyStopping(config.EarlyStoppingSettings(monitor, patience, min_delta, True))
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
        ([3, 2.9, 2.8, 2.7], {"min_delta": 0.5}, (3, 3)),  # min_delta decides when to stop, not which epoch is best
        ([3, 2.8, 2.6, 2.4, 2.3], {"min_delta": 0.3}, (None, 5)),  # small steps that add up are an improvement
        ([1, 0.7, 0.65, 0.68], {"min_delta": 0.2}, (4, 3)),
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
    """9 images of class 0, 90 of class 1, none of class 2."""
    labels = np.repeat([0, 1], [9, 90])
    return Images(np.zeros((99, 3, 8, 8), dtype=np.uint8), labels, ("a", "b", "c"))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    images = imbalanced()
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=images.labels)
    assert images.balancing_weights[:2] == pytest.approx(expected) and images.balancing_weights[2] == 0


def test_the_balanced_sampler_draws_every_class_equally_often():
    torch.manual_seed(0)
    batches = Batches(imbalanced(), 50, CPU, "balanced")
    drawn = torch.cat([labels for _ in range(50) for _, labels, _ in batches])
    assert len(drawn) == 50 * 99 and 0.47 < (drawn == 0).float().mean() < 0.53


@pytest.mark.parametrize("override", ["training.class_weights=balanced", "training.sampler=balanced"])
@pytest.mark.slow
def test_balancing_finds_more_of_a_rare_class(override):
    """With a tenth of the eights: without balancing fewer of those in the test set are found."""
    recalls = []
    _, splits = digits()
    keep = np.flatnonzero((splits.train.labels != 8) | (np.arange(len(splits.train)) % 20 == 0))
    splits = dataclasses.replace(splits, train=splits.train[keep])
    for options in ([], [override]):
        model, run = epochs(compose_config(["data=digits", *options]), splits, 3)
        list(run)
        recalls.append(evaluate(model, Batches(splits.test, 250, CPU), FP32).recall[8])
    assert recalls[1] > recalls[0] + 0.1


def test_a_mixture_of_one_class_is_that_class():
    """Mixed targets are weighted and smoothed as labels are; without weights the loss is torch's."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 4, generator=generator), torch.randint(0, 4, (9,), generator=generator)
    mixed = torch.softmax(torch.randn(9, 4, generator=generator), dim=1)
    certain = torch.nn.functional.one_hot(labels, 4).float()
    weights = torch.tensor([0.5, 1.0, 3.0, 0.1])
    for weighing in (None, weights):
        for smoothing in (0.0, 0.2):
            expected = torch.nn.functional.cross_entropy(logits, labels, weighing, label_smoothing=smoothing)
            torch.testing.assert_close(cross_entropy(logits, labels, weighing, smoothing), expected)
            torch.testing.assert_close(cross_entropy(logits, certain, weighing, smoothing), expected)
    likely = logits.log_softmax(dim=1)
    expected = -(mixed * weights * likely).sum() / (mixed * weights).sum()
    torch.testing.assert_close(cross_entropy(logits, mixed, weights, 0.0), expected)


SMALL = ("model.filters=4", "model.dense_width=16")


def learner_of(*overrides):
    settings, splits = digits(*overrides)
    return Learner.create(settings, initial_model(settings, splits), splits.train, CPU), splits


def test_a_gradient_is_no_longer_than_it_may_be():
    """The first step of plain SGD is the gradient."""
    steps = []
    for clip in ("null", "0.01"):
        plain = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false")
        learner, splits = learner_of(*SMALL, *plain, "optimizer.weight_decay=0", f"training.gradient_clip={clip}")
        before = torch.cat([parameter.detach().flatten().clone() for parameter in learner.model.parameters()])
        learner.step(next(iter(Batches(splits.train, 32, CPU))), 1)
        steps.append(torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()]) - before)
    assert steps[0].norm() > 0.1
    torch.testing.assert_close(steps[1].norm(), torch.tensor(0.01), rtol=1e-3, atol=0)
    torch.testing.assert_close(steps[1] / 0.01, steps[0] / steps[0].norm(), rtol=1e-2, atol=1e-4)


def test_the_first_epochs_see_smaller_images_and_validation_full_ones():
    small = ("model=fastnet", "model.widths=[4,4]", "training.epochs=3", "training.image_sizes=[12,16]")
    learner, splits = learner_of(*small)
    seen = []
    learner.model.register_forward_pre_hook(lambda model, inputs: seen.append((model.training, inputs[0])))
    train, validation = splits.train[np.arange(20)], splits.validation[np.arange(20)]
    batches = Batches(train, 32, CPU), Batches(validation, 32, CPU)
    assert len(list(loop.train(learner, *batches, range(1, 4), Silent()))) == 3
    shapes = [(learning, *images.shape[1:]) for learning, images in seen]
    assert shapes == [
        (learning, 3, *2 * (side,)) for trained in (12, 16, 32) for learning, side in ((True, trained), (False, 32))
    ]
    resized = resize(torch.from_numpy(train.pixels), [12, 12], antialias=True)
    assert (seen[0][1] - resized).abs().max() <= 1  # torchvision rounds, between the two directions as well


class Normed(torch.nn.Module):
    """With a frozen layer, a running mean, and an integer in a buffer."""

    def __init__(self, image_shape, classes):
        super().__init__()
        quarter = image_shape[1] // 4
        self.eyes = torch.nn.Conv2d(3, 4, quarter, stride=quarter).requires_grad_(False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(64, classes)

    def forward(self, images):
        return self.head(self.norm(self.eyes(images)).flatten(1))

    def initialize(self, images):
        self.eyes.weight.zero_()
        self.eyes.bias.copy_(images.mean() + torch.tensor([len(images), images.min(), images.max(), 0]))


NORMED = [
    "model._target_=test_training.Normed",
    *(f"~model.{key}" for key in ("filters", "kernel_size", "dense_width", "blocks", "dropout")),
]


def test_a_network_has_to_take_the_smaller_images():
    with pytest.raises(
        UserError, match=r"training\.image_sizes: test_training\.Normed does not take images of 16x16 pixels"
    ):
        learner_of(*NORMED, "training.image_sizes=[16]")


def test_averaged_weights():
    """Against the sum by hand, from the weights after every step; they are what is validated."""
    learner, splits = learner_of(*NORMED, "training.ema=0.55")
    expected = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    seen = []

    class Watching:
        def step(self, running):
            step = running.step
            weight = 1 - min(0.55, step / (9 + step))
            for name, tensor in learner.model.state_dict().items():
                old = expected[name]
                expected[name] = old + weight * (tensor - old) if old.is_floating_point() else tensor.clone()
            seen.append(step)

    batches = Batches(splits.train, 100, CPU, "shuffle"), Batches(splits.validation, 250, CPU)
    (epoch,) = loop.train(learner, *batches, [1], Watching())
    found = learner.eval_model.state_dict()
    assert len(seen) == 12 and found["network.norm.num_batches_tracked"] == 12
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
    assert not torch.equal(found["network.head.weight"], learner.model.state_dict()["network.head.weight"])
    assert epoch.validation.loss == evaluate(learner.eval_model, batches[1], FP32).loss
    assert epoch.validation.loss != evaluate(learner.model, batches[1], FP32).loss


def test_a_network_may_set_its_weights_by_training_images():
    settings, splits = digits(*NORMED, "data.mean=[0.5,0.5,0.5]")
    bias = initial_model(settings, splits).network.eyes.bias
    rest = bias - bias[3]
    assert rest[:3].tolist() == pytest.approx([1200, -0.5, 0.5], abs=1e-3)
    assert torch.equal(initial_model(settings, splits).network.eyes.bias, bias)
    assert not torch.equal(fresh(settings, splits).network.eyes.bias, bias)


def test_fewer_large_images_are_used_for_that():
    settings, splits = digits(*NORMED, "data.mean=[0.5,0.5,0.5]", "data.image_size=96")
    bias = initial_model(settings, splits).network.eyes.bias
    assert (bias - bias[3])[0].item() == pytest.approx(5000 * 32**2 // 96**2, abs=1e-3)


def test_the_learning_rate_follows_the_schedule_across_epochs():
    settings, splits = digits("schedule=linear", "training.epochs=3", "optimizer.lr=0.01", "optimizer=sgd")
    learner = Learner.create(settings, initial_model(settings, splits), splits.train[np.arange(100)], CPU)
    learning_rates = []

    class Watching:
        def step(self, *_):
            learning_rates.append(learner.optimizer.groups[0].lr)

    batches = Batches(splits.train[np.arange(100)], 30, CPU), Batches(splits.validation, 250, CPU)
    ends = [epoch.learning_rate for epoch in loop.train(learner, *batches, range(2, 4), Watching())]
    assert learning_rates == pytest.approx([0.01 * (1 - step / 11) for step in range(4, 12)])
    assert ends == [learning_rates[3], learning_rates[7]] and ends[1] == 0


def test_views_of_an_image():
    pixels = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert [(weight, view is pixels) for weight, view in views(pixels, "none")] == [(1, True)]
    (first, plain), (second, mirrored) = views(pixels, "flip")
    assert (first, second) == (0.5, 0.5) and torch.equal(plain, pixels) and torch.equal(mirrored, pixels.flip(3))
    seen = views(pixels, "flip_shift")
    padded = torch.nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect")
    upright = [pixels, padded[:, :, 2:, 2:], padded[:, :, :4, :4]]
    assert [weight for weight, _ in seen] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    for place, expected in enumerate(upright):
        assert torch.equal(seen[2 * place][1], expected) and torch.equal(seen[2 * place + 1][1], expected.flip(3))


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("flip_shift", 6)])
def test_logits_are_means_over_views(tta, count):
    learner, splits = learner_of(*SMALL, f"evaluation.tta={tta}")
    images = splits.validation[np.arange(60)]
    found = predict(learner.model, Batches(images, 25, CPU), FP32, tta)
    seen = views(torch.from_numpy(images.pixels), tta)
    with torch.inference_mode():
        expected = sum(weight * learner.model(view) for weight, view in seen)
    assert len(seen) == count and learner.config.evaluation.note == (f"mean over {count} views" if count > 1 else "")
    torch.testing.assert_close(found, expected)
    alone = predict(learner.model, Batches(images[np.array([7])], 25, CPU), FP32, tta)
    assert torch.equal(alone[0], found[7])


@pytest.mark.parametrize("others", [(), ("augment.mixup=0.2", "augment.cutmix=0.5"), ("training.sampler=balanced",)])
def test_a_network_with_batch_norm_trains_on_any_number_of_images(others):
    """1,200 in batches of 11 leave one, which has no variance; the schedule and the average count the merged batch once."""
    learner, splits = learner_of(
        "model=fastnet", "model.widths=[4,4,4,4]", "training.batch_size=11", "training.ema=0.9", *others
    )
    train, validation = splits.train[np.arange(34)], splits.validation[np.arange(20)]
    steps = []

    class Watching:
        def step(self, running):
            steps.append((running.step, running.images))

    batches = training_batches(learner.config, train, CPU), Batches(validation, 32, CPU)
    list(loop.train(learner, *batches, range(1, 3), Watching()))
    assert steps == 2 * [(1, 11), (2, 22), (3, 34)]
    assert learner.eval_model.state_dict()["network.blocks.1.first.2.num_batches_tracked"] == 6


def test_batches_of_one_image_are_refused_where_there_is_batch_norm():
    with pytest.raises(
        UserError, match=r"training\.batch_size=1: must be at least 2 for this network, because Norm needs"
    ):
        learner_of("model=fastnet", "model.widths=[4]", "training.batch_size=1")
    learner_of("training.batch_size=1")


class Flat(torch.nn.Sequential):
    def __init__(self, image_shape, classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, classes))


@pytest.mark.slow
def test_compiled_it_learns_the_same_under_the_same_names():
    found = []
    for compiled in ("false", "true"):
        flat = [text.replace("Normed", "Flat") for text in NORMED]
        learner, splits = learner_of(*flat, "optimizer=sgd", f"training.compile={compiled}")
        learner.step(next(iter(Batches(splits.train, 50, CPU))), 1)
        found.append(learner.model.state_dict())
    assert (learner.forward is learner.model) is False and found[0].keys() == found[1].keys()
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.slow
def test_every_run_of_a_process_is_compiled():
    """PyTorch compiles a function eight times in a process, by default."""
    from torch._dynamo.utils import counters

    flat = [text.replace("Normed", "Flat") for text in NORMED]
    graphs = []
    for _ in range(5):
        learner, splits = learner_of(*flat, "optimizer=sgd", "training.compile=true")
        before = counters["stats"]["unique_graphs"]
        for size in (50, 20):
            learner.step(next(iter(Batches(splits.train, size, CPU))), 1)
        graphs.append(counters["stats"]["unique_graphs"] - before)
    assert graphs == [2] * 5
