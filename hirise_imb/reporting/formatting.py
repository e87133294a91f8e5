"""How pages, terminal tables and figures write numbers."""

from __future__ import annotations

MISSING = "–"
"""Stands where there is no value."""


def score(value: float | None) -> str:
    """A score with three decimals, and no minus sign before a zero; a dash where there is none."""
    return MISSING if value is None else f"{round(value, 3) + 0.0:.3f}"


def signed(value: float | None) -> str:
    """A difference with three decimals and its sign, a plus before zero; a dash where there is none."""
    return MISSING if value is None else f"{round(value, 3) + 0.0:+.3f}"


def p_digits(p: float) -> str:
    """A p value with two decimals, three where it is small: `0.28`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_value(p: float) -> str:
    """A p value as a sentence has it: `p = 0.28`, `p < 0.001`."""
    digits = p_digits(p)
    return f"p {digits}" if digits.startswith("<") else f"p = {digits}"


def count(value: float) -> str:
    """A count, or a mean of counts with one decimal."""
    near = round(value, 1)
    return f"{near:,.0f}" if near == round(near) else f"{near:,.1f}"


def percent(share: float) -> str:
    """A share in per cent, without the sign, in two digits; a share near none or all is never written as 0 or 100."""
    if 0 < share < 0.0005:
        return "<0.1"
    if 0.9995 <= share < 1:
        return ">99.9"
    return f"{100 * share:.1f}" if 0 < share < 0.0995 or 0.995 <= share < 1 else f"{100 * share:.0f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign, in two digits."""
    if abs(difference) < 0.0005:
        return "0"
    return f"{100 * difference:+.1f}" if abs(difference) < 0.0995 else f"{100 * difference:+.0f}"


def duration(seconds: float) -> str:
    """A time in its two largest units, such as `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def plural(number: int, noun: str) -> str:
    """A number with its noun: `1 source`, `29 sources`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def join_words(names: list[str] | tuple[str, ...]) -> str:
    """Names as a sentence lists them: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
