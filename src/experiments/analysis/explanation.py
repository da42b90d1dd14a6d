"""Pictures in, explained pictures out: one's own files or the worst mistakes of a run, as figures in a folder.

explained = explain(trained, mistakes(trained, 10), "gradcam")
for path, picture in save(explained, Path("outputs/explanations")): print(path, picture)
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from experiments.analysis.attribution import gradcam, integrated_gradients, occlusion
from experiments.analysis.heatmaps import Heatmap, draw
from experiments.config import UserError
from experiments.data.decoding import open_picture, pictures_in, resize

if TYPE_CHECKING:
    from experiments.runs.finished import FinishedRun


SHOWN = 512  # pixels a side of an original that are kept: more than its place in a figure has
TOGETHER = 50  # pictures that are held in memory and classified at once
DPI = 130
LARGEST = 65_000  # pixels a side that matplotlib can draw, nearly
METHODS: dict[str, tuple[Callable[..., np.ndarray], str, str]] = {  # function, name, unit
    "gradcam": (gradcam, "Grad-CAM", "strength, no unit"),
    "integrated_gradients": (integrated_gradients, "integrated gradients", "logits a pixel"),
    "occlusion": (occlusion, "occlusion", "logits lost when covered"),
}


@dataclass(frozen=True)
class Subject:
    """A picture to explain.

    Attributes:
        name: what it is called in figures and file names.
        source: what tells it from all others.
        original: uint8 (h, w, 3), at its own size up to `SHOWN`.
        pixels: uint8 (3, H, W), what the network gets.
        truth: its class, where that is known.
    """

    name: str
    source: str
    original: np.ndarray
    pixels: np.ndarray
    truth: str | None = None


@dataclass(frozen=True)
class Explained:
    """A picture with its heatmap, float32 (H, W), for the class `explained`; probabilities from 0 to 1."""

    subject: Subject
    run_id: str
    method: str
    heatmap: np.ndarray
    predicted: str
    probability: float
    explained: str
    explained_probability: float

    def __str__(self) -> str:
        truth = f" (truly {self.subject.truth})" if self.subject.truth else ""
        other = f", why {self.explained} ({self.explained_probability:.1%})" if self.explained != self.predicted else ""
        return f"{self.subject.name}{truth}: {self.predicted} {self.probability:.1%}{other}"

    @property
    def source(self) -> str:
        """What tells this explanation from all others of the same file name."""
        return f"{self.subject.source}: {self.explained}, by run {self.run_id}"

    @property
    def row(self) -> Heatmap:
        """As the figures draw it."""
        _, method, unit = METHODS[self.method]
        truth = f" (truly {self.subject.truth})" if self.subject.truth else ""
        seen = self.subject.pixels.transpose(1, 2, 0)
        headings = (
            f"{_short(self.subject.name)}\n{self.predicted} {self.probability:.1%}{truth}",
            f"{method}\nwhy {self.explained} ({self.explained_probability:.1%})",
            f"what the network sees\n{seen.shape[1]} x {seen.shape[0]}",
        )
        return Heatmap(self.subject.original, self.heatmap, seen, headings, unit)


def class_index(name: str, classes: Sequence[str]) -> int:
    """The index of a class.

    Raises:
        UserError: with the nearest class, and all there are.
    """
    if name not in classes:
        nearest = difflib.get_close_matches(name.lower(), [known.lower() for known in classes], n=1)
        meant = [f"did you mean {known}? " for known in classes if known.lower() in nearest]
        raise UserError(f"--class {name}: there is no such class; {''.join(meant[:1])}There are {', '.join(classes)}")
    return classes.index(name)


def subjects(paths: Iterable[Path], image_size: int, report: Callable[[UserError], object]) -> Iterator[Subject]:
    """The pictures among `paths`, and those in folders among them; what is none is reported and left out."""
    for path in paths:
        files = pictures_in(path) if path.is_dir() else [path]
        if not files:
            report(UserError(f"{path}: the folder holds no pictures"))
        for file in files:
            try:
                rgb = open_picture(file)
            except UserError as error:
                report(error)
                continue
            pixels = resize(rgb, image_size)
            rgb.thumbnail((SHOWN, SHOWN))
            yield Subject(str(file), str(file.resolve()), np.asarray(rgb), pixels)


def mistakes(trained: FinishedRun, count: int) -> list[Subject]:
    """The wrong answers on the test set that the run is surest of, surest first; fewer where it made fewer.

    Of a run that was not tested, those on the validation set.

    Raises:
        UserError: where the data is not there any more.
    """
    part = trained.examined
    images = trained.splits().validation if part == "validation" else trained.splits().test
    probabilities = trained.probabilities(images.pixels)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != images.labels)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
    return [
        Subject(
            f"{part} image {number}", f"{part} image {number} of data {trained.config.data.name}",
            images.image(number).transpose(1, 2, 0), images.image(number), images.classes[images.labels[number]],
        )
        for number in surest
    ]  # fmt: skip


def explain(
    trained: FinishedRun, pictures: Iterable[Subject], method: str, target: int | None = None, layer: str | None = None
) -> Iterator[Explained]:
    """The explanation of each picture: for the class `target`, or the predicted one if None.

    Raises:
        UserError: where the network has no such layer, or the method looks at none.
    """
    function = METHODS[method][0]
    if layer is not None:
        if method != "gradcam":
            raise UserError(f"--layer {layer}: only --method gradcam looks at a layer")
        function = functools.partial(gradcam, layer=layer)
    waiting = iter(pictures)
    while together := list(itertools.islice(waiting, TOGETHER)):
        table = trained.probabilities(np.stack([subject.pixels for subject in together]))
        for subject, probabilities in zip(together, table):
            predicted = int(probabilities.argmax())
            chosen = predicted if target is None else target
            heatmap = function(trained.model, subject.pixels, chosen)
            yield Explained(
                subject, trained.run_id, method, heatmap, trained.classes[predicted],
                float(probabilities[predicted]), trained.classes[chosen], float(probabilities[chosen]),
            )  # fmt: skip


def save(explained: Iterable[Explained], folder: Path, sheet: bool = False) -> Iterator[tuple[Path, Explained]]:
    """Draws a PNG a picture, or one `sheet` of all, and gives its path with each picture that is on it.

    A file is named after the picture, the method, and the class if it is not the predicted one. It is only replaced by
    the same picture explained by the same run: others of the same name are numbered.

    Raises:
        UserError: where `folder` cannot be written to.
    """
    groups = [list(explained)] if sheet else ([picture] for picture in explained)
    for group in filter(None, groups):
        source = "\n".join(picture.source for picture in group)
        figure = draw([picture.row for picture in group])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = _free(folder, f"sheet_{group[0].method}" if sheet else _file_name(group[0]), source)
            dpi = min(DPI, LARGEST / figure.get_figheight())
            figure.savefig(path, dpi=dpi, metadata={"Source": source})
        except OSError as error:
            raise UserError(f"--out {folder}: cannot be written to ({error})") from None
        yield from ((path, picture) for picture in group)


def _file_name(picture: Explained) -> str:
    other = picture.explained if picture.explained != picture.predicted else ""
    parts = [Path(picture.subject.name).stem[:60], picture.method, other[:60]]
    return "_".join(re.sub(r"[^\w.-]+", "_", part) for part in parts if part)


def _free(folder: Path, name: str, source: str) -> Path:
    """The first of name.png, name_2.png, ... that is not there, or is of the same source."""
    for number in itertools.count(1):
        path = folder / (f"{name}.png" if number == 1 else f"{name}_{number}.png")
        if not path.exists() or _source(path) == source:
            return path
    raise AssertionError


def _source(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.info.get("Source")
    except (OSError, SyntaxError, ValueError):  # not a picture of ours
        return None


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
