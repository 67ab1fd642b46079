"""From the summaries of several posteriors to verdicts: which one to believe, and why.

Each question has a file with one rule: a function that reads the posteriors and returns verdicts.
`RULES` has the package's rules in reading order, and `judge` asks them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppl_memprior.diagnostics.verdicts._reading import Reading, Rule
from ppl_memprior.diagnostics.verdicts._verdict import Severity, Verdict
from ppl_memprior.diagnostics.verdicts.advice import advise
from ppl_memprior.diagnostics.verdicts.agreement import judge_agreement
from ppl_memprior.diagnostics.verdicts.chains import judge_chains
from ppl_memprior.diagnostics.verdicts.data_fit import judge_data_fit
from ppl_memprior.diagnostics.verdicts.failures import judge_failures
from ppl_memprior.diagnostics.verdicts.importance import judge_importance
from ppl_memprior.diagnostics.verdicts.linearization import judge_linearization
from ppl_memprior.diagnostics.verdicts.lookup import judge_lookup
from ppl_memprior.diagnostics.verdicts.mode_weights import judge_mode_weights
from ppl_memprior.diagnostics.verdicts.repeated_examples import judge_repeated_examples

#: The package's rules in reading order; the advice has the last word.
RULES: tuple[Rule, ...] = (
    judge_data_fit,
    judge_lookup,
    judge_repeated_examples,
    judge_chains,
    judge_mode_weights,
    judge_failures,
    judge_linearization,
    judge_importance,
    judge_agreement,
    advise,
)


def judge(
    reading: Reading, rules: Sequence[Rule] = RULES, *, extra_rules: Sequence[Rule] = ()
) -> list[Verdict]:
    """Say which posterior to believe and why.

    Args:
        reading: the posteriors, at least one.
        rules: what to ask, in order.
        extra_rules: more rules, asked before the advice, or last where `rules` holds no advice.

    Returns:
        The rules' verdicts, in order; by default the most important question first and the advice
        last.

    Raises:
        TypeError: rules that are not functions, before any is asked; or a rule that returns
            something else than a list of verdicts (which rule).
        ValueError: no posterior; or a rule that speaks about a posterior that is not there.
        RuntimeError: a rule that raises (which).

    Example: a rule of your own, `judge(reading, extra_rules=[judge_speed])`::

        def judge_speed(reading):
            slow = tuple(s.method for s in reading.summaries if s.seconds > 3600)
            sentence = f"These took more than an hour: {', '.join(slow)}."
            verdict = Verdict(code="slow", severity="note", sentence=sentence, about=slow)
            return [verdict] if slow else []
    """
    if not isinstance(reading, Reading):
        raise TypeError(f"judge takes a Reading, got {type(reading).__name__} {reading!r}")
    if not reading.summaries:
        raise ValueError("judge needs the summary of at least one posterior; got none")
    asked = [*_checked("rules", rules)]
    place = asked.index(advise) if advise in asked else len(asked)
    asked[place:place] = _checked("extra_rules", extra_rules)
    return [verdict for rule in asked for verdict in _answer(rule, reading)]


def _checked(name: str, rules: Any) -> tuple[Rule, ...]:
    if callable(rules) or not isinstance(rules, Sequence) or isinstance(rules, str):
        raise TypeError(
            f"{name} must be a list of functions, [my_rule], got {type(rules).__name__} {rules!r}"
        )
    for i, rule in enumerate(rules):
        if not callable(rule):
            raise TypeError(
                f"{name}[{i}] must be a function that takes a Reading, got "
                f"{type(rule).__name__} {rule!r}"
            )
    return tuple(rules)


def _check_names(name: str, verdicts: list[Verdict], reading: Reading) -> None:
    known = [s.method for s in reading.summaries]
    strange = [label for v in verdicts for label in v.about if label not in known]
    if strange:
        raise ValueError(
            f"the rule {name} speaks about {strange[0]!r}, which is none of the posteriors {known}"
        )


def _answer(rule: Rule, reading: Reading) -> list[Verdict]:
    name = getattr(rule, "__qualname__", repr(rule))
    try:
        found: Any = rule(reading)
    except Exception as error:
        raise RuntimeError(
            f"the rule {name} cannot be asked: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, list):
        given = f"{type(found).__name__} {found!r}"
    elif others := [v for v in found if not isinstance(v, Verdict)]:
        given = f"a list with {type(others[0]).__name__} {others[0]!r}"
    else:
        _check_names(name, found, reading)
        return found
    raise TypeError(
        f"the rule {name} must return a list of Verdict, an empty one where it has nothing to "
        f"say; it returned {given}"
    )


__all__ = ["RULES", "Reading", "Rule", "Severity", "Verdict", "judge"]
