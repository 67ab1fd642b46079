"""Numbers as text of bounded length, for tables, figures and sentences."""

from __future__ import annotations

import math


def written(value: float, how: str, width: int = 12) -> str:
    """Format a number, in scientific notation where it would take more than `width` characters.

    Args:
        value: the number; "-" stands for NaN.
        how: a format specification (".3f", ",d", "+.1f").
        width: the most characters that `how` may take.

    >>> written(1234.5, ".1f"), written(10**27, ",d"), written(float("nan"), ".2f")
    ('1234.5', '1.00e+27', '-')
    """
    if math.isnan(value):
        return "-"
    text = format(value, how)
    if len(text) <= width:
        return text
    return format(value, "+.2e" if how.startswith("+") else ".2e")
