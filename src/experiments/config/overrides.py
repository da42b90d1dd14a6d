"""Overrides as text, key=value: reading them, the quotes that they need, and the values that they list.

Hydra reads `1.10` as a number and stops at letters outside ASCII; `as_meant` adds the quotes that say what was typed.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import sys
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from math import ceil, prod

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

from experiments.config.errors import UserError
from experiments.config.foreign import mask_passwords
from experiments.config.keys import text_keys, text_lists

MOST_RUNS = 10_000  # of a multirun: each is composed, checked and stored
CHOSEN_NAMES = ("optimizer.name", "schedule.name")  # decide which keys there are, as the file of the group does
FEW = 100  # values of a range that are all checked; of a longer one the first and the last are

_QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
_BEFORE = (
    r"[{,]\s*\w+\s*:(?!\s*//)\s*|[\[,]\s*|^\s*(?:choice\(\s*)?"  # of a value: the key of a dictionary, or a bracket
)
_WORD = re.compile(
    rf"{_QUOTED}|(?P<before>{_BEFORE})(?P<word>(?:\$\{{[^}}]*\}}|[^,\[\](){{}}'\"=])+?)(?=\s*(?:[,\])}}]|$))"
)


def as_meant(override: str) -> str:
    """The override, with quotes around letters outside ASCII, and around numbers if the key is a text."""
    key, equals, value = override.partition("=")
    is_text = key.lstrip("+~") in text_keys() and not re.match(r"(?!choice\()\w+\(", value)

    def quoted(found: re.Match[str]) -> str:
        word = found["word"]
        if word is None or (word.isascii() and not (is_text and _is_number(word))):
            return found[0]
        return found["before"] + in_quotes(word)

    meant = key + equals + _WORD.sub(quoted, value)
    return meant if parse(meant) is not None else override


def in_quotes(value: str) -> str:
    """The text as Hydra reads it whatever it contains."""
    return QuotedString(value, Quote.double).with_quotes()


def _is_number(word: str) -> bool:
    parsed = parse(f"key={word}")
    return parsed is not None and isinstance(parsed.value(), int | float)  # true and false are of type int


@functools.cache
def parse(text: str) -> Override | None:
    """The override as Hydra reads it; None if it cannot be read."""
    with contextlib.suppress(HydraException, ValueError, RecursionError):
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group:
            return override
    return None


def misread(text: str) -> str:
    """Why an override cannot be applied: it cannot be read, or its text is read as a list; empty if it can."""
    key, equals, _ = text.partition("=")
    parsed = parse(as_meant(text))
    is_text = key.lstrip("+~") in text_keys() - text_lists()
    if parsed is not None and not (is_text and isinstance(parsed.value(), list | dict)):
        return ""
    if is_text and equals:
        return f"{mask_passwords(text)}: this value needs quotes: {shlex.quote(_with_quotes(text))}{_whole_command({text})}"
    if not key or not equals:
        return f"{text}: cannot be read; write key=value, without spaces"
    return f"{text}: cannot be read; write key=value, and put quotes around special characters: 'key=\"a, b\"'"


def _with_quotes(text: str) -> str:
    key, _, value = text.partition("=")
    return f"{key}={in_quotes(value)}"


def _whole_command(texts: set[str]) -> str:
    """The command of this process with quotes around these overrides; empty if it has none of them."""
    if not texts & set(sys.argv):
        return ""
    arguments = [_with_quotes(text) if text in texts else text for text in sys.argv]
    return mask_passwords(f"\n  {shlex.join(['python', *arguments])}")


def several(text: str) -> str:
    """The message for several values where there can be one."""
    key, _, value = text.partition("=")
    message = f"{text}: several values need a multirun: python train.py -m"
    if key in CHOSEN_NAMES:
        return f"{message} {key.removesuffix('.name')}={value.removeprefix('choice(').removesuffix(')')}"
    message += " ..."
    if key.lstrip("+~") not in text_keys():
        return message
    return f"{message}; a single text with these signs needs quotes: {shlex.quote(_with_quotes(text))}{_whole_command({text})}"


def is_plain(override: Override) -> bool:
    """Whether it sets one value of a key of this project, or chooses one file of a group."""
    is_change = override.type == OverrideType.CHANGE and not override.is_sweep_override()
    return is_change and not override.key_or_group.startswith("hydra")


def count_values(override: Override) -> int:
    """The number of values in a list or a range, without making them.

    Raises:
        UserError: there are none.
    """
    sweep = override.value()
    count = 1
    if isinstance(sweep, ChoiceSweep):
        count = len(sweep.list)
    elif isinstance(sweep, RangeSweep):
        if sweep.step == 0:
            raise UserError(f"{override.input_line}: its step is 0")
        start, stop, step = (Fraction(Decimal(str(number))) for number in (sweep.start, sweep.stop, sweep.step))
        count = max(0, ceil((stop - start) / step))
    if not count:
        raise UserError(f"{override.input_line}: has no values")
    return count


def check_count(overrides: Iterable[Override]) -> None:
    """Refuse a grid of too many runs before its values are made.

    Raises:
        UserError: naming the overrides with several values.
    """
    counts = {str(override.input_line): count_values(override) for override in overrides}
    if (runs := prod(counts.values())) > MOST_RUNS:
        several = " ".join(text for text, count in counts.items() if count > 1)
        raise UserError(f"{several}: a grid of {runs:,} runs; must be at most {MOST_RUNS:,}")


def values_to_check(override: Override) -> list[str]:
    """The values of a sweep as overrides; of a range that is continuous or long, its two ends.

    Raises:
        UserError: it has no values.
    """
    sweep, key = override.value(), override.get_key_element()
    if isinstance(sweep, IntervalSweep):
        return [f"{key}={sweep.start:g}", f"{key}={sweep.end:g}"]
    if isinstance(sweep, RangeSweep) and (count := count_values(override)) > FEW:
        assert sweep.start is not None
        last = sweep.start + (count - 1) * sweep.step  # type: ignore[operator]
        return [f"{key}={sweep.start}", f"{key}={last}"]
    return choices(override)


def choices(override: Override) -> list[str]:
    """Every value of a list or a range, as overrides."""
    return [as_meant(f"{override.get_key_element()}={value}") for value in override.sweep_string_iterator()]
