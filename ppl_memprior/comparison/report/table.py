"""The numbers of a comparison, one row a posterior and one column a `Column`.

The same numbers are shown as a data frame, as text, as JSON and as CSV.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ppl_memprior.comparison.report.column import Column
from ppl_memprior.comparison.report.posterior import Posterior

INDEX = "posterior"  # heading of the posteriors' names


@dataclass(frozen=True)
class Table:
    """The numbers of all columns for all posteriors.

    Attributes:
        columns: all columns, in their order.
        rows: the numbers of each posterior by the column's name; NaN where one does not apply.
    """

    columns: tuple[Column, ...]
    rows: Mapping[str, Mapping[str, float | int]]

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns less the optional ones that no posterior has a number for."""
        return tuple(
            column
            for column in self.columns
            if not column.optional
            or any(not math.isnan(row[column.name]) for row in self.rows.values())
        )

    @property
    def header(self) -> list[str]:
        """The headings of the shown columns, after that of the posteriors' names."""
        return [INDEX, *(column.name for column in self.shown)]

    def frame(self) -> pd.DataFrame:
        """The shown numbers as a data frame, indexed by the posteriors' names."""
        rows = {
            name: {column.name: row[column.name] for column in self.shown}
            for name, row in self.rows.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(INDEX)

    def cells(self) -> list[list[str]]:
        """The shown numbers as text, each row beginning with the posterior's name."""
        return [
            [name, *(column.cell(row[column.name]) for column in self.shown)]
            for name, row in self.rows.items()
        ]


def tabulate(columns: Sequence[Column], posteriors: Iterable[Posterior]) -> Table:
    """Compute the numbers of all columns.

    Args:
        columns: the columns, each with a name of its own.
        posteriors: the posteriors, one for each row.

    Returns:
        The table.

    Raises:
        RuntimeError: a column that cannot be computed for a posterior.
        TypeError: a column that computes no number.
        ValueError: a column whose format does not write its number.
    """
    rows = {p.name: {column.name: column.value(p) for column in columns} for p in posteriors}
    return Table(tuple(columns), rows)
