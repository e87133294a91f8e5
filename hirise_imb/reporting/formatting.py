"""Formats numbers for pages, terminal tables and figures."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "–"
"""Text for a missing value."""


def score(value: float | None) -> str:
    """Formats a score with three decimals; a dash if it is None."""
    # Adding 0.0 turns -0.0 into 0.0, which has no minus sign.
    return MISSING if value is None else f"{round(value, 3) + 0.0:.3f}"


def signed(value: float | None) -> str:
    """Formats a difference with three decimals and its sign, with a plus before zero; a dash if it is None."""
    return MISSING if value is None else f"{round(value, 3) + 0.0:+.3f}"


def upper_first(text: str) -> str:
    """Returns a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def p_digits(p: float) -> str:
    """Formats a p value with two decimals, or three if it is small: `0.28`, `0.004`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_value(p: float) -> str:
    """Formats a p value for a sentence: `p = 0.28`, `p < 0.001`."""
    digits = p_digits(p)
    return f"p {digits}" if digits.startswith("<") else f"p = {digits}"


def count(value: float) -> str:
    """Formats a count without decimals, or a mean of counts with one."""
    rounded = round(value, 1)
    return f"{rounded:,.0f}" if rounded == round(rounded) else f"{rounded:,.1f}"


def percent(share: float) -> str:
    """Formats a share in per cent with two significant digits, without the per cent sign.

    Only shares of exactly 0 and 1 are written as 0 and 100, because few is not none and most is not all. The limits lie
    half a unit of the last digit below the next number of digits.
    """
    if 0 < share < 0.0005:
        return "<0.1"
    if 0.9995 <= share < 1:
        return ">99.9"
    return f"{100 * share:.1f}" if 0 < share < 0.0995 or 0.995 <= share < 1 else f"{100 * share:.0f}"


def points(difference: float) -> str:
    """Formats a difference of shares in percentage points with two significant digits and its sign."""
    if abs(difference) < 0.0005:
        return "0"
    return f"{100 * difference:+.1f}" if abs(difference) < 0.0995 else f"{100 * difference:+.0f}"


def duration(seconds: float) -> str:
    """Formats a duration in its two largest units, such as `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count_range(counts: Sequence[int]) -> str:
    """Formats counts that may be equal: `4`, or `4 to 7`."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def plural(number: int, noun: str) -> str:
    """Formats a number with its noun: `1 source`, `29 sources`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def join_words(names: list[str] | tuple[str, ...]) -> str:
    """Joins names for a sentence: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
