"""What helps a posterior whose chains disagree: its method's own remedy, or another method.

Both come from the posterior's attributes, so a new method brings its own advice.
"""

from __future__ import annotations

from ppl_memprior.diagnostics.alternatives import Alternative
from ppl_memprior.diagnostics.summary import PosteriorSummary


def remedy(s: PosteriorSummary) -> str:
    """What to do about chains that disagree, as a sentence."""
    if s.remedy:
        return f"{s.remedy[0].upper()}{s.remedy[1:].rstrip('.')}."
    mover = preferred_mover(s)
    if mover is None:
        return "Run more and longer chains."
    return f"Run {mover.name}, {mover.moves_between_modes}."


def preferred_mover(s: PosteriorSummary) -> Alternative | None:
    """The first method that moves between modes; None where the posterior's own method does."""
    movers = [a for a in s.alternatives if a.moves_between_modes]
    if any(a.name == s.kind for a in movers):
        return None
    return next(iter(movers), None)
