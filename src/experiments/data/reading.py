"""Picture files -> pixels: decoded once into a file that is mapped into memory, or decoded on the fly, whenever they are read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config.data import Decoding
from experiments.data.decoding import decoder, refuse
from experiments.data.finding import tell_once
from experiments.data.on_the_fly import OnTheFly
from experiments.data.pixels import PictureFiles, Pixels, hash_of, images_per_chunk
from experiments.data.prefetch import prefetch
from experiments.data.squares import read_pictures
from experiments.files.cache import Cached, Files, cached
from experiments.files.limits import usable_cpus
from experiments.files.verified import Chunks


@functools.lru_cache(maxsize=3)  # of each split: another split of the same pictures need not read them again
def read_files(files: Files, root: Path, decoding: Decoding, cache: str) -> Pixels | OnTheFly:
    """The images of picture files, named relative to `root`; what is made of the files is kept in the folder `cache`.

    Raises:
        UserError: listing all files that cannot be read.
    """
    start = os.path.join(root, "")  # noqa: PTH118 - a Path has no separator at its end

    def name_of(index: int) -> str:
        name = files.paths[index].removeprefix(start).replace(os.sep, "/")
        return os.fsencode(name).decode("utf-8", "backslashreplace")  # a name that is not UTF-8 could not be written

    size, fit = decoding.image_size, decoding.fit
    if (nbytes := 3 * size * size * len(files.paths)) > decoding.map_limit:
        limit = decoding.map_limit
        tell_once(
            f"{root}: the pictures are decoded on the fly: {nbytes / 1e9:.1f} GB of images are more than data.map_limit={limit} "
            f"({limit / 1e9:.1f} GB)"
        )
        key = ("on the fly", decoder(fit), size, fit, files.digest)
        hashes, contents = cached(cache, key, ("hashes", "contents"), lambda: _hashed(files.paths, decoding))
        return OnTheFly(PictureFiles(files, _rows(contents), decoding, cache), _rows(hashes), name_of)
    if fit == "squash":
        of_squares = ("image_folder", decoder(), size, files.digest)
        (pixels,) = cached(cache, of_squares, ("pixels",), lambda: (_decoded(files.paths, size),))
        return Pixels(pixels, name_of)
    key = ("decoded once", decoder(fit), size, fit, files.digest)
    pixels, contents = cached(cache, key, ("pixels", "contents"), lambda: _decoded_and_hashed(files.paths, decoding))
    return Pixels(pixels, name_of, PictureFiles(files, _rows(contents), decoding, cache))


def read_few(files: Files, decoding: Decoding, on_the_fly: bool) -> Pixels | OnTheFly:
    """The images of a few picture files, named by their paths; nothing is kept.

    Raises:
        UserError: listing all files that cannot be read.
    """
    if not on_the_fly:
        pixels, problems = read_pictures(files.paths, decoding.image_size, decoding.fit)
        refuse(problems)
        contents = _rows(np.array([_hash_file(path) for path in files.paths], dtype=np.uint8))
        photographs = None if decoding.fit == "squash" else PictureFiles(files, contents, decoding, None)
        return Pixels(pixels, files.paths.__getitem__, photographs)
    hashes, contents = map(_rows, _hashed(files.paths, decoding))
    return OnTheFly(PictureFiles(files, contents, decoding, None), hashes, files.paths.__getitem__)


def _decoded(paths: Sequence[str], image_size: int) -> Chunks:
    def read(part: slice) -> tuple[np.ndarray, list[str]]:
        return read_pictures(paths[part], image_size)

    return Chunks((len(paths), 3, image_size, image_size), _chunks(read, len(paths), image_size))


def _decoded_and_hashed(paths: Sequence[str], decoding: Decoding) -> tuple[Chunks, np.ndarray]:
    """The pixels, and hashes of the files, uint8 (N, 16), which are complete when all pixels have been taken."""
    size = decoding.image_size
    contents = np.zeros((len(paths), 16), dtype=np.uint8)

    def read(part: slice) -> tuple[np.ndarray, list[str]]:
        contents[part] = [_hash_file(path) for path in paths[part]]
        return read_pictures(paths[part], size, decoding.fit)

    return Chunks((len(paths), 3, size, size), _chunks(read, len(paths), size)), contents


def _hashed(paths: Sequence[str], decoding: Decoding) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the pixels of each picture, and of the content of each file, uint8 (N, 16) each.

    Every picture is decoded for this, so that all that cannot be read are found before training.
    """
    pixels, contents = _decoded_and_hashed(paths, decoding)
    hashes = b"".join(hash_of(image.data) for chunk in pixels.chunks for image in chunk)
    return np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 16), contents


def _chunks(
    read: Callable[[slice], tuple[np.ndarray, list[str]]], pictures: int, image_size: int
) -> Iterator[np.ndarray]:
    count = images_per_chunk((3, image_size, image_size))
    parts = [slice(start, start + count) for start in range(0, pictures, count)]
    threads = usable_cpus()  # what decodes releases the interpreter lock
    problems: list[str] = []
    results = prefetch(read, parts, threads, 2 * threads)
    for pixels, found in track(results, "decoding pictures", total=len(parts)):
        problems += found
        yield pixels
    refuse(problems)


def _hash_file(path: str) -> np.ndarray:
    try:
        return np.frombuffer(hash_of(Path(path).read_bytes()), dtype=np.uint8)
    except OSError:  # it is reported as a picture that cannot be read
        return np.zeros(16, dtype=np.uint8)


def _rows(hashes: Cached | np.ndarray) -> np.ndarray:
    """A hash per row as one value each, shape (N,)."""
    array = hashes.verified(np.arange(len(hashes.array))) if isinstance(hashes, Cached) else hashes
    return np.ascontiguousarray(array).reshape(-1, 16).view("V16")[:, 0]
