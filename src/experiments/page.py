"""What a report tells of, and its page: HTML that asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from experiments import figures
from experiments.config import Config
from experiments.data import Images
from experiments.evaluation import Evaluation
from experiments.figures import Figure
from experiments.provenance import masked

PICTURES = 1200  # in the page, at most
SIDE = 48  # pixels of a picture in the page, at most
SPRITE = 1_500_000  # bytes of all pictures in the page, at most
MATRIX = 40  # classes in the page's matrix, at most
BINS = 15  # of the calibration, as Guo et al. have it


@dataclass(frozen=True)
class Content:
    """What a report tells of.

    Attributes:
        images: those that were evaluated; `probabilities` (N, classes) and `test` are about them.
        history: metrics an epoch; empty for an evaluation that is no training.
        balance: split -> pictures a class, (classes,); the evaluated split is the last.
        layers: (kind, output shape, parameters) of every layer.
        statement: how often, and with what, the test set was looked at.
        augmented: training pictures as they are and as some epochs show them, uint8 (1 + epochs, pictures, 3, H, W);
            None where nothing changes them.
    """

    name: str
    command: str
    config: Config
    images: Images
    probabilities: np.ndarray
    test: Evaluation
    history: Sequence[Mapping[str, float]]
    best_epoch: int
    balance: Mapping[str, np.ndarray]
    layers: Sequence[tuple[str, tuple[int, ...], int]]
    statement: str
    environment: Mapping[str, str]
    split: str = "test"
    augmented: np.ndarray | None = None

    @property
    def note(self) -> str:
        """How predictions were made, where that was not plainly."""
        return self.config.evaluation.note

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, (N,)."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def said(self) -> np.ndarray:
        """Predicted class, (N,)."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `calibration`."""
        return calibration(self.confidence, self.said == self.images.labels)


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean confidence, accuracy, share of all) of `BINS` equal intervals of confidence; 0 where a bin is empty.

    Guo et al., "On calibration of modern neural networks", 2017; their expected calibration error is
    `sum(share * abs(accuracy - confidence))`.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    mean, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean, accuracy, counts / len(confidence)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson, 1927)."""
    z = 1.959964
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / total + spread / (4 * total)) ** 0.5
    return middle - half, middle + half


def page(content: Content, drawn: Mapping[str, Figure], configuration: str) -> str:
    test, classes = content.test, content.images.classes
    mistakes, unsure, cells = _chosen(content)
    shown = {int(row): None for rows in (mistakes, unsure, *cells.values()) for row in rows}
    place = {row: index for index, row in enumerate(shown)}

    def item(row: int) -> dict[str, Any]:
        true, said = classes[content.images.labels[row]], classes[content.said[row]]
        return {"place": place[int(row)], "true": true, "said": said, "probability": float(content.confidence[row])}

    in_matrix = _in_matrix(test)
    shares = test.confusion / np.maximum(test.support, 1)[:, None]
    mean, accuracy, share = content.calibration
    return render(
        "report.html.j2",
        name=content.name,
        command=masked(content.command),
        test=test,
        interval=wilson_interval(int(np.trace(test.confusion)), int(test.confusion.sum())),
        calibration_error=float((share * np.abs(accuracy - mean)).sum()),
        cards=_cards(content),
        statement=content.statement,
        note=content.note,
        tta=content.config.evaluation.tta,
        split=content.split,
        figures={
            name: figures.svg(drawn[name]) for name in ("curves", "calibration", "class_balance") if name in drawn
        },
        classes=classes,
        matrix=[
            [
                {"true": int(true), "said": int(said), "count": int(count), "share": float(shares[true, said])}
                for said, count in zip(in_matrix, test.confusion[true, in_matrix])
            ]
            for true in in_matrix
        ],
        in_matrix=in_matrix.tolist(),
        cells={
            f"{true},{said}": [[place[int(row)], round(float(content.confidence[row]), 3)] for row in rows]
            for (true, said), rows in cells.items()
        },
        rows=_class_rows(content),
        balance=content.balance,
        balancing=_balancing(content.config),
        mistakes=[item(row) for row in mistakes],
        unsure=[item(row) for row in unsure],
        sprite=_sprite(content.images[list(shown)].pixels),
        layers=content.layers,
        parameters=sum(count for _, _, count in content.layers),
        configuration=configuration,
        environment=content.environment,
        augmented=_augmented(content),
    )


def render(template: str, **values: Any) -> str:
    """A page; `template` is a path in this package."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(template).render(values)


