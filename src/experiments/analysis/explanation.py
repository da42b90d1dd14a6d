"""Explanations of pictures of the user, or of the worst mistakes of a run, as figures in a folder.

explained = explain(run, mistakes(run, 10), "gradcam")
for path, picture in save(explained, Path("outputs/explanations")):
    print(path, picture)
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.analysis import attribution
from experiments.analysis.heatmaps import Heatmap, draw
from experiments.analysis.methods import METHODS
from experiments.analysis.pictures import AT_ONCE, SEEN, SHOWN, Picture, find_pictures, save_figure
from experiments.config import DataSettings, UserError
from experiments.config.wording import percent, shortened

if TYPE_CHECKING:
    from experiments.runs.finished import FinishedRun


DPI = 130
LABEL = 30  # characters of a class name above an image
LARGEST = 65_000  # pixels per side, about the most that matplotlib can draw


@dataclass(frozen=True)
class Subject:
    """An image to explain.

    Attributes:
        name: in figures and file names.
        source: identifies it among all others.
        original: uint8 (h, w, 3); for a picture of the user, at most `pictures.SHOWN` pixels per side.
        pixels: what the network gets, uint8 (3, H, W).
        truth: its class, if it is known.
    """

    name: str
    source: str
    original: np.ndarray
    pixels: np.ndarray
    truth: str | None = None


@dataclass(frozen=True)
class Explained:
    """An image with its heatmap, float32 (H, W), for the class `explained`; probabilities from 0 to 1.

    Attributes:
        fit: how the pixels were made from the original: squash, crop or pad.
    """

    subject: Subject
    run_id: str
    method: str
    heatmap: np.ndarray
    predicted: str
    probability: float
    explained: str
    explained_probability: float
    fit: str

    def __str__(self) -> str:
        truth = f" (truly {self.subject.truth})" if self.subject.truth else ""
        line = f"{self.subject.name}{truth}: {self.predicted} {percent(self.probability)}"
        if self.explained != self.predicted:
            line += f", why {self.explained} ({percent(self.explained_probability)})"
        return line

    @property
    def source(self) -> str:
        """Identifies this explanation among all others of the same file name."""
        return f"{self.subject.source}: {self.explained}, by run {self.run_id}"

    @property
    def file_name(self) -> str:
        """The image, the method, and the class if it is not the predicted one."""
        other = self.explained if self.explained != self.predicted else ""
        name = Path(self.subject.name).stem.rstrip("]")  # test[48], the index in an archive
        return "_".join(filter(None, [name[:60], self.method, other[:60]]))

    @property
    def row(self) -> Heatmap:
        """The row of a figure."""
        method, unit = METHODS[self.method]
        pixels = self.subject.pixels.transpose(1, 2, 0)
        name = self.subject.name if len(self.subject.name) <= 40 else f"…{self.subject.name[-39:]}"
        predicted, explained = shortened(self.predicted, LABEL), shortened(self.explained, LABEL)
        truth = f"\ntruly {shortened(self.subject.truth, LABEL)}" if self.subject.truth else ""
        headings = (
            f"{name}\n{predicted} {percent(self.probability)}{truth}",
            f"{method}\nwhy {explained} ({percent(self.explained_probability)})",
            f"{SEEN}\n{pixels.shape[1]} x {pixels.shape[0]}",
        )
        return Heatmap(self.subject.original, self.heatmap, pixels, headings, unit, self.fit)


def class_index(name: str, classes: Sequence[str]) -> int:
    """The index of a class.

    Raises:
        UserError: there is no such class; the message names the nearest one, and all classes.
    """
    if name not in classes:
        nearest = difflib.get_close_matches(name.lower(), [known.lower() for known in classes], n=1)
        meant = [f"did you mean {known}? " for known in classes if known.lower() in nearest]
        raise UserError(f"--class {name}: there is no such class; {''.join(meant[:1])}There are {', '.join(classes)}")
    return classes.index(name)


def subjects(
    paths: Iterable[str | Path], settings: DataSettings, report: Callable[[UserError], object]
) -> Iterator[Subject]:
    """The pictures at `paths`, which may be folders; one that cannot be read is reported and left out."""
    files, errors = find_pictures(paths)
    for error in errors:
        report(error)
    for file in files:
        try:
            picture = Picture.read(file, settings)
        except UserError as error:
            report(error)
        else:
            yield Subject(file, str(Path(file).resolve()), np.asarray(picture.original), picture.pixels)


def mistakes(run: FinishedRun, count: int) -> list[Subject]:
    """The `count` most confident wrong predictions on the test set, the most confident first.

    If the run was not evaluated on the test set, those on the validation set.

    Raises:
        UserError: the data is missing.
    """
    part = run.examined
    images = run.splits().parts()[part]
    probabilities = run.probabilities(images)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != images.labels)
    most_confident = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
    return [
        Subject(
            images.name(index), f"{images.name(index)} of {run.config.data.origin}",
            images.original(index, SHOWN), images.image(index), images.classes[images.labels[index]],
        )
        for index in most_confident.tolist()
    ]  # fmt: skip


def explain(
    run: FinishedRun, images: Iterable[Subject], method: str, target: int | None = None, layer: str | None = None
) -> Iterator[Explained]:
    """The explanation of each image by a method of `METHODS`: for the class `target`, or the predicted one if None.

    Raises:
        UserError: the network has no such layer, or the method does not use one.
    """
    function = getattr(attribution, method)
    if layer is not None:
        if method != "gradcam":
            raise UserError(f"--layer {layer}: only --method gradcam uses a layer")
        function = functools.partial(function, layer=layer)
    remaining = iter(images)
    while together := list(itertools.islice(remaining, AT_ONCE)):
        table = run.probabilities(np.stack([subject.pixels for subject in together]))
        for subject, probabilities in zip(together, table):
            predicted = int(probabilities.argmax())
            chosen = predicted if target is None else target
            heatmap = function(run.model, subject.pixels, chosen)
            yield Explained(
                subject, run.run_id, method, heatmap, run.classes[predicted],
                float(probabilities[predicted]), run.classes[chosen], float(probabilities[chosen]),
                run.config.data.fit,
            )  # fmt: skip


def save(explained: Iterable[Explained], folder: Path, sheet: bool = False) -> Iterator[tuple[Path, Explained]]:
    """Draw one PNG per image, or one `sheet` of all; yields the path with each image that it shows.

    A file is only replaced by the same image explained by the same run: others of the same name are numbered.

    Raises:
        UserError: nothing can be written into `folder`.
    """
    groups = [list(explained)] if sheet else ([image] for image in explained)
    for group in filter(None, groups):
        figure = draw([image.row for image in group])
        name = f"sheet_{group[0].method}" if sheet else group[0].file_name
        source = "\n".join(image.source for image in group)
        dpi = min(DPI, LARGEST / figure.get_figheight())
        path = save_figure(figure, folder, name, source, "--out", dpi)
        yield from ((path, image) for image in group)
