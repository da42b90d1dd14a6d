"""Pictures that are left out, and labels that are corrected: the splits stay as they are, the digest follows."""

import numpy as np
import pytest

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_all, load_splits
from experiments.data.membership import Membership, find_again
from samples import paint, splits_of


def write(file, *lines):
    file.write_text("\n".join(lines))
    return file


def test_images_of_an_archive_are_named_by_their_index(tmp_path):
    out = write(tmp_path / "out.csv", "index", "7", "train[9]", "test[3]")
    new = write(tmp_path / "new.csv", "label,index", "5,11", "6,test[4]")
    before = splits_of("data=digits")
    after = splits_of("data=digits", f"data.exclude={out}", f"data.relabel={new}")
    gone = {"train[7]", "train[9]", "test[3]"}
    labels = {}
    for name, part in before.parts().items():
        changed = after.parts()[name]
        assert changed.names == [each for each in part.names if each not in gone]  # the others keep their splits
        old, labels[name] = dict(zip(part.names, part.labels)), dict(zip(changed.names, changed.labels))
        assert {each for each, label in labels[name].items() if label != old[each]} <= {"train[11]", "test[4]"}
    assert (labels["train"] | labels["validation"])["train[11]"] == 5 and labels["test"]["test[4]"] == 6


def test_the_digest_follows_the_content_of_the_files(tmp_path):
    file = write(tmp_path / "out.csv", "index", "7")
    digests = [splits_of("data=digits").digest, splits_of("data=digits", f"data.exclude={file}").digest]
    write(file, "index", "8")
    digests.append(splits_of("data=digits", f"data.exclude={file}").digest)
    digests.append(splits_of("data=digits", f"data.relabel={write(tmp_path / 'new.csv', 'index,label', '7,0')}").digest)
    assert len(set(digests)) == 4
    write(file, "index,given,label")
    assert splits_of("data=digits", f"data.exclude={file}", f"data.relabel={file}").digest == digests[0]


@pytest.mark.parametrize("source", ["image_folder", "csv"])
def test_pictures_are_named_by_their_paths(source, picture_folder, here):
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(picture_folder.glob("*/*"))]
    write(picture_folder / "all.csv", "path,label", *rows)
    where = f"data.file={picture_folder}/all.csv" if source == "csv" else f"data.root={picture_folder}"
    data = (f"data={source}", where)
    out = write(here / "out.csv", "path", "cat/0.png", f"{picture_folder}/dog/100.png", "./dog/101.png")
    new = write(here / "new.csv", "path,label", "cat/1.png,dog")
    before, after = splits_of(*data), splits_of(*data, f"data.exclude={out}", f"data.relabel={new}")
    for name, part in before.parts().items():
        kept = [each for each in part.names if each not in ("cat/0.png", "dog/100.png", "dog/101.png")]
        assert after.parts()[name].names == kept
    everything = load_all(compose_config([*data, f"data.exclude={out}", f"data.relabel={new}"]).data)
    assert len(everything) == 27 and everything.classes[everything.labels[everything.names.index("cat/1.png")]] == "dog"


def test_a_spreadsheet_may_have_made_the_table(here):
    for number, name in enumerate(("=a", "@b")):
        paint(here / "pictures", name, 5, 10 * number)
    out = write(here / "out.csv", '"path"', "'=a/0.png")
    new = write(here / "new.csv", "path,label", "'=a/1.png,'@b")
    data = ("data=image_folder", "data.root=pictures")
    splits = splits_of(*data, f"data.exclude={out}", f"data.relabel={new}")
    names = [name for part in splits.parts().values() for name in part.names]
    counts = sum(part.class_counts for part in splits.parts().values())
    assert len(names) == 9 and "=a/0.png" not in names and counts.tolist() == [3, 6]


def test_folds_keep_their_images(tmp_path):
    out = write(tmp_path / "out.csv", "index", *map(str, range(0, 1500, 50)))
    for fold in range(3):
        folds = ("data=digits", "data.folds=3", f"data.fold={fold}")
        before, after = splits_of(*folds).validation, splits_of(*folds, f"data.exclude={out}").validation
        assert after.indices.tolist() == [index for index in before.indices if index % 50]


def test_a_broken_picture_may_be_named(picture_folder, here):
    (picture_folder / "cat/broken.png").write_bytes(b"no picture")
    out = write(here / "out.csv", "path", "cat/broken.png", "cat/0.png")
    data = ("data=image_folder", f"data.root={picture_folder}", "data.skip_broken=true", f"data.exclude={out}")
    assert sum(map(len, splits_of(*data).parts().values())) == 29


def test_a_run_finds_its_images_among_more(picture_folder, here):
    new = write(here / "new.csv", "path,label", "cat/1.png,dog")
    out = write(here / "out.csv", "path", "cat/0.png")
    data = compose_config(
        ["data=image_folder", f"data.root={picture_folder}", f"data.exclude={out}", f"data.relabel={new}"]
    ).data
    splits = load_splits(data)
    membership = Membership.of(splits)
    paint(picture_folder, "cat", 1, 500)
    found, changes = find_again(data, membership, splits.classes)
    assert changes == "images that have changed since the run: 1 new (cat/500.png)"
    for name, part in splits.parts().items():
        again = found.parts()[name]
        assert dict(zip(again.names, again.labels)) == dict(zip(part.names, part.labels))


@pytest.mark.parametrize(
    ("key", "lines", "message"),
    [
        ("exclude", ["index", "1500"], r"line 2: there is no picture 1500; pictures have names such as train\[\d+\]"),
        ("exclude", ["index", "cat.png", "2", "x"], "2 lines"),
        ("exclude", ["index", *map(str, range(1500))], "no image is left in the train set"),
        ("relabel", ["index,label", "3,10"], "line 2: there is no class 10; did you mean"),
        ("relabel", ["index,label", "3,"], "line 2: there is no class "),
        ("relabel", ["index,label", "3,4", "3,4", "3,5"], r"line 4: train\[3\] is on line 2 too, with the label 4"),
        ("relabel", ["index,label", "3"], "line 2: has 1 cells, but the first line has 2"),
    ],
)
def test_what_cannot_be_corrected_is_refused(key, lines, message, tmp_path):
    file = write(tmp_path / "file.csv", *lines)
    with pytest.raises(UserError, match=message) as caught:
        splits_of("data=digits", f"data.{key}={file}")
    assert str(caught.value).startswith(f"data.{key}={file}: ")


def test_a_picture_that_is_not_in_the_folder_is_refused(picture_folder, here):
    file = write(here / "out.csv", "path", "cat/0.png", "cat/99.png")
    with pytest.raises(UserError, match=r"out.csv: 1 line cannot be read:\n  line 3: there is no picture cat/99.png"):
        splits_of("data=image_folder", f"data.root={picture_folder}", f"data.exclude={file}")


def test_a_class_must_keep_an_image(tmp_path):
    labels = splits_of("data=digits")
    zeros = [
        name for part in (labels.train, labels.validation) for name, label in zip(part.names, part.labels) if label == 0
    ]
    file = write(tmp_path / "out.csv", "index", *zeros)
    with pytest.raises(UserError, match="no image of 0 is left to train on"):
        splits_of("data=digits", f"data.exclude={file}")
    assert np.all(splits_of("data=digits").train.class_counts > 0)
