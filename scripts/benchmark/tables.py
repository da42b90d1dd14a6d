"""What a contest prints."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from contest import Contest, Outcome, Setting
from rich.table import Table

NAMES = {
    "ours": "this project",
    "plain": "plain PyTorch loop",
    "lightning": "Lightning",
    "keras": "Keras on TensorFlow",
}


def title(setting: Setting) -> str:
    threads = f", {setting.threads} threads" if setting.threads else ""
    overrides = "".join(f", {override}" for override in setting.overrides)
    return f"batch {setting.batch:,}, {setting.precision}{threads}{overrides}: epochs of {setting.images:,} + {setting.validation:,}"


def line(outcome: Outcome, rounds: int) -> str:
    """One process."""
    if outcome.error:
        return f"{outcome.round}/{rounds}  {NAMES[outcome.contender]}: failed: {outcome.error}"
    seconds = " ".join(f"{second:.2f}" for second in outcome.seconds)
    return f"{outcome.round}/{rounds}  {NAMES[outcome.contender]}: {seconds} s an epoch"


def table(contest: Contest, setting: Setting) -> Table:
    """A row a contender; its ratios are those of the rounds, each against this project's epochs of the same round."""
    results = contest.results(setting)
    peak = f"peak {max(results.peaks) / 1e12:.2f} TFLOP/s"
    made = Table(title=f"{title(setting)}; {peak}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("", "s an epoch", "images/s", "times as long", "of the peak", "memory", "first step", "val. accuracy"):
        made.add_column(name, justify="right" if name else "left")
    for name in setting.contenders:
        outcomes = results.of(name)
        if not outcomes:
            made.add_row(NAMES[name], "failed")
            continue
        seconds = [second for outcome in outcomes for second in outcome.seconds]
        middle = median(seconds)
        made.add_row(
            NAMES[name],
            _spread(seconds, 2),
            f"{(setting.images + setting.validation) / middle:,.0f}",
            _spread(ratios(outcomes, results.of("ours")), 2),
            f"{contest.shares(setting, name, middle):.0%}",
            f"{median(outcome.peak_bytes for outcome in outcomes) / 2**30:.2f} GiB",
            f"{median(outcome.first_step for outcome in outcomes):.1f} s",
            f"{median(outcome.accuracies[-1] for outcome in outcomes):.3f}",
        )
    return made


def ratios(outcomes: Sequence[Outcome], ours: Sequence[Outcome]) -> list[float]:
    """How many times as long as ours, a number a round."""
    by_round = {outcome.round: median(outcome.seconds) for outcome in ours}
    return [median(o.seconds) / by_round[o.round] for o in outcomes if o.round in by_round]


def _spread(values: Sequence[float], digits: int) -> str:
    """Median (least to largest)."""
    if not values:
        return "—"
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle
