"""Every augmentation has the results of torchvision, image by image; draws are within bounds, and independent per image."""

import base64
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from experiments.config import UserError
from experiments.config.loading import check_overrides, compose_config
from experiments.data import Images
from experiments.data.augmentation import Augmentation, colour, examples, geometry, mixing
from experiments.data.augmentation.draws import Draws
from experiments.data.images import Batch
from experiments.models.classifier import Layers
from experiments.reports import report
from experiments.reports.content import Content
from experiments.training.evaluation import score

CPU = torch.device("cpu")
pytestmark = pytest.mark.numbers
NONE, STANDARD, STRONG = (compose_config([f"augment={choice}"]).augment for choice in ("none", "standard", "strong"))
ALL = replace(STRONG, flip="random", crop=0.3, mixup=0.4)
SHIFTS = torch.tensor([[0, 0], [3, -2], [-4, 4], [1, 0], [0, -1], [-4, -4]])
FLIPPED = torch.tensor([False, True, True, False, True, False])


def noise_images(count=6, size=(32, 32), smooth=False):
    """Noise, or with `smooth` waves, which interpolate well."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, *size), dtype=np.uint8))
    if not smooth:
        return noise
    y, x = torch.meshgrid(torch.arange(size[0]) / 6.0, torch.arange(size[1]) / 5.0, indexing="ij")
    waves = [torch.sin(x * (1 + k / 9) + k) * torch.cos(y - k / 3) for k in range(3 * count)]
    return (127 * torch.stack(waves) + 128).view(count, 3, *size)


def batch(count=6, **options):
    images = noise_images(count, **options)
    return Batch(images, torch.arange(count) % 4, torch.arange(count))


def settings(**changes):
    return replace(NONE, **changes)


def shifted(image, shift):
    """torchvision's padding and cropping."""
    right, down = shift.tolist()
    padded = reference.pad(image, [4] * 4, padding_mode="reflect")
    return reference.crop(padded, 4 - down, 4 - right, *image.shape[1:])


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (5, 9)])
@pytest.mark.parametrize(("flipped", "shift"), [(FLIPPED, None), (None, SHIFTS), (FLIPPED, SHIFTS)])
def test_flips_and_shifts_copy_the_bytes_that_torchvision_does(size, flipped, shift):
    images = noise_images(size=size)
    found = geometry.move(images, geometry.Moves(flipped=flipped, shift=shift))
    assert found.dtype == torch.uint8
    for index, image in enumerate(images):
        expected = reference.horizontal_flip(image) if flipped is not None and flipped[index] else image
        expected = shifted(expected, shift[index]) if shift is not None else expected
        assert torch.equal(found[index], expected)


