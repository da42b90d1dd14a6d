"""Exploring the data: statistics, class balance, and duplicates."""

import csv
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from experiments.analysis import exploration, figures
from experiments.analysis.duplicates import SIMILARITY, Place, describe, find_duplicates
from experiments.analysis.picture_files import header_lines, read_headers
from experiments.analysis.statistics import balance, measure, ratio
from experiments.data import Images, Splits


def scenes(count, seed, size=32):
    """Images with the spectrum of natural ones: amplitude falls with frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    noise = rng.standard_normal((count, 3, size, size)) + 2 * rng.standard_normal((count, 1, size, size))
    waves = np.fft.ifft2(np.fft.fft2(noise) / np.maximum(frequency, 1)).real
    waves *= 45 / waves.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(waves + 128, 0, 255).astype(np.uint8)


def images(pixels, classes=("a", "b")):
    return Images(pixels, np.arange(len(pixels)) % len(classes), classes)


def splits(train, validation, test, classes=("a", "b")):
    return Splits(*(images(pixels, classes) for pixels in (train, validation, test)))


def pil_image(pixels):
    return Image.fromarray(pixels.transpose(1, 2, 0))


def pixels_of(image):
    return np.asarray(image).transpose(2, 0, 1)


def recompressed(pixels):
    file = io.BytesIO()
    pil_image(pixels).save(file, "JPEG", quality=60)
    return pixels_of(Image.open(file))


CHANGES = {
    "copied": lambda pixels: pixels,
    "recompressed": recompressed,
    "brighter": lambda pixels: np.clip(pixels.astype(int) + 5, 0, 255).astype(np.uint8),
    "shifted": lambda pixels: np.pad(pixels, ((0, 0), (0, 0), (1, 0)), mode="edge")[:, :, :-1],
    "resized": lambda pixels: pixels_of(pil_image(pixels).resize((22, 22)).resize((32, 32), Image.Resampling.BICUBIC)),
}


def places(duplicates):
    return {(p.first.split, p.first.index, p.second.split, p.second.index): p for p in duplicates.pairs}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("to", ["train", "validation", "test"])
def test_a_planted_duplicate_is_found_and_nothing_else(change, to):
    parts = {"train": scenes(60, 1), "validation": scenes(20, 2), "test": scenes(20, 3)}
    parts[to][12] = CHANGES[change](parts["train"][41])
    found = places(find_duplicates(splits(**parts)))
    assert set(found) == {("train", 12, "train", 41) if to == "train" else ("train", 41, to, 12)}
    (pair,) = found.values()
    assert pair.exact == (change == "copied") and pair.across == (to != "train")
    assert (pair.first.label, pair.second.label) == (("a", "b") if to == "train" else ("b", "a"))


def test_images_without_structure_match_their_copies_alone():
    noise = np.random.default_rng(0).integers(126, 130, (30, 3, 32, 32)).astype(np.uint8)
    noise[:2], noise[2] = 0, 255
    found = find_duplicates(splits(noise, scenes(3, 1), scenes(3, 2)))
    assert set(places(found)) == {("train", 0, "train", 1)} and found.pairs[0].exact


@pytest.mark.parametrize("size", [32, 96])
def test_a_faint_shadow_in_common_is_no_duplicate(size):
    shadow = np.linspace(120, 136, size) + np.random.default_rng(0).normal(0, 1, (10, 3, size, size))
    assert not find_duplicates(splits(shadow.astype(np.uint8), scenes(3, 1, size), scenes(3, 2, size))).pairs


@pytest.mark.parametrize("similarity", [0.2, 0.3])
def test_all_pairs_are_found_that_brute_force_finds(similarity, monkeypatch):
    monkeypatch.setattr("experiments.analysis.duplicates.BLOCK", 64)  # so that blocks meet at every kind of edge
    data = splits(scenes(150, 1), scenes(70, 2), scenes(64, 3))
    rows = [(name, index, vector) for name, part in data.parts().items() for index, vector in enumerate(describe(part))]
    expected = {
        (first, i, second, j)
        for place, (first, i, a) in enumerate(rows)
        for second, j, b in rows[place + 1 :]
        if float(a @ b) >= similarity
    }
    duplicates = find_duplicates(data, similarity, limit=100_000)
    assert len(expected) > 30 and set(places(duplicates)) == expected
    for overlap in duplicates.overlaps:
        pairs = [place for place in expected if (place[0], place[2]) == (overlap.first, overlap.second)]
        touched = {(place[2], place[3]) for place in pairs} | {
            place[:2] for place in pairs if overlap.first == overlap.second
        }
        assert (overlap.exact, overlap.near, overlap.images) == (0, len(pairs), len(touched))


def test_many_pairs_are_all_counted_and_the_best_are_kept():
    same = np.repeat(scenes(1, 1), 50, axis=0)
    same[0] = CHANGES["shifted"](same[0])
    duplicates = find_duplicates(splits(same, scenes(3, 2), scenes(3, 3)), limit=10)
    within = duplicates.overlaps[0]
    assert (within.exact, within.near, within.images) == (49 * 48 / 2, 49, 50)
    assert len(duplicates.pairs) == 10 and all(pair.exact for pair in duplicates.pairs)


def test_the_size_of_an_image_does_not_change_its_description():
    large = scenes(20, 1, size=96)
    small = np.stack([pixels_of(pil_image(pixels).resize((32, 32))) for pixels in large])
    assert ((describe(images(large)) * describe(images(small))).sum(axis=1) > SIMILARITY).all()


def test_numbers_against_numpy():
    train = scenes(1500, 1)
    train[:, 1] //= 2
    found = measure(images(train))
    scaled = train / 255
    assert (found.lowest, found.highest) == (train.min(), train.max())
    assert np.allclose(found.mean, scaled.mean(axis=(0, 2, 3))) and np.allclose(found.std, scaled.std(axis=(0, 2, 3)))


def test_balance():
    data = splits(scenes(7, 1), scenes(2, 2), scenes(1, 3))
    assert balance(data).tolist() == [[4, 1, 1], [3, 1, 0]]
    assert ratio(balance(data)[:, 0]) == pytest.approx(4 / 3) and ratio(np.array([3, 0])) == float("inf")


def written(data, folder):
    duplicates = find_duplicates(data)
    list(exploration.duplicate_lines(duplicates, SIMILARITY))
    return {path.name: path for path in exploration.write(folder, data, balance(data), duplicates)}


def test_every_pair_is_named(tmp_path):
    parts = [scenes(3, seed) for seed in (1, 2, 3)]
    parts[2][1] = parts[0][0]
    train, validation, test = (
        Images(pixels, np.zeros(3, int), ("cat",), names=[f"cat/{seed}{number}.png" for number in range(3)])
        for seed, pixels in enumerate(parts)
    )
    data = Splits(train, validation, test)
    (row,) = csv.DictReader(written(data, tmp_path)["duplicates.csv"].open())
    assert (row["split"], row["name"], row["class"]) == ("train", "cat/00.png", "cat")
    assert (row["other_split"], row["other_name"]) == ("test", "cat/21.png")
    text = shown(exploration.duplicate_lines(find_duplicates(data), SIMILARITY))
    assert "train cat/00.png  " in text and "test cat/21.png\n" in re.sub(" +\n", "\n", text)  # the class once
    assert exploration.named(Place("train", 0, "n02/0.png", "cat")) == "train n02/0.png cat"


def shown(lines):
    with (console := Console(width=200)).capture() as captured:
        for line in lines:
            console.print(line)
    return captured.get()


def test_three_small_images_and_labels_of_any_kind(tmp_path):
    data = splits(scenes(1, 1, 4), scenes(1, 1, 4), scenes(1, 1, 4), ("$a$猫\n[b]", "\udce9" * 50))
    assert {"images.png", "class_balance.png", "duplicates_across.png"} < set(written(data, tmp_path))
    lines = exploration.balance_lines(balance(data), data.classes)
    assert any("no image in training: 1 of 2 classes" in str(line) for line in lines)
    assert "猫" in (tmp_path / "duplicates.csv").read_text(encoding="utf-8")


def test_captions_of_pairs_do_not_reach_into_the_next_pair(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "image_pairs", lambda pairs, captions, title: shown.extend(captions))
    label, pixels = "a class of very many words", scenes(1, 1)
    data = splits(pixels, pixels, scenes(1, 2), (label, "b"))
    exploration._pairs(data, list(find_duplicates(data).pairs), "")
    (caption,) = shown
    lines = caption.splitlines()
    assert lines[0] == "exact" and max(map(len, lines)) <= exploration.CAPTION
    assert "validation" in caption and " ".join(lines).count(label) == 2


def test_a_thousand_classes_stay_readable(tmp_path):
    data = splits(scenes(2000, 1, 8), scenes(3, 2, 8), scenes(3, 3, 8), tuple(f"class {i}" for i in range(1000)))
    table, *lines = exploration.balance_lines(balance(data), data.classes)
    assert table.row_count == 41 and "of 1,000 classes" in lines[0]
    assert Image.open(written(data, tmp_path)["class_balance.png"]).height < 1000


@pytest.mark.slow
def test_the_command(command, tmp_path):
    done = command("scripts/explore.py", "data=digits", "outputs=elsewhere", "--similarity", "0.95", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = [line for line in done.stdout.split("\n") if line.startswith("elsewhere/explore/digits/")]
    assert len(files) == 5 and all((tmp_path / file).stat().st_size for file in files)
    assert "1,200 train, 300 validation, 297 test" in done.stdout and done.stderr == ""


@pytest.fixture
def photographs(tmp_path):
    """12 pictures of two classes; one is turned by its EXIF data, one cut off, one no picture."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for number in range(6):
            size = ((60, 90), (60, 60), (90, 60))[number % 3]  # height, width
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            exif = picture.getexif()
            exif[0x0112] = 6 if number == 0 and label == 0 else 1
            picture.save(tmp_path / f"photographs/{name}/{number}.jpg", exif=exif)
    whole = (tmp_path / "photographs/dog/5.jpg").read_bytes()
    (tmp_path / "photographs/dog/5.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photographs/dog/6.jpg").write_bytes(b"no picture")
    return tmp_path / "photographs"


