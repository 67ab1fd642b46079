"""A column of the table: how its number is computed, written and explained.

The built-in columns are in `columns.py`; `table.py` computes the numbers of all of them.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl_memprior._numbers import written
from ppl_memprior.comparison.report.posterior import Posterior
from ppl_memprior.comparison.report.texts import check_text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a comparison's table.

    Attributes:
        name: its heading.
        compute: gives the number of a posterior; NaN where it does not apply.
        format: a format specification of Python for the number, such as ".3f" or ",d".
        help: one or two sentences that say what the number means.
        unit: its unit, or nothing.
        optional: the column is left out where no posterior has the number.

    Raises:
        TypeError: a text that is no text, a `compute` that cannot be called, an `optional` that
            is no bool.
        ValueError: an empty name or help, or a format that does not format a number.

    Examples:
        >>> spread = Column(
        ...     name="sd of x",
        ...     compute=lambda posterior: posterior.tree["posterior"]["x"].std(),
        ...     format=".3f",
        ...     help="Standard deviation of the draws of x.",
        ... )
        >>> spread.cell(0.25)
        '0.250'
    """

    name: str
    compute: Callable[[Posterior], Any]
    format: str
    help: str
    unit: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        check_text("the name of a column", self.name)
        what = f"the column {self.name!r}"
        check_text(f"the help of {what}", self.help)
        if not callable(self.compute):
            raise TypeError(
                f"{what} needs a function of a Posterior as compute, got "
                f"{type(self.compute).__name__} {self.compute!r}"
            )
        for field, text in (("format", self.format), ("unit", self.unit)):
            if not isinstance(text, str):
                raise TypeError(
                    f"the {field} of {what} must be text, got {type(text).__name__} {text!r}"
                )
        try:
            self.cell(1)
        except ValueError:
            raise ValueError(
                f"the format {self.format!r} of {what} formats no number; give a format "
                "specification such as '.3f' or ',d'"
            ) from None
        if not isinstance(self.optional, bool):
            raise TypeError(
                f"optional of {what} must be True or False, got "
                f"{type(self.optional).__name__} {self.optional!r}"
            )

    def value(self, posterior: Posterior) -> float | int:
        """Compute the number of a posterior.

        Args:
            posterior: what `compute` reads.

        Returns:
            The number; NaN where it does not apply.

        Raises:
            RuntimeError: `compute` raises.
            TypeError: `compute` returns no real number.
            ValueError: the format does not write the number.
        """
        what = f"the column {self.name!r} of the posterior {posterior.name!r}"
        try:
            computed = self.compute(posterior)
        except Exception as error:
            raise RuntimeError(
                f"{what} cannot be computed: {type(error).__name__}: {error}"
            ) from error
        value = _number(computed)
        if value is None:
            raise TypeError(
                f"{what} must be a number, but compute returned "
                f"{type(computed).__name__} {_short(computed)}; return a float, NaN where the "
                "column does not apply"
            )
        try:
            self.cell(value)
        except ValueError:
            raise ValueError(
                f"{what} is {value}, which its format {self.format!r} does not write; give the "
                "column a format for fractions, such as '.3f'"
            ) from None
        return value

    def cell(self, value: float | int) -> str:
        """The number as text; "-" where it is NaN.

        Args:
            value: the number.

        Returns:
            At most 12 characters, unless scientific notation takes more.
        """
        if isinstance(value, float) and self.format.endswith("d"):
            if value.is_integer():
                value = int(value)
            elif math.isinf(value):
                return f"{value}"
        return written(value, self.format)


def _number(computed: Any) -> float | int | None:
    """The number as one of Python's; None for anything else than a real number."""
    if getattr(computed, "shape", None) == () and hasattr(computed, "item"):
        computed = computed.item()  # NumPy, JAX and xarray give arrays of one number
    if isinstance(computed, bool) or not isinstance(computed, numbers.Real):
        return None
    return int(computed) if isinstance(computed, numbers.Integral) else float(computed)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
