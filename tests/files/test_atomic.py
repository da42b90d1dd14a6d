"""Files that are written whole or not at all."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from experiments.files import atomic
from experiments.files.atomic import append_line, atomic_write


def parts(path):
    return [file for file in path.parent.iterdir() if file != path]


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        with atomic_write(path) as file:
            file.write(content)
            assert not path.exists() if content == b"first" else path.read_bytes() == b"first"
        assert path.read_bytes() == content and not parts(path)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and not parts(path)


def killed(path):
    with atomic_write(path) as file:
        file.write(b"part")
        file.flush()
        os._exit(1)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path, elsewhere = tmp_path / "file [1]", tmp_path / "file [1].another-host-0123abcd.part"
    elsewhere.write_bytes(b"of another machine")
    process = multiprocessing.get_context("forkserver").Process(target=killed, args=(path,))
    process.start()
    process.join()
    assert not path.exists() and len(parts(path)) == 2
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole" and parts(path) == [elsewhere]


def test_temporary_names_are_unique(tmp_path):
    names = set()
    for _ in range(3):
        with atomic_write(tmp_path / "file") as file:
            names.add(file.name)
    assert len(names) == 3 and all(socket.gethostname() in name for name in names)


def test_the_content_is_synced_before_it_is_moved(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, path.exists())))
    with atomic_write(path) as file:
        file.write(b"content")
    assert synced == [(7, False)]


@pytest.fixture
def as_on_windows(monkeypatch):
    """A file cannot be replaced the first two times, because another process reads it."""
    tries, replace = [], Path.replace

    def read_by_another(path, target):
        tries.append(path)
        if len(tries) < 3:
            raise PermissionError(13, "The process cannot access the file")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", read_by_another)
    monkeypatch.setattr(atomic, "WINDOWS", True)
    monkeypatch.setattr(atomic, "PAUSE", 0)
    return tries


def test_on_windows_a_file_that_is_being_read_is_replaced_later(as_on_windows, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and len(as_on_windows) == 3 and not parts(path)
    as_on_windows.clear()
    monkeypatch.setattr(atomic, "TRIES", 1)
    with pytest.raises(PermissionError), atomic_write(path) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"new" and not parts(path)


@pytest.mark.parametrize("windows", [False, True])
def test_lines_are_added_as_they_are(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "WINDOWS", windows)
    for line in ("first", "zweite, größer"):
        append_line(tmp_path / "folder" / "lines", line)
    assert (tmp_path / "folder" / "lines").read_bytes() == "first\nzweite, größer\n".encode()
