"""A figure of the report: how it is drawn, and the caption that says how to read it.

The built-in figures are in `figures/`, one file each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import xarray as xr
from matplotlib.figure import Figure

from ppl_memprior.comparison.report.texts import check_text


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a comparison's report.

    The Matplotlib label of the figure, `figure.set_label(...)`, says in words what it shows, for
    readers who cannot see it. The caption stands in for a figure without a label.

    Attributes:
        name: its name in `Comparison.figures`.
        caption: sentences below the figure, which say how to read it.
        draw: draws the figure from the posteriors by name and the name of the reference, which
            is None without one. It returns None where it has nothing to show.

    Raises:
        TypeError: a name or caption that is no text, or a `draw` that cannot be called.
        ValueError: an empty name or caption.
    """

    name: str
    caption: str
    draw: Callable[[Mapping[str, xr.DataTree], str | None], Figure | None]

    def __post_init__(self) -> None:
        check_text("the name of a figure", self.name)
        check_text(f"the caption of the figure {self.name!r}", self.caption)
        if not callable(self.draw):
            raise TypeError(
                f"the figure {self.name!r} needs a function of the posteriors and the reference "
                f"as draw, got {type(self.draw).__name__} {self.draw!r}"
            )

    def drawn(self, runs: Mapping[str, xr.DataTree], reference: str | None) -> Figure | None:
        """Draw the figure.

        Args:
            runs: the posteriors by name.
            reference: name of the posterior that distances are measured to, or None.

        Returns:
            The figure with a label, or None where it has nothing to show.

        Raises:
            RuntimeError: `draw` raises.
            TypeError: `draw` returns something else than a figure or None.
        """
        try:
            figure = self.draw(runs, reference)
        except Exception as error:
            raise RuntimeError(
                f"the figure {self.name!r} cannot be drawn: {type(error).__name__}: {error}"
            ) from error
        if figure is None:
            return None
        if not isinstance(figure, Figure):
            raise TypeError(
                f"the figure {self.name!r} must be a Matplotlib Figure or None, but draw returned "
                f"a {type(figure).__name__}"
            )
        if not figure.get_label():
            figure.set_label(self.caption)
        return figure
