"""What is found in folders of pictures: nothing vanishes without a word, and nothing counts twice."""

import logging
import os
import unicodedata

import pytest

from experiments.config import UserError
from experiments.config.loading import compose_config
from experiments.data.sources.image_folder import ImageFolder
from samples import paint, splits_of


@pytest.fixture
def names_in(picture_folder, here):
    """A function that returns the names of all pictures that a run would use."""

    def names(*overrides):
        config = compose_config(["data=image_folder", f"data.root={picture_folder}", *overrides]).data
        return sorted(ImageFolder(config).read_all().names)

    return names


@pytest.fixture
def closed(monkeypatch):
    """A function that makes a folder unreadable, also for the superuser."""
    folders, scandir = set(), os.scandir

    def scan(folder="."):
        if os.path.realpath(folder) in folders:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    return lambda folder: folders.add(os.path.realpath(folder))


def test_folders_that_cannot_be_read_are_listed(picture_folder, here, closed):
    paint(picture_folder / "cat", "b", 3, 300)
    paint(picture_folder / "dog", "d", 3, 400)
    for name in ("cat/b", "dog/d"):
        closed(picture_folder / name)
    with pytest.raises(UserError) as caught:
        splits_of("data=image_folder", f"data.root={picture_folder}")
    assert f"{picture_folder}/cat/b: cannot be read (Permission denied)" in str(caught.value)
    assert f"{picture_folder}/dog/d: cannot be read (Permission denied)" in str(caught.value)


def test_a_root_that_cannot_be_read_is_named(picture_folder, here, closed):
    closed(picture_folder)
    with pytest.raises(UserError, match=r"pictures: cannot be read \(Permission denied\)"):
        splits_of("data=image_folder", f"data.root={picture_folder}")


def test_extra_images_in_a_folder_that_cannot_be_read_are_reported(tmp_path, closed):
    paint(tmp_path, "tigers", 3, 0)
    paint(tmp_path / "tigers", "more", 3, 10)
    closed(tmp_path / "tigers/more")
    with pytest.raises(UserError, match="more: cannot be read"):
        splits_of("data=digits", f"data.extra=[{{path: {tmp_path}/tigers, label: tiger}}]")


def test_linked_folders_are_followed_once(picture_folder, tmp_path, names_in):
    paint(tmp_path / "elsewhere", "more", 3, 600)
    (picture_folder / "cat/linked").symlink_to(tmp_path / "elsewhere")
    (picture_folder / "cat/linked again").symlink_to(tmp_path / "elsewhere/more")
    (picture_folder / "cat/round").symlink_to(picture_folder / "cat")
    (picture_folder / "cat/up").symlink_to(picture_folder / "cat/self")
    (picture_folder / "cat/self").symlink_to(picture_folder / "cat/self")
    (tmp_path / "elsewhere/back").symlink_to(picture_folder / "cat")
    names = names_in()
    assert len(names) == 33
    assert sum("linked" in name for name in names) == 3


def test_a_link_to_a_missing_picture_is_named(picture_folder, names_in):
    (picture_folder / "cat/lost.png").symlink_to(picture_folder / "nowhere.png")
    with pytest.raises(UserError, match=r"cat/lost\.png: is a link to a file that is not there"):
        names_in()


def test_what_systems_and_tools_make_is_ignored_in_one_line(picture_folder, names_in, caplog):
    before = names_in()
    paint(picture_folder, "@eaDir", 2, 700)
    paint(picture_folder / "cat", "@eaDir", 2, 710)
    paint(picture_folder, "__MACOSX", 2, 720)
    paint(picture_folder, "lost+found", 2, 730)
    paint(picture_folder, ".thumbnails", 2, 740)
    paint(picture_folder / "dog", ".hidden", 2, 750)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png"):
        (picture_folder / "dog" / name).write_bytes(b"made by a system")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert names_in() == before
    (line,) = caplog.messages
    assert "10 files and folders of systems and tools ignored" in line
    for name in ("2 @eaDir", "1 __MACOSX", "1 lost+found", "1 .thumbnails", "1 Thumbs.db", "1 ._0.png"):
        assert name in line


