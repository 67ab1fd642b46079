"""What a rule reads: the posteriors' summaries, the reference's name, and the draws themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import xarray as xr

from ppl_memprior.diagnostics.summary import PosteriorSummary
from ppl_memprior.diagnostics.verdicts._verdict import Verdict


@dataclass(frozen=True)
class Reading:
    """Posteriors of one problem, as a rule reads them.

    Attributes:
        summaries: one for each posterior, in the order of the report.
        reference: name of the posterior that the others are compared with, or None.
        runs: the draws by the posterior's name, for rules that compute from them. The package's
            own rules need none.

    Raises:
        ValueError: a reference that is not among the summaries.
    """

    summaries: tuple[PosteriorSummary, ...]
    reference: str | None = None
    runs: Mapping[str, xr.DataTree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [s.method for s in self.summaries]
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference {self.reference!r} is not among the posteriors {names}")

    @property
    def reference_summary(self) -> PosteriorSummary | None:
        """The reference's summary; None without a reference."""
        return next((s for s in self.summaries if s.method == self.reference), None)


#: A rule: a function of a `Reading` that returns its verdicts, none where it has nothing to say.
Rule: TypeAlias = Callable[[Reading], list[Verdict]]