@pytest.mark.parametrize("size", [(32, 32), (12, 20)])
def test_a_warp_by_nothing_flips_and_shifts_as_the_copy_does(size):
    images = noise_images(size=size)
    moves = geometry.Moves(flipped=FLIPPED, shift=SHIFTS)
    warped = geometry.move(images, moves._replace(angle=torch.zeros(6)))
    assert warped.dtype == torch.float32
    close(warped, geometry.move(images, moves).float(), atol=0.02)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_rotation_scale_and_shift_are_torchvisions_affine(size):
    """Inside the image the results are those of torchvision, which has black outside."""
    images = noise_images(size=size)
    angle, scale = torch.tensor([0.0, 10, -30, 90, 180, 5]), torch.tensor([1.0, 1.1, 0.9, 1, 1.3, 0.7])
    found = geometry.move(images, geometry.Moves(angle=angle, scale=scale, shift=SHIFTS))
    for index, image in enumerate(images):
        change = (angle[index].item(), SHIFTS[index].tolist(), scale[index].item(), [0.0, 0.0])
        expected, inside = (
            reference.affine(image, *change, interpolation=InterpolationMode.BILINEAR)
            for image in (image.float(), torch.ones_like(image, dtype=torch.float32))
        )
        whole = inside > 0.9999
        assert whole.float().mean() > 0.3
        close(found[index][whole], expected[whole], atol=0.05)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_a_crop_is_torchvisions_resized_crop(size):
    """Except at its border, where torchvision does not use the pixels beyond the crop."""
    images = noise_images(size=size)
    crops = [(0, 0, 24, 24), (0, 0, 20, 18), (3, 5, 16, 12), (8, 8, 16, 16), (5, 2, 19, 21), (7, 1, 13, 23)]
    height, width = size
    box = torch.tensor([[left / width, top / height, w / width, h / height] for top, left, h, w in crops])
    found = geometry.move(images, geometry.Moves(box=box))
    for index, (image, crop) in enumerate(zip(images, crops)):
        expected = reference.resized_crop(image.float(), *crop, size=list(size), antialias=False)
        close(found[index][:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=0.05)


def test_all_moves_together_are_one_after_the_other():
    images = noise_images(smooth=True)
    box = torch.tensor([[0.1, 0.05, 0.8, 0.9]]).expand(6, 4)
    angle, scale = torch.tensor([0.0, 10, -30, 20, 7, 5]), torch.tensor([1.0, 1.1, 0.9, 1, 1.2, 0.9])
    found = geometry.move(images, geometry.Moves(FLIPPED, box, angle, scale, SHIFTS))
    steps = [{"flipped": FLIPPED}, {"box": box}, {"angle": angle}, {"scale": scale}, {"shift": SHIFTS}]
    expected = images
    for step in steps:
        expected = geometry.move(expected, geometry.Moves(**step))
    middle = slice(10, 22)  # depends on no pixel outside of the image
    close(found[..., middle, middle], expected[..., middle, middle], atol=12)  # four interpolations blur
    assert (found - expected)[..., middle, middle].abs().mean() < 2 and (found - images).abs().mean() > 20


FACTORS = torch.tensor([0.0, 0.6, 0.9, 1.0, 1.3, 2.0])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_are_torchvisions(name):
    images = noise_images().float()
    images[0, :, :16] = images[0, :1, :16]  # greys, with no hue
    images[1, :, 16:], images[2, 0], images[2, 2] = 0, 255, 0
    factors = torch.tensor([0.5, -0.5, 0.1, 0.0, -0.3, 0.37]) if name == "hue" else FACTORS
    found = getattr(colour, name)(images, factors)
    for index, image in enumerate(images):
        expected = 255 * getattr(reference, f"adjust_{name}")(image / 255, factors[index].item())
        close(found[index], expected, atol=0.02)


def test_cutout_is_torchvisions_erase_and_may_stick_out():
    images = noise_images()
    centres = torch.tensor([[16, 10], [0, 0], [31, 31], [2, 30], [31, 5], [7, 8]])
    for images in (noise_images(), noise_images().float()):
        for side in (7, 8, 32):
            found = mixing.cutout(images, centres, side)
            assert found.dtype == images.dtype
            for index, ((column, row), image) in enumerate(zip(centres.tolist(), images)):
                top, left = max(row - side // 2, 0), max(column - side // 2, 0)
                bottom, right = row - side // 2 + side, column - side // 2 + side
                mean = image.double().mean((1, 2), keepdim=True)
                value = (mean + 0.5).floor() if image.dtype == torch.uint8 else mean
                expected = reference.erase(image, top, left, bottom - top, right - left, value.to(image.dtype))
                close(found[index], expected, atol=0 if image.dtype == torch.uint8 else 1e-3)


def test_mixing_blends_or_replaces_and_the_targets_say_how_much():
    images, labels = noise_images(), torch.tensor([0, 1, 2, 3, 0, 1])
    partner, weights = torch.tensor([1, 0, 3, 2, 5, 4]), torch.tensor([0.0, 0.25, 1.0, 0.0, 0.0, 0.0])
    centres, sides = torch.tensor([[9, 9]] * 3 + [[0, 0], [31, 16], [8, 8]]), torch.tensor([[0, 0]] * 3 + [[8, 4]] * 3)
    box = mixing.boxes(centres, sides, 32, 32)
    for drawn in (mixing.Mix(partner, weights, box), mixing.Mix(partner, None, box), mixing.Mix(partner, weights)):
        found, targets = mixing.mix(images, drawn), mixing.mix_labels(labels, 4, drawn)
        assert found.dtype == (torch.uint8 if drawn.weight is None else torch.float32)
        for index, image in enumerate(images):
            other, weight = images[partner[index]], 0 if drawn.weight is None else weights[index]
            expected = image * (1 - weight) + other * weight
            if drawn.box is not None and index > 2:
                (column, row), (width, height) = centres[index].tolist(), sides[index].tolist()
                rows = slice(max(row - height // 2, 0), row - height // 2 + height)
                columns = slice(max(column - width // 2, 0), column - width // 2 + width)
                expected[:, rows, columns] = other[:, rows, columns]
                weight = other[0, rows, columns].numel() / 32**2
            close(found[index].float(), expected.float(), atol=1e-3)
            row = torch.zeros(4)
            row[labels[index]] += 1 - weight
            row[labels[partner[index]]] += weight
            close(targets[index], row, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0])
def test_weights_are_beta_distributed(alpha):
    from scipy.stats import beta, kstest

    torch.manual_seed(0)
    weights = mixing.draw_beta(alpha, 5000)
    assert weights.isfinite().all()
    inner = np.clip(weights.double().numpy(), 1e-9, 1 - 1e-9)  # float32 has 0 and 1
    near = (inner > 1e-6) & (inner < 1 - 1e-6)
    expected = beta(alpha, alpha)
    inside = expected.cdf(1 - 1e-6) - expected.cdf(1e-6)
    assert near.mean() == pytest.approx(inside, abs=0.02)
    if near.sum() > 500:
        conditional = kstest(inner[near], lambda x: (expected.cdf(x) - expected.cdf(1e-6)) / inside)
        assert conditional.pvalue > 1e-3


def test_draws_are_within_bounds_and_independent_per_image():
    torch.manual_seed(0)
    chosen = settings(flip="random", translate=3, rotate=15, scale=0.2, crop=0.4)
    moves = geometry.draw(chosen, torch.arange(4000), 1, reach=3, draws=Draws(4000, CPU))
    assert 0.45 < moves.flipped.float().mean() < 0.55
    shifts = moves.shift.unique(dim=0, return_counts=True)
    assert len(shifts[0]) == 49 and moves.shift.abs().max() == 3 and shifts[1].min() > 40
    for drawn, low, high in ((moves.angle, -15, 15), (moves.scale, 0.8, 1.2), (moves.box[:, 2:].prod(1), 0.6, 1)):
        assert low <= drawn.min() + 1e-6 and drawn.max() <= high + 1e-6
        counts = torch.histc(drawn, 10, low, high)
        assert counts.min() > 300 and drawn.unique().numel() > 3900
    left, top, width, height = moves.box.unbind(1)
    assert min(left.min(), top.min()) >= 0 and max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    aspect = (width / height).log()
    assert aspect.abs().max() <= math.log(4 / 3) + 1e-5 and abs(aspect.mean()) < 0.01
    assert aspect[width * height < 0.75].abs().max() > 0.25  # wide and narrow ones
    centres = mixing.draw_centres(Draws(4000, CPU), 4, 6)
    assert len(centres.unique(dim=0)) == 24 and centres.max(dim=0).values.tolist() == [5, 3]


def test_colour_factors_are_independent_per_image():
    """All images are the same, so each result shows its factor."""
    torch.manual_seed(0)
    same = torch.full((1000, 3, 2, 2), 100.0)
    same[:, 0] = 150
    for change, low, high in (({"brightness": 0.4}, 60, 140), ({"saturation": 0.4}, 94, 106), ({"hue": 0.2}, 100, 150)):
        found = colour.jitter(same, settings(**change), Draws(1000, CPU))[:, 1, 0, 0]
        assert low - 1 <= found.min() < low + 4 and high - 4 < found.max() <= high + 1 and len(found.unique()) > 400


def test_alternating_flip_shows_both_ways_in_any_two_epochs():
    chosen = settings(flip="alternating")
    rows = torch.arange(20_000)
    state = torch.get_rng_state()
    draws = Draws(20_000, CPU)
    first, second, third = (geometry.draw(chosen, rows, epoch, 0, draws).flipped for epoch in (1, 2, 3))
    assert torch.equal(first, ~second) and torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), state)
    some = torch.tensor([7, 3, 19_999])  # the coin of an image does not depend on its position in a batch
    assert torch.equal(geometry.draw(chosen, some, 1, 0, Draws(3, CPU)).flipped, first[some])
    coins = first.double() - 0.5
    assert abs(coins.mean()) < 0.02
    assert all(abs((coins[lag:] * coins[:-lag]).mean()) * 4 < 0.03 for lag in (*range(1, 65), 1000))


@pytest.mark.parametrize(("size", "shift", "side"), [(32, 4, 8), (224, 28, 56), (4, 1, 1)])
def test_a_share_of_the_picture_is_the_same_as_its_pixels(size, shift, side):
    given, results = batch(8, size=(size, size)), []
    for chosen in (STANDARD, replace(STANDARD, translate=shift, cutout=side)):
        torch.manual_seed(0)
        results.append(Augmentation(chosen, 4)(given, 1)[0])
    assert (STANDARD.translate, STANDARD.cutout) == (0.125, 0.25) and torch.equal(*results)
    assert compose_config(["augment=light"]).augment.translate == 2 / 32


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_any_share_is_at_least_one_pixel_and_less_than_the_image(share):
    torch.manual_seed(0)
    given = batch(40, size=(4, 4))
    found, _ = Augmentation(settings(translate=share, cutout=share), 4)(given, 1)
    assert (found != given.pixels).any()


def test_none_changes_nothing_at_all():
    given, state = batch(), torch.get_rng_state()
    found, targets = Augmentation(NONE, 4)(given, 1)
    assert not NONE.active and found is given.pixels and targets is given.labels
    assert torch.equal(torch.get_rng_state(), state)


COPIED = {"flip": "random", "translate": 2, "cutout": 8, "cutmix": 1.0}  # bytes stay bytes
BLENDED = {"rotate": 9.0, "scale": 0.1, "crop": 0.3, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
BLENDED["mixup"] = 0.4


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [(settings(**{name: value}), torch.uint8) for name, value in COPIED.items()]
    + [(settings(**{name: value}), torch.float32) for name, value in BLENDED.items()]
    + [(STANDARD, torch.uint8), (ALL, torch.float32)],
    ids=[*COPIED, *BLENDED, "standard", "all"],
)
def test_each_changes_images_by_the_seed_and_never_the_batch_itself(chosen, kind):
    given = batch(40, size=(16, 16))
    before = given.pixels.clone()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(Augmentation(chosen, 4)(given, 1))
    (found, targets), (again, _), (other, _) = results
    assert chosen.active and torch.equal(given.pixels, before)
    assert found.shape == before.shape and found.dtype == kind and found.min() >= 0 and found.max() <= 255
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert (found != before).flatten(1).any(dim=1).float().mean() > 0.4
    if chosen.mixup or chosen.cutmix:
        assert targets.dtype == torch.float32 and targets.shape == (40, 4)
        assert torch.allclose(targets.sum(1), torch.ones(40)) and (targets.max(dim=1).values < 0.999).any()
    else:
        assert targets is given.labels


def test_with_both_on_each_image_is_blended_or_cut():
    torch.manual_seed(0)
    drawn = mixing.draw_mix(1.0, 1.0, Draws(2000, CPU), 16, 16)
    assert torch.equal(drawn.partner.sort().values, torch.arange(2000))
    cut = drawn.box.flatten(1).any(dim=1)
    assert not (cut & (drawn.weight > 0)).any() and 0.4 < cut.float().mean() < 0.5  # some boxes are of no pixel
    assert 0.45 < (drawn.weight > 0).float().mean() < 0.55


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmix_boxes_are_as_large_as_the_papers(alpha):
    """Compared with boxes drawn one at a time, as in the paper's appendix."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(20_000):
        cut = np.sqrt(1 - rng.beta(alpha, alpha))
        pixels = 1
        for size in (16, 12):
            length, middle = int(size * cut), rng.integers(size)
            start = middle - length // 2
            pixels *= min(start + length, size) - max(start, 0)
        areas.append(pixels)
    torch.manual_seed(0)
    found = mixing.draw_mix(0, alpha, Draws(20_000, CPU), 16, 12).box.sum((1, 2, 3))
    at = (0.25, 0.5, 0.75, 0.9)
    assert np.quantile(found, at) == pytest.approx(np.quantile(areas, at), abs=6)
    assert found.double().mean() == pytest.approx(np.mean(areas), abs=1.5)


@pytest.mark.parametrize("chosen", [STANDARD, ALL], ids=["standard", "all"])
def test_nothing_waits_for_the_device(chosen):
    """On the meta device there are no values: what depends on one on the way, and would make a GPU wait, fails."""
    given = Batch(*(tensor.to("meta") for tensor in batch()))
    found, targets = Augmentation(chosen, 4)(given, 1)
    assert found.device.type == targets.device.type == "meta"


@pytest.mark.parametrize("chosen", [STANDARD, ALL], ids=["standard", "all"])
def test_every_device_gets_the_random_numbers_of_the_cpu(chosen):
    given, states = batch(), []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        Augmentation(chosen, 4)(Batch(*(tensor.to(device) for tensor in given)), 1)
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    assert torch.equal(*states) and not torch.equal(states[0], torch.get_rng_state())


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_batches(count):
    found, targets = Augmentation(ALL, 4)(batch(count, size=(4, 4)), 1)
    assert len(found) == len(targets) == count and found.isfinite().all()


def test_examples_are_the_images_before_and_after_and_keep_the_random_state():
    images = Images(noise_images(50).numpy(), np.zeros(50, int), ("a", "b"))
    state = torch.get_rng_state()
    found = examples(ALL, images, count=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.shape == (4, 5, 3, 32, 32) and found.dtype == np.uint8
    assert np.array_equal(found[0], images[[0, 12, 24, 36, 49]].pixels)
    assert all((found[draw] != found[draw - 1]).any(axis=(1, 2, 3)).all() for draw in (1, 2, 3))
    torch.manual_seed(5)
    assert np.array_equal(examples(ALL, images, count=5), found)
    flips = examples(settings(flip="alternating"), images)
    assert np.array_equal(flips[1], flips[2][..., ::-1]) and np.array_equal(flips[1], flips[3])
    assert examples(ALL, images[:2]).shape[1] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.translate=32", "augment.translate=32: must be less than data.image_size=32"),
        (
            "augment.translate=1.5",
            "augment.translate=1.5: must be a whole number from 0 to 512 or a number from 0 to 0.9",
        ),
        ("augment.cutout=33", "augment.cutout=33: must be at most data.image_size=32"),
        ("augment.hue=0.6", "augment.hue=0.6: must be a number from 0 to 0.5"),
        ("augment.flip=vertical", "augment.flip=vertical: must be one of none, random, alternating"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError) as caught:
        check_overrides([override])
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [[], ["augment=light", "augment.cutout=5"]], ids=["off", "on"])
def test_the_report_shows_images_before_and_after_if_something_is_on(options, tmp_path):
    chosen, images = (
        compose_config(["data=digits", *options]),
        Images(noise_images(8, smooth=True).byte().numpy(), np.arange(8) % 2, ("a", "b")),
    )
    logits = torch.eye(2)[torch.arange(8) % 2]
    shown = examples(chosen.augment, images, count=4) if chosen.augment.active else None
    content = Content(
        name="a",
        command="b",
        config=chosen,
        images=images,
        probabilities=logits.softmax(dim=1).numpy(),
        evaluation=score(logits, torch.tensor(images.labels)),
        split="test",
        class_counts={"test": images.class_counts},
        layers=Layers((), ""),
        protocol="",
        environment={},
        augmented=shown,
    )
    report.write(tmp_path, content)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("augment.flip=alternating, augment.translate=0.0625, augment.cutout=5" in page) == bool(options)
    assert (tmp_path / "figures/augmentation.png").exists() == bool(options)
    rows = re.findall(
        r"<tr><th>(original|epoch \d)</th><td style=\"--sprite: url\(data:image/webp;base64,(.*?)\)", page
    )
    assert [name for name, _ in rows] == (["original", "epoch 1", "epoch 2", "epoch 3"] if options else [])
    for (_, data), expected in zip(rows, shown if options else []):
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
        assert np.abs(strip - np.concatenate(list(expected), axis=2).transpose(1, 2, 0)).mean() < 8  # lossy
