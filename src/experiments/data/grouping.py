"""Groups of images that stay together when images are split, such as the pictures of one patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.config import UserError
from experiments.config.wording import counted, named
from experiments.data.images import Images

DRAWS, LARGE = 20, 20_000  # orders of the groups that are tried; groups in all of them together, at most


def has_groups(images: Images) -> bool:
    """Whether some images must stay together."""
    return images.groups is not None and len(np.unique(images.groups)) < len(images)


def check_groups(images: Images, setting: str, folds: int = 2) -> None:
    """Check that the groups can be divided into `folds` parts, and that no group holds a whole class.

    Raises:
        UserError: they cannot, or one does.
    """
    assert images.groups is not None
    groups = len(np.unique(images.groups))
    if groups < folds:
        raise UserError(f"{setting}: there are only {counted(groups, 'group')}; each is in one part as a whole")
    pairs = np.unique(np.stack([images.labels, images.groups]), axis=1)
    of_class = np.bincount(pairs[0], minlength=len(images.classes))
    if whole := [images.classes[label] for label in np.flatnonzero(of_class == 1)]:
        raise UserError(
            f"{setting}: all images that are left of {named(whole)} are in one group, so they cannot be in more than one part; add groups"
        )


def hold_out_groups(images: Images, count: int, how: str, seed: int, setting: str) -> np.ndarray:
    """Indices of about `count` images to hold out: whole groups.

    Groups are taken in random order if they bring the number of images, or with `stratified` that of every class, closer
    to what is wanted. Of several orders, the closest result is used.

    Args:
        setting: key and value that ask for this, for messages.

    Raises:
        UserError: with `stratified`, not every class would be in both parts; or `how` is `first`.
    """
    assert images.groups is not None
    if how == "first":
        raise UserError("data.split=first: would divide groups of images; set data.split=stratified, or random")
    stratified = how == "stratified"
    labels = images.labels if stratified else np.zeros_like(images.labels)
    if len(np.unique(images.groups)) < 2:
        raise UserError(f"{setting}: all images are in one group, so they cannot be divided; add groups")
    if stratified:
        check_groups(images, f"data.split=stratified: {setting}")
    names, group_of = np.unique(images.groups, return_inverse=True)
    wanted = np.bincount(labels) * (count / len(labels))
    contents = _contents(labels, group_of, len(names))
    generator = np.random.default_rng(seed)
    draws = max(1, min(DRAWS, LARGE // len(names)))
    drawn = [_draw(contents, wanted, generator.permutation(len(names))) for _ in range(draws)]
    missing, _, chosen = min(drawn, key=lambda each: each[:2])
    if stratified and missing:
        raise UserError(
            f"data.split=stratified: {setting}: no choice of whole groups has images of every class in both parts; "
            "change the size, add groups, or set data.split=random"
        )
    return np.flatnonzero(np.isin(group_of, chosen))


Content = tuple[np.ndarray, np.ndarray]  # of a group: labels, images of each


def _contents(labels: np.ndarray, group_of: np.ndarray, groups: int) -> list[Content]:
    pairs, counts = np.unique(np.stack([group_of, labels]), axis=1, return_counts=True)
    starts = np.searchsorted(pairs[0], np.arange(1, groups))
    return list(zip(np.split(pairs[1], starts), np.split(counts, starts)))


def _draw(contents: Sequence[Content], wanted: np.ndarray, order: np.ndarray) -> tuple[int, float, list[int]]:
    """(classes that are not in both parts, distance from the wanted numbers, the groups that are held out)."""
    weights = 1 / np.maximum(wanted, 1e-9)  # a rare class counts as much as a frequent one
    held, total = np.zeros(len(wanted)), np.zeros(len(wanted))
    chosen: list[int] = []

    def farther(group: int) -> float:
        """By how much this group increases the distance."""
        labels, counts = contents[group]
        return float((counts * (counts + 2 * (held[labels] - wanted[labels])) * weights[labels]).sum())

    def take(group: int) -> None:
        held[contents[group][0]] += contents[group][1]
        chosen.append(group)

    for group in order.tolist():
        total[contents[group][0]] += contents[group][1]
        if farther(group) < 0 and len(chosen) < len(contents) - 1:
            take(group)
    for label in np.flatnonzero(total):  # all groups of a class may be larger than what is wanted of it
        if not held[label]:
            take(min((group for group in order.tolist() if label in contents[group][0]), key=farther))
    missing = int(((total > 0) & ((held == 0) | (held == total))).sum())
    return missing, float(((held - wanted) ** 2 * weights).sum()), chosen