def test_files_that_are_no_pictures_are_counted_by_their_ending(picture_folder, names_in, caplog):
    for name in ("a.txt", "b.TXT", "notes", "c.h5", "d.eps"):
        (picture_folder / "cat" / name).write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        assert len(names_in()) == 30
    assert "5 files ignored: 2 .txt, 1 .eps, 1 .h5, 1 without an ending" in caplog.text
    for name in ("b.TXT", "notes", "c.h5", "d.eps"):
        (picture_folder / "cat" / name).unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        names_in()
    assert "1 file ignored: 1 .txt" in caplog.text


def test_pictures_outside_of_the_classes_are_mentioned(picture_folder, names_in, caplog):
    paint(picture_folder.parent, "pictures", 2, 800)
    with caplog.at_level(logging.WARNING):
        assert len(names_in()) == 30
    assert "2 pictures ignored, because they are in no folder of a class" in caplog.text


COMPOSED, DECOMPOSED = (
    unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}") for form in ("NFC", "NFD")
)


def test_names_that_look_equal_are_one_class(tmp_path, here):
    for start, name in enumerate((COMPOSED, DECOMPOSED, "bar")):
        paint(tmp_path / "set", name, 6, 100 * start)
    splits = splits_of("data=image_folder", f"data.root={tmp_path}/set")
    assert splits.classes == ("bar", COMPOSED)
    assert sum(part.class_counts for part in splits.parts().values()).tolist() == [6, 12]
    paint(tmp_path, "more", 2, 900)
    for label in (COMPOSED, DECOMPOSED):
        extra = f"data.extra=[{{path: {tmp_path}/more, label: '{label}'}}]"
        assert splits_of("data=image_folder", f"data.root={tmp_path}/set", extra).classes == ("bar", COMPOSED)


def test_a_test_folder_may_have_the_other_form_of_a_name(tmp_path, here):
    for start, name in enumerate((f"train/{COMPOSED}", "train/bar", f"test/{DECOMPOSED}")):
        paint(tmp_path / "set", name, 6, 100 * start)
    assert splits_of("data=image_folder", f"data.root={tmp_path}/set").test.class_counts.tolist() == [0, 6]


LONG = "a" * 300


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=image_folder", "data.root=file"], "data.root=file: is not a folder; it must"),
        (["data=image_folder", "data.root="], "data.root=: must be text of"),
        (["data=image_folder", f"data.root={LONG}"], f"data.root={LONG}: there is no such folder"),
        (["data=image_folder", "data.root='~nobody-here/x'"], "data.root=~nobody-here/x: there is no such folder"),
        (["data=image_folder", "data.root=file/in"], "data.root=file/in: there is no such folder"),
        (["data=cifar10", "data.urls=[]"], "data.urls=[]: must be one or more addresses"),
        (["data=cifar10", "data.urls=['']"], "data.urls=['']: must be one or more addresses"),
        (["data=cifar10", "data.sha256=abc"], "data.sha256=abc: must be 64 hexadecimal digits"),
        (["data=cifar10", "data.root=file"], "data.root=file: must be a folder; file is a file"),
        (["data=cifar10", "data.root=file/in"], "data.root=file/in: must be a folder; "),
        (["data=cifar10", f"data.root={LONG}"], f"data.root={LONG}: cannot be used for the download"),
        (["data=digits", f"data.extra=[{{path: {LONG}, label: new}}]"], "data.extra: there is no file or folder"),
        (
            ["data=digits", "data.extra=[{path: '~nobody-here/x', label: new}]"],
            "data.extra: there is no file or folder",
        ),
        (["data=digits", "data.extra=[{path: '', label: new}]"], "data.extra[0].path=: must be text of"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_in_paths_and_addresses_are_named(here, overrides, message):
    (here / "file").write_text("a file")
    with pytest.raises(UserError) as caught:
        splits_of(*overrides)
    assert str(caught.value).startswith(message)
    assert [file.name for file in here.iterdir()] == ["file"]