def _chosen(content: Content) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """Rows of the pictures to show: confident mistakes, unsure right ones, and of each cell those it was surest of."""
    labels, said = content.images.labels, content.said
    surest_first = np.argsort(-content.confidence, kind="stable")
    wrong = (said != labels)[surest_first]
    shown = set(_in_matrix(content.test).tolist())
    by_cell: dict[tuple[int, int], list[int]] = {}
    for row in surest_first:
        if labels[row] in shown and said[row] in shown:
            by_cell.setdefault((int(labels[row]), int(said[row])), []).append(int(row))
    a_cell = max(1, (PICTURES - 48) // max(len(by_cell), 1))
    cells = {cell: np.array(rows[: min(a_cell, 24)]) for cell, rows in by_cell.items()}
    return surest_first[wrong][:24], surest_first[~wrong][::-1][:12], cells


def _in_matrix(test: Evaluation) -> np.ndarray:
    """The classes of the page's matrix: all, or of very many those with the most mistakes."""
    mistakes = test.confusion.sum(axis=0) + test.confusion.sum(axis=1) - 2 * np.diag(test.confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MATRIX])


def _cards(content: Content) -> list[tuple[str, str]]:
    if not content.history:
        return [(f"{len(content.images):,}", "pictures")]
    best = content.history[content.best_epoch - 1]
    seconds = sum(epoch["epoch_seconds"] for epoch in content.history)
    speed = np.mean([epoch["images_per_second"] for epoch in content.history])
    return [
        (f"{best['val/accuracy']:.1%}".replace("%", " %"), f"validation accuracy, epoch {content.best_epoch}"),
        (f"{len(content.history)}", "epochs"),
        (f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 60:,.0f} min", "training and validation"),
        (f"{speed:,.0f}", "images a second"),
    ]


def _class_rows(content: Content) -> list[dict[str, Any]]:
    test, images = content.test, content.images
    trained = next(iter(content.balance.values()))
    share = trained / max(trained.sum(), 1)
    settings, present = content.config.training, trained > 0
    drawn = present / max(present.sum(), 1) if settings.sampler == "balanced" else share
    weights = present / np.maximum(trained, 1) if settings.class_weights == "balanced" else present
    learned = drawn * weights / max((drawn * weights).sum(), np.finfo(float).tiny)
    columns = zip(images.classes, test.precision, test.recall, test.f1, test.support, trained, share, learned)
    keys = ("name", "precision", "recall", "f1", "support", "trained", "share", "learned")
    return [dict(zip(keys, row)) for row in columns]


def _balancing(config: Config) -> str:
    weights, sampler = config.training.class_weights, config.training.sampler
    if weights == sampler == "balanced":
        return "Balanced twice: rare classes were drawn more often, and weighed more in the loss."
    if sampler == "balanced":
        return "training.sampler=balanced: every class was drawn alike often, rare ones with repetition."
    if weights == "balanced":
        return (
            "training.class_weights=balanced: every class weighed the same in the loss, however many pictures it has."
        )
    return "Every training picture counted once (training.class_weights=balanced or training.sampler=balanced change that)."


def _augmented(content: Content) -> dict[str, Any] | None:
    """Rows of pictures with their names, and which keys changed them."""
    if content.augmented is None:
        return None
    settings = content.config.to_dict()["augment"].items()
    return {
        "changes": [f"augment.{key}={value}" for key, value in settings if value not in ("none", 0)],
        "rows": list(zip(augmented_rows(content.augmented), map(_sprite, content.augmented))),
    }


def _sprite(pixels: np.ndarray) -> dict[str, Any]:
    """All pictures (N, 3, H, W) in one, as a data address, and how many stand in a row."""
    columns = max(1, min(40, len(pixels)))
    side = min(SIDE, pixels.shape[2])
    sheet = Image.new("RGB", (columns * side, max(1, -(-len(pixels) // columns)) * side))
    for index, picture in enumerate(pixels):
        image = Image.fromarray(picture.transpose(1, 2, 0)).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (index % columns * side, index // columns * side))
    for quality in (88, 70, 40, 10, 0):
        buffer = io.BytesIO()
        sheet.save(buffer, "webp", quality=quality)
        if buffer.tell() <= SPRITE:
            break
    return {"uri": f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", "columns": columns}


def augmented_rows(augmented: np.ndarray) -> list[str]:
    """What the rows of `Content.augmented` are."""
    return ["as it is", *(f"epoch {epoch}" for epoch in range(1, len(augmented)))]
