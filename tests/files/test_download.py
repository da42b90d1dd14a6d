"""Downloads against a real server on this machine: broken connections, wrong files, several runs at once."""

import hashlib
import http.server
import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.config import UserError
from experiments.files.download import fetch, fetch_file

FILES = ("one", "two")


def archive(names, prefix="data"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"{prefix}/{name}")
            content = name.encode() * 200_000
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue() + b"\0" * 1_000_000  # padding, so that there is something to break off


GOOD = archive(FILES)
DIGEST = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def server():
    """(address, requests seen): /good, /cut (breaks off once, then continues), /stubborn (breaks off, ignores ranges), /wrong, /linked."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.split("/")[1]
            asked = self.headers.get("Range")
            seen.append((path, asked))
            if path == "linked":
                self.send_response(302)
                self.send_header("Location", self.path.replace("linked", "good"))
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(b"another file").hexdigest()}"')
                self.end_headers()
                return
            content = {"wrong": b"x" * 1000}.get(path, GOOD)
            if path not in ("good", "cut", "stubborn", "wrong"):
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and path != "stubborn" else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            breaks = path in ("cut", "stubborn") and sum(name == path for name, _ in seen) == 1
            self.wfile.write(content[start : start + 600_000] if breaks else content[start:])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", seen
        running.shutdown()


def get(server, root, *paths, sha256=DIGEST, files=FILES):
    fetch([f"{server[0]}/{path}/data.tar.gz" for path in paths], sha256, root, "data", files)


def arrived(root):
    return [(root / "data" / name).read_bytes() == name.encode() * 200_000 for name in FILES] == [True, True]


def test_a_download_is_unpacked_in_place(server, tmp_path):
    get(server, tmp_path, "good")
    assert arrived(tmp_path) and not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".unpack*"))


def test_what_is_there_is_not_downloaded_again(server, tmp_path):
    get(server, tmp_path, "good")
    get(server, tmp_path, "good")
    assert len(server[1]) == 1


def test_a_broken_download_is_continued(server, tmp_path):
    with pytest.raises(UserError, match="broke off"):
        get(server, tmp_path, "cut")
    have = (tmp_path / "data.tar.gz.part").stat().st_size
    get(server, tmp_path, "cut")
    assert arrived(tmp_path) and have > 0 and server[1][1] == ("cut", f"bytes={have}-")


def test_a_server_that_cannot_continue_starts_over(server, tmp_path):
    with pytest.raises(UserError):
        get(server, tmp_path, "stubborn")
    get(server, tmp_path, "stubborn")
    assert arrived(tmp_path)


def test_the_next_mirror_is_tried(server, tmp_path):
    get(server, tmp_path, "absent", "wrong", "good")
    assert arrived(tmp_path) and [path for path, _ in server[1]] == ["absent", "wrong", "good"]


def test_without_any_mirror_there_are_three_ways_on(server, tmp_path):
    with pytest.raises(UserError) as caught:
        get(server, tmp_path, "absent", "wrong")
    message = str(caught.value)
    assert "404" in message and "wrong SHA-256" in message
    assert all(way in message for way in (str(tmp_path / "data.tar.gz"), "data.root", "data=digits"))
    assert not list(tmp_path.iterdir())


def test_a_failed_download_leaves_no_folder_behind(server, tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        get(server, tmp_path / "new/folder", "absent")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="could not be downloaded"):
        get(server, tmp_path / "mine", "absent")
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").iterdir())
    with pytest.raises(UserError, match="broke off"):
        get(server, tmp_path / "new/folder", "cut")
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["data.tar.gz.part"]  # is continued later


def test_runs_that_start_together_all_learn_that_it_failed(server, tmp_path):
    def failure(_):
        with pytest.raises(UserError, match="could not be downloaded"):
            get(server, tmp_path, "absent")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(failure, range(4)))
    assert not list(tmp_path.iterdir())


def test_runs_that_start_together_download_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: get(server, tmp_path, "good"), range(4)))
    assert arrived(tmp_path) and len(server[1]) == 1


def test_an_archive_put_there_by_hand_is_used(server, tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(GOOD)
    get(server, tmp_path, "absent")
    assert arrived(tmp_path) and server[1] == []


def test_a_damaged_archive_is_named(server, tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(GOOD[:-1])
    with pytest.raises(UserError, match="is damaged"):
        get(server, tmp_path, "good")


def test_nothing_leaves_the_folder(tmp_path):
    evil = archive(["one", "../../escaped"])
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data.tar.gz").write_bytes(evil)
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(
            ["http://127.0.0.1:1/data.tar.gz"],
            hashlib.sha256(evil).hexdigest(),
            tmp_path / "root",
            "data",
            ["one", "../../escaped"],
        )
    assert not list(tmp_path.rglob("escaped")) and not (tmp_path / "root/data").exists()


def test_a_single_file_is_downloaded_once_and_checked_by_its_name(server, tmp_path):
    path = tmp_path / "data/weights" / f"net-{DIGEST[:8]}.pth"
    url = f"{server[0]}/good/{path.name}"
    assert fetch_file(url, path, "model.weights=imagenet").read_bytes() == GOOD
    fetch_file(url, path, "model.weights=imagenet")
    assert len(server[1]) == 1
    path.write_bytes(GOOD[:-1])
    with pytest.raises(UserError, match=rf"model\.weights=imagenet: .*{path.name} is damaged"):
        fetch_file(url, path, "model.weights=imagenet")


def test_a_broken_download_of_a_single_file_is_continued(server, tmp_path):
    path = tmp_path / f"net-{DIGEST[:8]}.pth"
    url = f"{server[0]}/cut/{path.name}"
    with pytest.raises(UserError, match="broke off"):
        fetch_file(url, path, "key")
    assert not path.exists() and fetch_file(url, path, "key").read_bytes() == GOOD


def test_another_file_of_that_name_is_not_taken(server, tmp_path):
    path = tmp_path / f"net-{DIGEST[:8]}.pth"
    with pytest.raises(UserError) as caught:
        fetch_file(f"{server[0]}/wrong/{path.name}", path, "model.weights=imagenet")
    assert "sent another file (wrong SHA-256)" in str(caught.value) and f"put it at {path}" in str(caught.value)
    assert not list(tmp_path.glob("net*"))


def test_a_digest_that_the_server_sends_is_checked(server, tmp_path):
    path = tmp_path / "net.safetensors"
    fetch_file(f"{server[0]}/good/net.safetensors", path, "key")
    path.unlink()
    with pytest.raises(UserError, match="sent another file"):
        fetch_file(f"{server[0]}/linked/net.safetensors", path, "key")
    assert not path.exists()