def test_sizes_come_from_the_headers(photographs):
    headers = read_headers(sorted(map(str, photographs.rglob("*.jpg"))))
    assert headers.unreadable == 1 and headers.formats == {"JPEG": 12}
    assert headers.sizes[0].tolist() == [60, 90]  # as it is shown, not as it is stored
    assert sorted(headers.aspects) == pytest.approx([2 / 3] * 5 + [1] * 4 + [1.5] * 3)
    text = "\n".join(header_lines(headers, 64))
    assert "13 files" in text and "12 JPEG" in text and "60 to 90 pixels, median 60" in text
    assert "3 wide, 4 square, 5 tall" in text and "12 pictures (100.0 %) with a side below data.image_size=64" in text


@pytest.mark.slow
def test_the_command_shows_photographs(photographs, command, tmp_path):
    shutil.copy(photographs / "cat/1.jpg", photographs / "cat/copy.jpg")
    small = ("data.image_size=16", "data.test_size=2", "data.validation_size=2")
    done = command("scripts/explore.py", "data=image_folder", f"data.root={photographs}", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pictures   14 files" in done.stdout and "broken     2 pictures; data.skip_broken=true" in done.stdout
    assert "\n  dog/5.jpg: the picture is broken" in done.stdout and "\n  dog/6.jpg: not a picture" in done.stdout
    assert (tmp_path / "outputs/explore/photographs/sizes.png").stat().st_size
    (pair,) = csv.DictReader((tmp_path / "outputs/explore/photographs/duplicates.csv").open())
    assert pair["exact"] == "True" and {pair["name"], pair["other_name"]} == {"cat/1.jpg", "cat/copy.jpg"}
    assert "cat/copy.jpg" in done.stdout
