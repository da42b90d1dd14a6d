"""Files that are written whole or not at all."""

import multiprocessing
import os
import socket

import pytest

from experiments.files.atomic import atomic_write


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
