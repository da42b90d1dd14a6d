"""A table of pictures: labels, splits and groups, and every mistake with its line."""

import json
import logging

import pytest

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data import load_all
from samples import paint, splits_of

SMALL = ("data=csv", "data.image_size=16")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A function that writes lines to pictures/labels.csv, beside 12 pictures of cats and 12 of dogs; returns the overrides."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures", "cat", 12, 0, size=8)
    paint(tmp_path / "pictures", "dog", 12, 100, size=8)

    def write(lines, header="path,label"):
        text = "\n".join([header, *lines])
        (tmp_path / "pictures/labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
        return [*SMALL, f"data.file={tmp_path}/pictures/labels.csv"]

    return write


def pictures(count=12):
    return [(f"cat/{i}.png", "cat") for i in range(count)] + [(f"dog/{100 + i}.png", "dog") for i in range(count)]


def lines(*columns):
    """The lines of all pictures, with further columns: functions of the index of a picture in its class."""
    return [
        ",".join([path, label, *(str(each(i % 12)) for each in columns)]) for i, (path, label) in enumerate(pictures())
    ]


def test_a_line_is_a_picture(table):
    splits = splits_of(*table(lines()))
    assert splits.classes == ("cat", "dog") and splits.image_shape == (3, 16, 16)
    assert sum(map(len, splits.parts().values())) == 24
    for part in splits.parts().values():
        assert all(name.startswith(part.classes[label]) for name, label in zip(part.names, part.labels))


def test_it_is_the_folder_of_the_same_pictures(table, tmp_path):
    of_table = splits_of(*table(lines()))
    (tmp_path / "pictures/labels.csv").unlink()
    # the order is that of the lines; by file name, 10.png comes before 2.png
    rows = sorted(lines(), key=lambda line: line.split(",")[0])
    of_folder = splits_of("data=image_folder", f"data.root={tmp_path}/pictures", "data.image_size=16")
    assert splits_of(*table(rows)).digest == of_folder.digest != of_table.digest


def test_columns_have_other_names_and_pictures_another_root(table, tmp_path):
    overrides = table([f"x,{label},pictures/{path}" for path, label in pictures()], header="note,kind,file name")
    chosen = [f"data.root={tmp_path}", "data.path_column=file name", "data.label_column=kind"]
    splits = splits_of(*overrides, *chosen)
    assert splits.classes == ("cat", "dog") and splits.train.name(0).startswith("pictures/")


def test_a_column_of_splits_is_followed(table):
    parts = ["train"] * 6 + ["val"] * 2 + ["Test"] * 4
    splits = splits_of(*table(lines(parts.__getitem__), "path,label,split"))
    assert [sorted(part.names)[0] for part in splits.parts().values()] == ["cat/0.png", "cat/6.png", "cat/10.png"]
    assert [len(part) for part in splits.parts().values()] == [12, 4, 8]
    drawn = splits_of(*table(lines(parts.__getitem__), "path,label,split"), "data.split_column=null")
    assert len(drawn.train) != 12 and sum(map(len, drawn.parts().values())) == 24


def test_without_a_test_set_the_validation_set_is_it(table, caplog):
    parts = ["train"] * 8 + ["val"] * 4
    with caplog.at_level(logging.WARNING):
        splits = splits_of(*table(lines(parts.__getitem__), "path,label,split"))
    assert len(splits.test) == 8 and len(splits.train) + len(splits.validation) == 16
    assert "the pictures of validation are the test set" in caplog.text


def sides(splits, group_of):
    """The splits that each group is in."""
    found = {}
    for name, part in splits.parts().items():
        for picture in part.names:
            found.setdefault(group_of(picture), set()).add(name)
    return found


@pytest.mark.parametrize("how", ["stratified", "random"])
@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_in_one_split(table, how, seed):
    overrides = table(lines(lambda i: f"patient {i // 2}"), "path,label,group")
    splits = splits_of(*overrides, f"data.split={how}", "data.test_size=0.3", "data.validation_size=0.3", seed=seed)
    groups = sides(splits, lambda name: int(name[4:-4]) % 100 // 2)
    assert len(groups) == 6 and all(len(each) == 1 for each in groups.values())
    if how == "stratified":
        assert all((part.class_counts > 0).all() for part in splits.parts().values())
    alone = splits_of(*overrides, "data.group_column=null", seed=seed)
    assert any(len(each) > 1 for each in sides(alone, lambda name: int(name[4:-4]) % 100 // 2).values())


def test_pictures_without_a_group_are_on_their_own(table):
    overrides = table(lines(lambda i: "burst" if i < 4 else ""), "path,label,group")
    splits = splits_of(*overrides, "data.test_size=8", "data.validation_size=4")
    assert len(sides(splits, lambda name: "burst" if int(name[4:-4]) % 100 < 4 else name)["burst"]) == 1
    assert sum(map(len, splits.parts().values())) == 24


def test_labels_that_are_numbers_are_in_their_order(table):
    numbers = {"cat": "10", "dog": "9"}
    rows = [f"{path},{numbers[label]}" for path, label in pictures()]
    assert splits_of(*table(rows)).classes == ("9", "10")


def test_a_changed_table_is_read_again(table):
    first = splits_of(*table(lines()))
    assert splits_of(*table(lines())) is first
    renamed = [line.replace(",dog", ",wolf") for line in lines()]
    again = splits_of(*table(renamed))
    assert again.classes == ("cat", "wolf") and again.train.source is first.train.source


def test_everything_is_read_for_an_evaluation(table):
    config = compose_config(table(lines(lambda i: "test"), "path,label,split"))
    assert len(load_all(config.data)) == 24
    with pytest.raises(UserError, match="no picture has split=train"):
        splits_of(*table(lines(lambda i: "test"), "path,label,split"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat/0.jpg,cat", "line 26: there is no file {root}/cat/0.jpg"),
        ("cat,cat", "line 26: {root}/cat is not a file"),
        ("cat/0.png,", "line 26: the label is empty"),
        (",cat", "line 26: the path is empty"),
        ("cat/0.png,cat", "line 26: {root}/cat/0.png is on line 2 too"),
        ("./cat//0.png,dog", "line 26: {root}/cat/0.png is on line 2 too, with the label cat"),
        ("../other.png,cat", "outside of {root}; set data.root"),
        ("/etc/passwd,cat", "line 26: /etc/passwd is outside of {root}"),
        ("cat/0.png", "line 26: has 1 cells, but the first line has 2"),
        ("cat/0.png,cat,", "line 26: has 3 cells, but the first line has 2"),
        ('"cat/0.png,cat', "line 26: is not CSV"),
        ('\n\n"cat/\n0.png",cat', "line 28: there is no file"),
    ],
)
def test_a_mistake_has_its_line(table, tmp_path, row, message):
    with pytest.raises(UserError) as caught:
        splits_of(*table([*lines(), row]))
    assert message.format(root=tmp_path / "pictures") in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_all_mistakes_are_listed_at_once(table):
    with pytest.raises(UserError) as caught:
        splits_of(*table([*lines(), "x.png,cat", "y.png,", *["z.png,cat"] * 30]))
    text = str(caught.value).split("\n")
    assert (
        "32 lines" in text[0]
        and text[1].startswith("  line 26: there is no file")
        and text[2].startswith("  line 27: the label")
    )
    assert len(text) == 22 and text[-1] == "  and 12 more"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path;label", "line 1: the columns are separated by semicolons; they must be separated by commas"),
        ("path\tlabel", "line 1: the columns are separated by tabs"),
        ("cat/0.png,cat", "line 1: names a picture (cat/0.png), but must name the columns"),
        ("image,label", "line 1: there is no column path; the columns are image, label; set data.path_column"),
        ("path,class", "line 1: there is no column label; the columns are path, class; set data.label_column"),
        ("path,label,label", "line 1: there are 2 columns label"),
    ],
)
def test_a_wrong_first_line_is_explained(table, header, message):
    with pytest.raises(UserError) as caught:
        splits_of(*table(lines(), header))
    assert message in str(caught.value)


def test_a_column_that_was_asked_for_must_be_there(table):
    with pytest.raises(UserError, match=r"there is no column patient;.*set data\.group_column"):
        splits_of(*table(lines()), "data.group_column=patient")


def test_an_empty_file_and_one_that_is_not_utf_8(table, tmp_path):
    overrides, file = table([]), tmp_path / "pictures/labels.csv"
    with pytest.raises(UserError, match="names no pictures"):
        splits_of(*overrides)
    file.write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        splits_of(*overrides)
    file.write_bytes(b"path,label\ncat/0.png,cat\ncat/1.png,\xe9\n")
    with pytest.raises(UserError, match="line 3: is not UTF-8"):
        splits_of(*overrides)
    file.write_bytes("\ufeffpath,label\n".encode() + "\r\n".join(lines()).encode())  # as Excel writes it
    assert splits_of(*overrides).classes == ("cat", "dog")


def test_splits_are_named_with_their_lines(table):
    with pytest.raises(UserError, match=r"line 5: the split is dev; must be train, val or test"):
        splits_of(*table(lines(lambda i: "dev" if i == 3 else "train"), "path,label,split"))
    with pytest.raises(UserError, match=r"line 2: the split is empty"):
        splits_of(*table(lines(lambda i: "" if i == 0 else "train"), "path,label,split"))
    rows = [f"{path},{label},{'test' if label == 'dog' else 'train'}" for path, label in pictures()]
    with pytest.raises(UserError, match="line 14: no picture of dog is in the training set"):
        splits_of(*table(rows, "path,label,split"))


def test_a_group_in_two_splits_is_named(table):
    rows = lines(lambda i: "train" if i < 6 else "test", lambda i: f"p{i // 4}")
    with pytest.raises(UserError, match=r"line 8: group=p1 is in test, but on line 6 in train"):
        splits_of(*table(rows, "path,label,split,group"))


def test_a_group_that_is_a_whole_class_is_named(table):
    rows = [f"{path},{label},{'anna' if label == 'dog' else path}" for path, label in pictures()]
    with pytest.raises(UserError, match=r"line 14: group=anna holds all 12 pictures of dog.*set data\.split=random"):
        splits_of(*table(rows, "path,label,group"))
    with pytest.raises(UserError, match="line 14: group=anna holds all 12"):
        splits_of(*table(rows, "path,label,group"), "data.folds=3", "data.fold=0", "data.split=random")
    parts = [f"{row},{['train', 'val', 'test'][i % 12 % 3]}" for i, row in enumerate(lines(lambda i: f"p{i % 3}"))]
    assert len(splits_of(*table(parts, "path,label,group,split")).test) == 8  # nothing is drawn


def test_readable_names(table, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({"dog": "Hund", "cat": "Katze", "bird": "Vogel"}))
    splits = splits_of(*table(lines()), f"data.class_names={tmp_path}/names.json")
    assert splits.classes == ("Katze", "Hund")
    assert all(name.startswith(("cat", "dog")[label]) for name, label in zip(splits.test.names, splits.test.labels))


def test_the_data_set_has_the_name_of_the_file(table):
    config = compose_config(table(lines()))
    assert config.data.title == config.experiment == "labels"
    assert compose_config([*table(lines()), "data.name=pets"]).data.title == "pets"
